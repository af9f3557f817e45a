/** The entropy coder: symbols to the bytes that model/coding makes of them. */

import { elementsOf, sizeOf } from "./symbols.mjs";
import { pack } from "./stream.mjs";
import { PRECISION, eliasGamma, uniform } from "./tables.mjs";

const HALF_WORD = 2 ** 16;

/** A stack of coded symbols, as constriction's AnsCoder: words of 32 bits, and a state of 64 bits in two numbers. */
export class AnsEncoder {
  words = [];
  high = 0;
  low = 0;

  /** Code a symbol that has the interval [left, left + share) of 2^24. */
  push(left, share) {
    if (this.high >>> (32 - PRECISION) >= share) {
      this.words.push(this.low);
      this.low = this.high;
      this.high = 0;
    }
    // state = quotient * 2^24 + left + remainder; the long division takes 16 bits at a time, so all numbers are exact.
    const first = Math.floor(this.high / share); // below 2^8
    let rest = (this.high - first * share) * HALF_WORD + (this.low >>> 16);
    const second = Math.floor(rest / share); // below 2^16, as the third
    rest = (rest - second * share) * HALF_WORD + (this.low & 0xffff);
    const third = Math.floor(rest / share);
    this.high = first * 2 ** 24 + second * 2 ** 8 + (third >>> 8);
    this.low = (third & 0xff) * 2 ** PRECISION + left + rest - third * share;
  }

  /** Return the coded symbols, without the zero bytes at the end. */
  bytes() {
    const bytes = new Uint8Array(4 * (this.words.length + 2));
    const view = new DataView(bytes.buffer);
    [...this.words, this.low, this.high].forEach((word, index) => view.setUint32(4 * index, word, true));
    return bytes.subarray(0, bytes.findLastIndex((byte) => byte > 0) + 1);
  }
}

/**
 * Return the stream of one image.
 *
 * @param edge the content of edge.json
 * @param tables its tables, as of tablesOf
 * @param outputs the encoder's, by name: {data: Int32Array, dims: number[]}
 * @param {number} image which of the batch
 * @param {number|null} level of a model of variable rate
 * @returns {Uint8Array} equal to the Python coder's for the same symbols
 * @throws {Problem} symbols, or a size, that no stream can hold
 */
export function encodeStream(edge, tables, outputs, image = 0, level = null) {
  const stack = new AnsEncoder();
  for (const entry of edge.order.toReversed()) pushElements(stack, tables[entry.tables], elementsOf(entry, outputs, image));
  return pack(edge.fingerprint, sizeOf(outputs), stack.bytes(), level);
}

/** Push in reverse of the decoder's order: all symbols by table, then the excess of each escape. */
function pushElements(stack, tables, { symbols, indexes }) {
  const reversed = byTable(indexes, tables.length).reverse();
  for (const element of reversed) {
    const table = tables[indexes[element]];
    const symbol = symbols[element];
    if (table.row(symbol) < table.escape) continue;
    for (const [value, count] of eliasGamma(table.excess(symbol)).toReversed()) stack.push(...uniform(value, count));
  }
  for (const element of reversed) {
    const table = tables[indexes[element]];
    const row = table.row(symbols[element]);
    stack.push(table.left[row], table.left[row + 1] - table.left[row]);
  }
}

/** Return the elements sorted by table; those of one table keep their order. */
function byTable(indexes, count) {
  const next = new Int32Array(count + 1); // where the next element of each table goes
  for (const index of indexes) next[index + 1] += 1;
  for (let table = 0; table < count; table++) next[table + 1] += next[table];
  const sorted = new Int32Array(indexes.length);
  indexes.forEach((index, element) => {
    sorted[next[index]] = element;
    next[index] += 1;
  });
  return sorted;
}
