/**
 * Files to pixels, as the browser decodes them, without colour management and without regard to alpha.
 *
 * Unlike Pillow's `Image.open`, the page turns a picture as its EXIF orientation says, since a photograph that lies on its
 * side is classified worse. In Chromium, the streams of PNGs, JPEGs and lossless WebPs of 8 bits, grey or RGB, that have
 * no such entry equal those of scripts/encode.py with Pillow 13.
 */

import { Problem } from "./problem.mjs";

const MOST_BYTES = 50e6;
const MOST_PIXELS = 64e6;
const MOST_ELONGATED = 100;

/**
 * Return a picture, {width, height, data}, from a file.
 *
 * @param {Blob} blob
 * @throws {Problem} no image, a damaged one, or one too large
 */
export async function decode(blob) {
  if (blob.size > MOST_BYTES) throw new Problem("The file has more than 50 MB: choose a smaller picture.");
  const options = { colorSpaceConversion: "none", premultiplyAlpha: "none", imageOrientation: "from-image" };
  const bitmap = await createImageBitmap(blob, options).catch(() => {
    throw new Problem(
      blob.type.startsWith("image/")
        ? "The picture is damaged, or of a format that this browser cannot show: choose another, or save it as JPEG or PNG."
        : "The file is not a picture: choose a JPEG, PNG or WebP file.",
    );
  });
  try {
    return pixelsOf(bitmap);
  } finally {
    bitmap.close();
  }
}

function pixelsOf(bitmap) {
  const [short, long] = [bitmap.width, bitmap.height].sort((one, other) => one - other);
  if (short * long > MOST_PIXELS) throw new Problem("The picture has more than 64 megapixels: make it smaller.");
  if (long > MOST_ELONGATED * short) throw new Problem("The picture is more than 100 times as long as wide: crop it.");
  const { width, height } = bitmap;
  const context = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
  context.drawImage(bitmap, 0, 0);
  const { data } = context.getImageData(0, 0, width, height);
  return { width, height, data: isOpaque(data) ? data : unblendedPixels(bitmap) ?? data };
}

function isOpaque(data) {
  for (let place = 3; place < data.length; place += 4) if (data[place] < 255) return false;
  return true;
}

/** Return the pixels without regard to alpha, which a 2D canvas multiplies in; null without WebGL. */
function unblendedPixels(bitmap) {
  const { width, height } = bitmap;
  const gl = new OffscreenCanvas(1, 1).getContext("webgl");
  if (gl === null || Math.max(width, height) > gl.getParameter(gl.MAX_TEXTURE_SIZE)) return null;
  gl.bindTexture(gl.TEXTURE_2D, gl.createTexture());
  gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA, gl.RGBA, gl.UNSIGNED_BYTE, bitmap);
  gl.bindFramebuffer(gl.FRAMEBUFFER, gl.createFramebuffer());
  gl.framebufferTexture2D(gl.FRAMEBUFFER, gl.COLOR_ATTACHMENT0, gl.TEXTURE_2D, gl.getParameter(gl.TEXTURE_BINDING_2D), 0);
  const data = new Uint8Array(4 * width * height);
  gl.readPixels(0, 0, width, height, gl.RGBA, gl.UNSIGNED_BYTE, data);
  gl.getExtension("WEBGL_lose_context")?.loseContext(); // a page may have few contexts
  return data;
}
