/** What the browser's own image codecs make of a picture. */

export const CODECS = [
  { name: "WebP", type: "image/webp", quality: 0.8 },
  { name: "JPEG", type: "image/jpeg", quality: 0.92 },
];

/** Return a canvas with a picture's pixels, opaque. */
export function canvasOf({ width, height, data }, canvas = new OffscreenCanvas(width, height)) {
  const opaque = new ImageData(Uint8ClampedArray.from(data, (value, place) => (place % 4 === 3 ? 255 : value)), width);
  Object.assign(canvas, { width, height });
  canvas.getContext("2d").putImageData(opaque, 0, 0);
  return canvas;
}

/** Return the bytes of a picture by each codec, [{name, quality, bytes}, ...], without those that the browser lacks. */
export async function codecSizes(picture) {
  const canvas = canvasOf(picture);
  const blobs = await Promise.all(CODECS.map(({ type, quality }) => canvas.convertToBlob({ type, quality })));
  const sizes = CODECS.map(({ name, quality }, index) => ({ name, quality, bytes: blobs[index].size }));
  return sizes.filter((_, index) => blobs[index].type === CODECS[index].type);
}
