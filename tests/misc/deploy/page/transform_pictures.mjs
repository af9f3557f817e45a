// Transform raw RGBA pictures, [{width, height, file, transform}, ...]; write the float32 values beside each file.
import { readFileSync, writeFileSync } from "node:fs";

const [, , page, list] = process.argv;
const { crop, numbers } = await import(`${page}/pixels.mjs`);

for (const { width, height, file, transform } of JSON.parse(readFileSync(list))) {
  const picture = crop({ width, height, data: new Uint8Array(readFileSync(file)) }, transform);
  writeFileSync(`${file}.out`, numbers(picture, transform));
}
