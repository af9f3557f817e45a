// Encode the cases of a JSON file, [{edge, outputs}, ...]; print [{stream, bits}, ...].
import { readFileSync } from "node:fs";

const [, , page, file] = process.argv;
const { encodeStream } = await import(`${page}/coder.mjs`);
const { bitsPerPosition } = await import(`${page}/heat_map.mjs`);

const results = JSON.parse(readFileSync(file)).map(({ edge, outputs }) => ({
  stream: Buffer.from(encodeStream(edge, outputs)).toString("hex"),
  bits: bitsPerPosition(edge, outputs),
}));
console.log(JSON.stringify(results, (_, value) => (ArrayBuffer.isView(value) ? [...value] : value)));
