// Encode the cases of a JSON file, [{edge, outputs}, ...]; print [{stream, bits}, ...].
import { readFileSync } from "node:fs";

const [, , page, file] = process.argv;
const { encodeStream } = await import(`${page}/coder.mjs`);
const { bitsPerPosition } = await import(`${page}/heat_map.mjs`);
const { tablesOf } = await import(`${page}/tables.mjs`);

const results = JSON.parse(readFileSync(file)).map(({ edge, outputs }) => {
  const tables = tablesOf(edge);
  const stream = Buffer.from(encodeStream(edge, tables, outputs)).toString("hex");
  return { stream, bits: bitsPerPosition(edge, tables, outputs) };
});
console.log(JSON.stringify(results, (_, value) => (ArrayBuffer.isView(value) ? [...value] : value)));
