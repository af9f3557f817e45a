/**
 * The transform of edge.json: pixels to the encoder's input, with the arithmetic of Pillow and NumPy.
 *
 * A picture is {width, height, data}: four bytes per pixel, of which the fourth (alpha) is ignored.
 */

import { Problem } from "./problem.mjs";

const FRACTION_BITS = 22; // of Pillow's fixed-point weights
const HALF = 2 ** (FRACTION_BITS - 1);
const FILTERS = {
  bilinear: { reach: 1, weight: (x) => Math.max(1 - x, 0) },
  bicubic: { reach: 2, weight: (x) => (x < 1 ? (1.5 * x - 2.5) * x * x + 1 : x < 2 ? -0.5 * (((x - 5) * x + 8) * x - 4) : 0) },
};

/** Return the picture that the steps on pixels (resize, center_crop) make of a picture. */
export function crop(picture, transform) {
  return transform.reduce((picture, step) => {
    if (step.op === "resize") return resize(picture, ...sizeAfter(picture, step.size), filterOf(step.interpolation));
    if (step.op === "center_crop") return centerCrop(picture, step.height, step.width);
    if (step.op === "scale" || step.op === "normalize") return picture;
    throw new Problem(`This page does not know the transform step "${step.op}": update the server's software.`);
  }, picture);
}

/** Return a cropped picture as float32, channel by channel (3 * height * width), after the steps on numbers. */
export function numbers(picture, transform) {
  const { width, height, data } = picture;
  const values = new Float32Array(3 * width * height);
  for (let channel = 0; channel < 3; channel++) {
    const table = Float32Array.from({ length: 256 }, (_, byte) => number(byte, channel, transform));
    for (let place = 0; place < width * height; place++) {
      values[channel * width * height + place] = table[data[4 * place + channel]];
    }
  }
  return values;
}

function number(byte, channel, transform) {
  return transform.reduce((value, step) => {
    if (step.op === "scale") return Math.fround(value * Math.fround(step.factor));
    if (step.op !== "normalize") return value;
    return Math.fround(Math.fround(value - Math.fround(step.mean[channel])) / Math.fround(step.std[channel]));
  }, byte);
}

/** Return width and height; a single size is that of the short side. */
function sizeAfter({ width, height }, size) {
  if (Array.isArray(size)) return size.toReversed();
  const long = Math.trunc((size * Math.max(width, height)) / Math.min(width, height));
  return width <= height ? [size, long] : [long, size];
}

function filterOf(interpolation) {
  if (interpolation in FILTERS) return FILTERS[interpolation];
  throw new Problem(`This page cannot resize by "${interpolation}": export a transform with bilinear or bicubic.`);
}

/**
 * Resize as Pillow 13 does: antialiased, in two passes, each rounded to bytes.
 *
 * Which pass is first changes some bytes by one. The rule here is Pillow 13's where both sides change by the same factor,
 * or not both shrink; earlier releases always resize the rows first, which differs for pictures more than twice as tall
 * as wide.
 */
function resize(picture, width, height, filter) {
  const isTall = picture.height > 2 * picture.width;
  const isColumnsFirst = height < picture.height && (isTall || width >= picture.width);
  const passes = [(picture) => resizeRows(picture, width, filter), (picture) => resizeColumns(picture, height, filter)];
  return (isColumnsFirst ? passes.toReversed() : passes).reduce((picture, pass) => pass(picture), picture);
}

function resizeRows({ width, height, data }, newWidth, filter) {
  if (newWidth === width) return { width, height, data };
  const targets = weightsOf(width, newWidth, filter);
  return { width: newWidth, height, data: resample(data, targets, height, 4, 4 * width, 4 * newWidth) };
}

function resizeColumns({ width, height, data }, newHeight, filter) {
  if (newHeight === height) return { width, height, data };
  const targets = weightsOf(height, newHeight, filter);
  return { width, height: newHeight, data: resample(data, targets, width, 4 * width, 4, 4) };
}

/** Resize `lines` lines; steps in bytes from pixel to pixel and from line to line. */
function resample(data, targets, lines, step, lineStep, newLineStep) {
  const resized = new Uint8ClampedArray(4 * targets.length * lines);
  targets.forEach(({ first, weights }, target) => {
    for (let line = 0; line < lines; line++) {
      let [red, green, blue] = [HALF, HALF, HALF];
      let place = first * step + line * lineStep;
      for (let source = 0; source < weights.length; source++, place += step) {
        red += weights[source] * data[place];
        green += weights[source] * data[place + 1];
        blue += weights[source] * data[place + 2];
      }
      const to = target * step + line * newLineStep;
      resized[to] = red >> FRACTION_BITS;
      resized[to + 1] = green >> FRACTION_BITS;
      resized[to + 2] = blue >> FRACTION_BITS;
    }
  });
  return resized;
}

/** Return, per target pixel, the first source pixel and the fixed-point weights from there on. */
function weightsOf(from, to, filter) {
  const scale = from / to;
  const stretch = Math.max(scale, 1);
  const support = filter.reach * stretch;
  return Array.from({ length: to }, (_, target) => {
    const center = (target + 0.5) * scale;
    const first = Math.max(Math.trunc(center - support + 0.5), 0);
    const last = Math.min(Math.trunc(center + support + 0.5), from);
    const weights = [];
    for (let source = first; source < last; source++) {
      weights.push(filter.weight(Math.abs((source - center + 0.5) * (1 / stretch))));
    }
    const total = weights.reduce((sum, weight) => sum + weight);
    return { first, weights: Int32Array.from(weights, (weight) => roundHalfAway((weight / total) * 2 ** FRACTION_BITS)) };
  });
}

function roundHalfAway(value) {
  return Math.trunc(value + (value < 0 ? -0.5 : 0.5));
}

function centerCrop(picture, height, width) {
  const data = new Uint8Array(4 * width * height);
  const [top, left] = [cropStart(picture.height, height), cropStart(picture.width, width)];
  for (let row = Math.max(0, -top); row < Math.min(height, picture.height - top); row++) {
    const start = Math.max(0, -left);
    const stop = Math.min(width, picture.width - left);
    const source = (row + top) * picture.width + left;
    data.set(picture.data.subarray(4 * (source + start), 4 * (source + stop)), 4 * (row * width + start));
  }
  return { width, height, data };
}

/** Return where a crop starts; negative where the picture is smaller, and rounded half to even as Python's round. */
function cropStart(size, wanted) {
  if (size < wanted) return -Math.floor((wanted - size) / 2);
  const half = (size - wanted) / 2;
  return Number.isInteger(half) ? half : 2 * Math.round(half / 2);
}
