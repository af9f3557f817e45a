/** The encoder of an exported directory, run by onnxruntime-web. */

import { encodeStream } from "./coder.mjs";
import { crop, numbers } from "./pixels.mjs";
import { Problem } from "./problem.mjs";
import { file, json } from "./server.mjs";
import { sizeOf } from "./symbols.mjs";
import { tablesOf } from "./tables.mjs";

const STREAMS = { 1: 2, 2: 3 }; // the stream version of each format of the directory: one rate, variable rate
const BLANK = { width: 64, height: 64, data: new Uint8Array(4 * 64 * 64) };

export class Encoder {
  /** @param {object|null} coder the second graph of a model of variable rate */
  constructor(ort, session, coder, edge) {
    this.ort = ort;
    this.session = session;
    this.coder = coder;
    this.edge = edge;
    this.tables = tablesOf(edge);
  }

  /** Whether a rate can be chosen. */
  get hasRates() {
    return this.coder !== null;
  }

  /**
   * Encode a picture, {width, height, data}.
   *
   * @param {number} rate of a model of variable rate, 0 (smallest streams) to 1
   * @returns {{stream: Uint8Array, outputs: object, cropped: object}} the stream, the symbols and the pixels they are of
   * @throws {Problem} a picture that the encoder does not take
   */
  async encode(picture, rate = 0.5) {
    const { transform } = this.edge;
    const cropped = crop(picture, transform);
    const size = [1, 3, cropped.height, cropped.width];
    const x = new this.ort.Tensor("float32", numbers(cropped, transform), size);
    const level = this.hasRates ? Math.round(rate * this.edge.last_level) : null;
    const outputs = await this.#run(x, level).catch((error) => {
      throw new Problem(`The encoder does not take a picture of ${cropped.width} x ${cropped.height}: ${error.message}`);
    });
    this.#check(outputs);
    return { stream: encodeStream(this.edge, this.tables, outputs, 0, level), outputs, cropped };
  }

  async #run(x, level) {
    const outputs = await this.session.run({ x });
    if (level === null) return outputs;
    const levels = new this.ort.Tensor("int64", BigInt64Array.of(BigInt(level)), [1]);
    return this.coder.run({ latent: outputs.latent, level: levels });
  }

  #check(outputs) {
    if (outputs.nonfinite.data.some((count) => count > 0)) {
      throw new Problem("The encoder's output is not finite for this picture: choose another.");
    }
    const { stride, max_positions: most } = this.edge;
    const [height, width] = sizeOf(outputs).map((side) => Math.ceil(side / stride) * stride);
    if (height * width > most) {
      throw new Problem(`The picture is too large: its latent has ${height} x ${width} positions, at most ${most} are allowed.`);
    }
  }
}

/**
 * Load an encoder and onnxruntime-web.
 *
 * @param {string} folder the exported directory's path on the server, with a slash at the end
 * @throws {Problem} files that are missing, damaged or of another version, or a browser without WebAssembly
 */
export async function loadEncoder(folder) {
  if (typeof WebAssembly !== "object") {
    throw new Problem("This browser has no WebAssembly, or it is switched off: use a current Firefox, Chrome, Edge or Safari.");
  }
  const edge = await json(`${folder}edge.json`);
  checkVersions(edge);
  const ort = await loadRuntime();
  const session = await loadGraph(ort, folder, "encoder.onnx", edge.sha256);
  const coder = edge.format === 1 ? null : await loadGraph(ort, folder, "coder.onnx", edge.coder_sha256);
  const encoder = new Encoder(ort, session, coder, edge);
  await encoder.encode(BLANK); // the first run takes longer
  return encoder;
}

function checkVersions(edge) {
  if (edge.format in STREAMS && edge.stream === STREAMS[edge.format]) return;
  const readable = Object.entries(STREAMS).map(([format, stream]) => `${format} and ${stream}`);
  throw new Problem(
    `The exported encoder has format ${edge.format} and stream version ${edge.stream}, this page reads ` +
      `${readable.join(", or ")}: export it again with the server's release of scripts/export.py.`,
  );
}

async function loadGraph(ort, folder, name, sha256) {
  const model = await (await file(`${folder}${name}`)).arrayBuffer();
  await checkSum(model, name, sha256);
  return ort.InferenceSession.create(model).catch((error) => {
    throw new Problem(`This browser cannot run the encoder: reload the page, or use another browser. (${error.message})`);
  });
}

/** Compare with SHA-256; only pages from HTTPS or localhost are given it by the browser. */
async function checkSum(bytes, name, expected) {
  if (globalThis.crypto?.subtle === undefined) return;
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  const sum = Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
  if (sum !== expected) throw new Problem(`${name} is damaged, or not the one of edge.json: export it again.`);
}

async function loadRuntime() {
  const folder = new URL("vendor/", import.meta.url).href;
  const ort = await import(`${folder}ort.wasm.min.mjs`).catch(() => {
    throw new Problem("The server lacks onnxruntime-web: run `bash scripts/vendor_page.sh` there, then reload this page.");
  });
  // More threads would need headers that isolate the page from others.
  Object.assign(ort.env.wasm, { numThreads: 1, wasmPaths: folder });
  return ort;
}
