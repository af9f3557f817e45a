/** The entropy coder: symbols to the bytes that model/coding makes of them. */

import { elementsOf, sizeOf } from "./symbols.mjs";
import { pack } from "./stream.mjs";
import { PRECISION, eliasGamma, tablesOf, uniform } from "./tables.mjs";

const WORD = 2 ** 32;
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
      [this.high, this.low] = [0, this.high];
    }
    // state = quotient * 2^24 + left + remainder; the long division takes 16 bits at a time, so all numbers are exact.
    let [quotient, remainder] = divide(this.high, share);
    for (const digit of [this.low >>> 16, this.low & 0xffff]) {
      const [next, rest] = divide(remainder * HALF_WORD + digit, share);
      quotient = quotient * HALF_WORD + next;
      remainder = rest;
    }
    const [upper, lower] = divide(quotient, 2 ** (32 - PRECISION));
    this.high = upper;
    this.low = lower * 2 ** PRECISION + left + remainder;
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
 * @param outputs the encoder's, by name: {data: Int32Array, dims: number[]}
 * @param {number} image which of the batch
 * @returns {Uint8Array} equal to the Python coder's for the same symbols
 * @throws {Problem} symbols, or a size, that no stream can hold
 */
export function encodeStream(edge, outputs, image = 0) {
  const tables = tablesOf(edge);
  const stack = new AnsEncoder();
  for (const entry of edge.order.toReversed()) pushElements(stack, tables[entry.tables], elementsOf(entry, outputs, image));
  return pack(edge.fingerprint, sizeOf(outputs), stack.bytes());
}

/** Push in reverse of the decoder's order: all symbols by table, then the excess of each escape. */
function pushElements(stack, tables, { symbols, indexes }) {
  const sorted = symbols.map((symbol, element) => [tables[indexes[element]], symbol, indexes[element]]);
  sorted.sort((one, other) => one[2] - other[2]).reverse();
  for (const [table, symbol] of sorted) {
    if (table.row(symbol) < table.escape) continue;
    for (const [value, count] of eliasGamma(table.excess(symbol)).toReversed()) stack.push(...uniform(value, count));
  }
  for (const [table, symbol] of sorted) {
    const row = table.row(symbol);
    stack.push(table.left[row], table.left[row + 1] - table.left[row]);
  }
}

/** Return quotient and remainder of integers below 2^53. */
function divide(dividend, divisor) {
  const remainder = dividend % divisor;
  return [(dividend - remainder) / divisor, remainder];
}
