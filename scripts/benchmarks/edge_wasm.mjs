/**
 * Encode a picture with the page's modules under node: the RGBA pixels come on stdin, then one letter per measurement,
 * "n" for the network alone, "w" for everything; the answer is a line of milliseconds.
 *
 *     node edge_wasm.mjs DIR WIDTH HEIGHT
 */

import { readFile } from "node:fs/promises";
import { Encoder } from "../../misc/deploy/page/encoder.mjs";
import { crop, numbers } from "../../misc/deploy/page/pixels.mjs";

const [folder, width, height] = [process.argv[2], Number(process.argv[3]), Number(process.argv[4])];
const vendor = new URL("../../misc/deploy/page/vendor/", import.meta.url).href;
const ort = await import(`${vendor}ort.wasm.min.mjs`);
Object.assign(ort.env.wasm, { numThreads: 1, wasmPaths: vendor });
const edge = JSON.parse(await readFile(`${folder}/edge.json`, "utf8"));
const session = await ort.InferenceSession.create(await readFile(`${folder}/encoder.onnx`));
const encoder = new Encoder(ort, session, edge);

const total = 4 * width * height;
let held = Buffer.alloc(0);
let picture = null;
let x = null;

async function measured(letter) {
  const start = performance.now();
  await (letter === "n" ? session.run({ x }) : encoder.encode(picture));
  return performance.now() - start;
}

for await (const chunk of process.stdin) {
  held = Buffer.concat([held, chunk]);
  if (picture === null && held.length >= total) {
    picture = { width, height, data: new Uint8Array(held.subarray(0, total)) };
    const cropped = crop(picture, edge.transform);
    x = new ort.Tensor("float32", numbers(cropped, edge.transform), [1, 3, cropped.height, cropped.width]);
    held = held.subarray(total);
  }
  if (picture === null) continue;
  for (const letter of held.toString("latin1")) console.log(await measured(letter));
  held = Buffer.alloc(0);
}
