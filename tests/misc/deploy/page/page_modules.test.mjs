import assert from "node:assert/strict";
import { test } from "node:test";

const page = new URL("../../../../misc/deploy/page/", import.meta.url);
const load = (name) => import(new URL(name, page));

const { crc32, pack, varint } = await load("stream.mjs");
const { encodeStream } = await load("coder.mjs");
const { eliasGamma, tablesOf, uniform } = await load("tables.mjs");
const { bitsPerPosition, colour, describe } = await load("heat_map.mjs");
const { crop, numbers } = await load("pixels.mjs");
const { once } = await load("once.mjs");
const { Problem } = await load("problem.mjs");

test("CRC-32 of the check value", () => {
  assert.equal(crc32(new TextEncoder().encode("123456789")), 0xcbf43926);
  assert.equal(crc32(new Uint8Array()), 0);
});

test("varints, lowest seven bits first", () => {
  assert.deepEqual(varint(0), [0]);
  assert.deepEqual(varint(127), [127]);
  assert.deepEqual(varint(128), [0x80, 1]);
  assert.deepEqual(varint(16384), [0x80, 0x80, 1]);
});

test("a stream with a level is of version 3", () => {
  const [plain, leveled] = [pack("0a0b0c0d", [8, 8], Uint8Array.of(5)), pack("0a0b0c0d", [8, 8], Uint8Array.of(5), 21)];
  assert.deepEqual([...plain.subarray(0, -4)], [0x46, 0x32, 10, 11, 12, 13, 8, 5]);
  assert.deepEqual([...leveled.subarray(0, -4)], [0x46, 0x33, 10, 11, 12, 13, 21, 8, 5]);
});

test("a size beyond a stream's limit is refused", () => {
  assert.throws(() => pack("00000000", [129, 128], new Uint8Array()), Problem);
  assert.throws(() => pack("00000000", [0, 1], new Uint8Array()), Problem);
});

test("Elias gamma codes: the number of bits, then the bits", () => {
  assert.deepEqual(eliasGamma(1), [[0, 24]]);
  assert.deepEqual(eliasGamma(6), [[2, 24], [2, 4]]);
});

test("equal shares, of which the last takes the rest", () => {
  assert.deepEqual(uniform(0, 24), [0, 699050]);
  assert.deepEqual(uniform(23, 24), [23 * 699050, 2 ** 24 - 23 * 699050]);
});

const order = [{ symbols: "y", indexes: null, tables: "y", positions: "all" }];
const edge = { fingerprint: "00000000", stride: 1, order, tables: { y: { offsets: [0], cdf: [[0, 32768, 65536]] } } };
const outputsOf = (symbols, width) => ({
  nonfinite: { data: new Int32Array(symbols.length), dims: [1, symbols.length / width, width] },
  y: { data: Int32Array.from(symbols), dims: [1, 1, symbols.length / width, width] },
});

test("a symbol beyond 8192 is refused", () => {
  encodeStream(edge, tablesOf(edge), outputsOf([8192, -8192], 2));
  assert.throws(() => encodeStream(edge, tablesOf(edge), outputsOf([8193, 0], 2)), Problem);
  assert.throws(() => encodeStream(edge, tablesOf(edge), outputsOf([-(2 ** 31), 0], 2)), Problem);
});

test("bits of an escape: the table's, the code's length, its bits", () => {
  const { bits } = bitsPerPosition(edge, tablesOf(edge), outputsOf([0, 1, 3], 3)); // excess 1 and 5
  assert.ok(Math.abs(bits[0] - 1) < 1e-6);
  assert.ok(Math.abs(bits[1] - 1 - Math.log2(24)) < 1e-6);
  assert.ok(Math.abs(bits[2] - 1 - Math.log2(24) - 2) < 1e-6);
});

test("bits of z cover its block, those of padding count at the edge", () => {
  const half = { offsets: [0], cdf: [[0, 32768, 65536]] };
  const z = { symbols: "z", indexes: null, tables: "z", positions: "all" };
  const hyper = { stride: 2, order: [z, order[0]], tables: { y: half, z: half } };
  const outputs = {
    nonfinite: { data: new Int32Array(3), dims: [1, 1, 3] },
    z: { data: new Int32Array(2), dims: [1, 1, 1, 2] },
    y: { data: new Int32Array(8), dims: [1, 1, 2, 4] },
  };
  const { bits } = bitsPerPosition(hyper, tablesOf(hyper), outputs);
  [2.5, 2.5, 5].forEach((expected, place) => assert.ok(Math.abs(bits[place] - expected) < 1e-6));
});

test("a map in words names its maximum", () => {
  const words = describe({ height: 3, width: 3, bits: Float64Array.from([1, 1, 4, 1, 1, 1, 1, 1, 1]) });
  assert.match(words, /3 x 3 positions cost 1\.0 to 4\.0 bits/);
  assert.match(words, /top right: row 1, column 3/);
});

test("the ends of the colour scale", () => {
  assert.deepEqual(colour(0), [68, 1, 84]);
  assert.deepEqual(colour(1), [253, 231, 37]);
});

test("an unknown step is refused", () => {
  const picture = { width: 1, height: 1, data: new Uint8Array(4) };
  assert.throws(() => crop(picture, [{ op: "rotate" }]), /"rotate"/);
  assert.throws(() => crop(picture, [{ op: "resize", size: 2, interpolation: "lanczos" }]), /"lanczos"/);
});

test("numbers ignore alpha and go channel by channel", () => {
  const picture = { width: 2, height: 1, data: Uint8Array.from([0, 51, 255, 0, 255, 51, 0, 9]) };
  const transform = [{ op: "scale", factor: 1 / 255 }, { op: "normalize", mean: [0, 0, 0.5], std: [1, 2, 0.5] }];
  assert.deepEqual([...numbers(picture, transform)].map((value) => +value.toFixed(3)), [0, 1, 0.1, 0.1, 1, -1]);
});

test("once keeps what has been made, but no failure", async () => {
  let calls = 0;
  const get = once(async () => {
    calls += 1;
    if (calls === 1) throw new Error("first");
    return calls;
  });
  await assert.rejects(get(), /first/);
  assert.equal(await get(), 2);
  assert.equal(await get(), 2);
  get.forget();
  assert.equal(await get(), 3);
});
