/** Where the bits went: what the tables charge for each position of y. */

import { elementsOf, sizeOf } from "./symbols.mjs";

/**
 * Return the bits of each position of y, row by row.
 *
 * The bits of z are spread over the positions it describes, those of padding are counted at the nearest position, so the
 * sum is that of all symbols.
 *
 * @param edge the content of edge.json
 * @param tables its tables, as of tablesOf
 * @param outputs the encoder's, by name: {data: Int32Array, dims: number[]}
 * @param {number} image which of the batch
 * @returns {{height: number, width: number, bits: Float64Array}}
 */
export function bitsPerPosition(edge, tables, outputs, image = 0) {
  const [height, width] = sizeOf(outputs);
  const bits = new Float64Array(height * width);
  for (const entry of edge.order) {
    const elements = elementsOf(entry, outputs, image);
    const side = Math.round((Math.ceil(height / edge.stride) * edge.stride) / elements.height); // in positions of y
    elements.symbols.forEach((symbol, element) => {
      const table = tables[entry.tables][elements.indexes[element]];
      const place = elements.places[element];
      const top = Math.floor(place / elements.width) * side;
      const left = (place % elements.width) * side;
      spread(bits, height, width, top, left, side, table.bits(symbol));
    });
  }
  return { height, width, bits };
}

function spread(bits, height, width, top, left, side, amount) {
  for (let i = top; i < top + side; i++) {
    for (let j = left; j < left + side; j++) {
      bits[Math.min(i, height - 1) * width + Math.min(j, width - 1)] += amount / side ** 2;
    }
  }
}

/** Return a map in words: its range, and where the most bits are. */
export function describe({ height, width, bits }) {
  const most = bits.indexOf(Math.max(...bits));
  const [row, column] = [Math.floor(most / width), most % width];
  const where = region(part(row, height, "top", "bottom"), part(column, width, "left", "right"));
  const total = bits.reduce((sum, value) => sum + value, 0);
  return (
    `${height} x ${width} positions cost ${Math.min(...bits).toFixed(1)} to ${bits[most].toFixed(1)} bits each, ` +
    `${(total / bits.length).toFixed(1)} on average. The most bits went to the ${where}: ` +
    `row ${row + 1}, column ${column + 1}.`
  );
}

function region(vertical, horizontal) {
  return vertical === horizontal ? "centre" : `${vertical} ${horizontal}`;
}

function part(index, count, low, high) {
  const third = Math.floor((3 * (index + 0.5)) / count);
  return [low, "middle", high][third];
}

// Viridis at equal distances, dark blue to yellow.
const COLOURS = [
  [68, 1, 84], [71, 44, 122], [59, 81, 139], [44, 113, 142], [33, 144, 141],
  [39, 173, 129], [92, 200, 99], [170, 220, 50], [253, 231, 37],
];

/** Return the colour [red, green, blue] of a share from 0 to 1. */
export function colour(share) {
  const place = share * (COLOURS.length - 1);
  const below = Math.min(Math.floor(place), COLOURS.length - 2);
  return COLOURS[below].map((value, channel) => Math.round(value + (COLOURS[below + 1][channel] - value) * (place - below)));
}
