/** The result on the page: classes, bytes, times and the map of bits. */

import { canvasOf } from "./codecs.mjs";
import { colour, describe } from "./heat_map.mjs";

const element = (id) => document.getElementById(id);
const percent = (share) => `${(100 * share).toFixed(1)} %`;
const count = (number) => number.toLocaleString("en");
const milliseconds = (number) => `${number.toFixed(number < 10 ? 1 : 0)} ms`;

/** Fill a list with rows of name, text and a bar; the longest bar is that of `most`. */
function showBars(list, rows, most) {
  list.replaceChildren(
    ...rows.map(({ name, text, value }) => {
      const row = document.createElement("li");
      const [track, bar] = [part("div", "track"), part("div", "bar")];
      bar.style.width = `${(100 * value) / most}%`;
      track.append(bar);
      row.append(part("span", "name", name), part("span", "value", text), track);
      return row;
    }),
  );
}

function part(tag, className, textContent = "") {
  return Object.assign(document.createElement(tag), { className, textContent });
}

/** Show the classes, most probable first. */
export function showClasses(classes) {
  const rows = classes.map(({ name, probability }) => ({ name, text: percent(probability), value: probability }));
  showBars(element("classes"), rows, 1);
}

/** Show the stream's bytes beside those of the codecs, for the same pixels. */
export function showSizes(bytes, codecs, { width, height }) {
  const rows = codecs.map((codec) => ({
    name: codec.name,
    text: `${count(codec.bytes)} bytes, ${(codec.bytes / bytes).toFixed(1)} times as many`,
    value: codec.bytes,
  }));
  const sent = { name: "Sent", text: `${count(bytes)} bytes`, value: bytes };
  showBars(element("sizes"), [sent, ...rows], Math.max(bytes, ...rows.map((row) => row.value)));
  const qualities = codecs.map(({ name, quality }) => `${name} at quality ${100 * quality}`).join(", ");
  element("sizes-note").textContent =
    `The same ${width} x ${height} pixels by this browser's codecs: ${qualities}. ` +
    "At a lower quality they are smaller and harder to classify.";
}

/** Show how long the encoder, the round trip and the server (its queue included) took, in milliseconds. */
export function showTimes(encoding, roundTrip, server) {
  element("encoding").textContent = milliseconds(encoding);
  element("round-trip").textContent = `${milliseconds(roundTrip)}, of which the server took ${milliseconds(server)}`;
}

/** Show the encoded pixels and, over them, the bits of each position. */
export function showMap(picture, map) {
  canvasOf(picture, element("picture"));
  const [least, most] = [Math.min(...map.bits), Math.max(...map.bits)];
  const data = new Uint8Array(4 * map.bits.length);
  map.bits.forEach((bits, place) => data.set(colour((bits - least) / (most - least || 1)), 4 * place));
  canvasOf({ ...map, data }, element("map"));
  element("least").textContent = least.toFixed(1);
  element("most").textContent = most.toFixed(1);
  element("map-words").textContent = `The encoder sees these ${picture.width} x ${picture.height} pixels. ${describe(map)}`;
}

/** Let the map cover the picture by a share from 0 to 1. */
export function blendMap(share) {
  element("map").style.opacity = share;
}

/** Return the result in one sentence, to be read aloud. */
export function inWords({ classes }, bytes) {
  return `${classes[0].name}: ${percent(classes[0].probability)}, from ${count(bytes)} bytes.`;
}
