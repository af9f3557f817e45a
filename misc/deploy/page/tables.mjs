/** The coder's frequency tables, and the share of 2^24 that each symbol gets. */

export const PRECISION = 24;
const TOTAL = 2 ** PRECISION;
const EXCESS_BITS = 24;

/** One frequency table; its last row is the escape, for symbols outside of it. */
export class Table {
  /**
   * @param {number} offset the smallest symbol
   * @param {number[]} cdf 16-bit cumulative frequencies from 0 to 65536
   */
  constructor(offset, cdf) {
    const rows = cdf.length - 1;
    this.offset = offset;
    this.escape = rows - 1;
    // constriction's Categorical(perfect=False): every row keeps at least 1, the rest is shared by frequency.
    this.left = Int32Array.from(cdf, (frequency, row) => Math.floor((frequency * (TOTAL - rows)) / 2 ** 16) + row);
  }

  /** Return the row of a symbol, the escape if it has none. */
  row(symbol) {
    const row = symbol - this.offset;
    return row < 0 || row >= this.escape ? this.escape : row;
  }

  /** Return the distance to the table of a symbol outside of it: even below, odd above. */
  excess(symbol) {
    const row = symbol - this.offset;
    return row < 0 ? -2 * row : 2 * (row - this.escape) + 1;
  }

  /** Return the bits that a symbol costs. */
  bits(symbol) {
    const row = this.row(symbol);
    const bits = PRECISION - Math.log2(this.left[row + 1] - this.left[row]);
    return row < this.escape ? bits : bits + Math.log2(EXCESS_BITS) + bitsAfterLeading(this.excess(symbol));
  }
}

/** Return the start and the share of value `value` of `count` equally probable ones. */
export function uniform(value, count) {
  const share = Math.floor(TOTAL / count);
  const start = value * share;
  return [start, value === count - 1 ? TOTAL - start : share];
}

/** Return the parts of a positive integer's Elias gamma code, each as [value, count]; the decoder reads the first first. */
export function eliasGamma(value) {
  const bits = bitsAfterLeading(value);
  const length = [bits, EXCESS_BITS];
  return bits ? [length, [value - 2 ** bits, 2 ** bits]] : [length];
}

function bitsAfterLeading(value) {
  return 31 - Math.clz32(value);
}

/** Return the tables of edge.json, `{y: [Table, ...], ...}`. */
export function tablesOf(edge) {
  const build = ({ offsets, cdf }) => cdf.map((row, index) => new Table(offsets[index], row));
  return Object.fromEntries(Object.entries(edge.tables).map(([name, tables]) => [name, build(tables)]));
}
