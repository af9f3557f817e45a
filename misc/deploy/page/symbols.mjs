/** The encoder's outputs as the elements that are coded, in the order of edge.json. */

import { Problem } from "./problem.mjs";

const LARGEST_SYMBOL = 2 ** 13;
const PARITY = { even: 0, odd: 1 };

/**
 * Return the coded elements of one entry of `order`, by channel, row and column.
 *
 * @param entry {symbols, indexes, tables, positions}
 * @param outputs the encoder's, by name: {data: Int32Array, dims: [B, C, H, W]}
 * @param {number} image which of the batch
 * @returns {{symbols: Int32Array, indexes: Int32Array, places: Int32Array, height: number, width: number}}
 *     symbol, table and position (row * width + column) of each element; size of the grid
 * @throws {Problem} a symbol that no stream can hold
 */
export function elementsOf(entry, outputs, image) {
  const { data, dims } = outputs[entry.symbols];
  const [, channels, height, width] = dims;
  const tables = entry.indexes === null ? null : outputs[entry.indexes].data;
  const positions = positionsOf(entry.positions, height, width);
  const [symbols, indexes, places] = Array.from({ length: 3 }, () => new Int32Array(channels * positions.length));
  let element = 0;
  for (let channel = 0; channel < channels; channel++) {
    const start = (image * channels + channel) * height * width;
    for (const place of positions) {
      const symbol = data[start + place];
      if (Math.abs(symbol) > LARGEST_SYMBOL) throw new Problem("The encoder's output is out of range: try another picture.");
      symbols[element] = symbol;
      indexes[element] = tables ? tables[start + place] : channel;
      places[element] = place;
      element += 1;
    }
  }
  return { symbols, indexes, places, height, width };
}

function positionsOf(which, height, width) {
  const all = Int32Array.from({ length: height * width }, (_, place) => place);
  if (which === "all") return all;
  return all.filter((place) => (Math.floor(place / width) + (place % width)) % 2 === PARITY[which]);
}

/** Return height and width of y, without padding. */
export function sizeOf(outputs) {
  return outputs.nonfinite.dims.slice(-2);
}
