/** The stream format of model/coding/bitstream.py, versions 2 and 3: the bytes of one image. */

import { Problem } from "./problem.mjs";

const ONE_RATE = [0x46, 0x32]; // "F2"
const VARIABLE_RATE = [0x46, 0x33]; // "F3"
const MAX_SQUARE = 128;
const MAX_BYTES = 2 ** 24;

const CRC_TABLE = Uint32Array.from({ length: 256 }, (_, byte) => {
  let crc = byte;
  for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ 0xedb88320 : crc >>> 1;
  return crc;
});

/**
 * Return the complete stream.
 *
 * @param {string} fingerprint 8 hex digits
 * @param {[number, number]} size height and width of y
 * @param {Uint8Array} payload the coded symbols
 * @param {number|null} level of a model of variable rate
 * @returns {Uint8Array}
 */
export function pack(fingerprint, [height, width], payload, level = null) {
  if (height < 1 || width < 1 || height * width > MAX_SQUARE ** 2) {
    throw new Problem(`The picture's latent has ${height} x ${width} positions: more than a stream can hold.`);
  }
  const side = height === width ? [height] : [0, ...varint(height), ...varint(width)];
  const identity = fingerprint.match(/../g).map((pair) => parseInt(pair, 16));
  const start = level === null ? [...ONE_RATE, ...identity] : [...VARIABLE_RATE, ...identity, level];
  const head = [...start, ...side];
  const length = head.length + payload.length + 4;
  if (length > MAX_BYTES) throw new Problem("The picture takes more bytes than a stream can have: try a smaller one.");
  const bytes = new Uint8Array(length);
  bytes.set(head);
  bytes.set(payload, head.length);
  new DataView(bytes.buffer).setUint32(length - 4, crc32(bytes.subarray(0, length - 4)), true);
  return bytes;
}

/** Return the CRC-32 (zlib's) of bytes. */
export function crc32(bytes) {
  let crc = 0xffffffff;
  for (const byte of bytes) crc = CRC_TABLE[(crc ^ byte) & 0xff] ^ (crc >>> 8);
  return ~crc >>> 0;
}

/** Return a number as bytes of seven bits each, lowest first; all but the last have the top bit set. */
export function varint(value) {
  const bytes = [];
  for (; value > 0x7f; value >>>= 7) bytes.push((value & 0x7f) | 0x80);
  return [...bytes, value];
}
