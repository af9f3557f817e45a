/** The page: pictures in, results out. */

import { isCameraOffered, takePicture } from "./camera.mjs";
import { codecSizes } from "./codecs.mjs";
import { loadEncoder } from "./encoder.mjs";
import { bitsPerPosition } from "./heat_map.mjs";
import { once } from "./once.mjs";
import { decode } from "./picture.mjs";
import { PassingProblem, Problem, TokenProblem } from "./problem.mjs";
import { blendMap, inWords, showClasses, showMap, showSizes, showTimes } from "./result.mjs";
import { classify, file, models } from "./server.mjs";

const element = (id) => document.getElementById(id);

const served = once(async () => showModels(await models()));
const encoder = once(async () => loadEncoder(edgeOf(selected(await served()))));
let picture = null; // the last file
let token = "";
let latest = 0;

/** Run an action and show what goes wrong; of several at once, only the last one begun shows anything. */
async function attempt(action) {
  const number = ++latest;
  const isLatest = () => number === latest;
  if (element("problem").contains(document.activeElement)) element("status").focus();
  element("problem").hidden = true;
  say("");
  try {
    await action(isLatest);
  } catch (error) {
    if (isLatest()) showProblem(error, action);
  }
}

function showProblem(error, action) {
  const isKnown = error instanceof Problem;
  if (!isKnown) console.error(error);
  say("");
  element("result").hidden = true;
  element("problem-text").textContent = isKnown ? error.message : `The page failed (${error.message}): reload it.`;
  element("problem").hidden = false;
  element("again").hidden = !(error instanceof PassingProblem);
  element("again").onclick = () => attempt(action);
  element("token-form").hidden = !(error instanceof TokenProblem);
  element("token-form").onsubmit = (event) => {
    event.preventDefault();
    token = element("token").value.trim();
    attempt(action);
  };
  reveal(element("problem"));
  if (error instanceof TokenProblem) element("token").focus();
}

/** Scroll to what a small screen does not show. */
function reveal(part) {
  const isLow = part.getBoundingClientRect().top > innerHeight / 2;
  part.scrollIntoView({ block: isLow ? "start" : "nearest" });
}

function say(text) {
  element("status").textContent = text;
}

function showModels(list) {
  const options = list.map(({ config, fingerprint }) => new Option(`${config} (${fingerprint})`, fingerprint));
  element("model").replaceChildren(...options);
  element("model").value = (list.find(({ edge }) => edge !== null) ?? list[0]).fingerprint;
  element("model-row").hidden = list.length < 2;
  showExamples(selected(list).examples);
  return list;
}

function selected(list) {
  return list.find(({ fingerprint }) => fingerprint === element("model").value);
}

function edgeOf({ edge, config }) {
  if (edge !== null) return edge;
  throw new Problem(
    `The server has no exported encoder for ${config}: run \`python scripts/export.py --config ${config} -o DIR\` there, ` +
      `then \`python scripts/serve.py --config ${config} --edge DIR\`.`,
  );
}

function showExamples(paths) {
  element("examples-row").hidden = paths.length === 0;
  element("examples").replaceChildren(
    ...paths.map((path, index) => {
      const button = document.createElement("button");
      button.append(Object.assign(new Image(64, 64), { src: path, alt: `Example ${index + 1}` }));
      button.onclick = () => attempt(async (isLatest) => use(await file(path), isLatest));
      return button;
    }),
  );
}

async function load(isLatest) {
  say("Loading the encoder …");
  const loaded = await encoder();
  if (!isLatest()) return;
  showRate(loaded);
  say("Ready.");
}

function showRate(loaded) {
  element("rate-row").hidden = !loaded.hasRates;
}

async function changeModel(isLatest) {
  encoder.forget();
  element("result").hidden = true;
  showExamples(selected(await served()).examples);
  await (picture === null ? load : classifyPicture)(isLatest);
}

async function use(file, isLatest) {
  if (!isLatest()) return;
  if (file === undefined) throw new Problem("That was not a file: save the picture first, then drop or choose its file.");
  picture = file;
  await classifyPicture(isLatest);
}

/** Encode the last picture, send the stream and show the answer. */
async function classifyPicture(isLatest) {
  say("Encoding …");
  const loaded = await encoder();
  if (isLatest()) showRate(loaded);
  const pixels = await decode(picture);
  const begin = performance.now();
  const { stream, outputs, cropped } = await loaded.encode(pixels, element("rate").value / 100);
  const encoded = performance.now();
  const answer = await classify(stream, token);
  const answered = performance.now();
  const sizes = await codecSizes(cropped);
  if (!isLatest()) return;
  showClasses(answer.classes);
  showSizes(stream.length, sizes, cropped);
  showTimes(encoded - begin, answered - encoded, answer.milliseconds);
  showMap(cropped, bitsPerPosition(loaded.edge, loaded.tables, outputs));
  element("result").hidden = false;
  say(inWords(answer, stream.length));
  reveal(element("status"));
}

async function usePhotograph(isLatest) {
  const photograph = await takePicture(element("camera-dialog")).finally(() => {
    element("camera").disabled = false;
    element("camera").focus();
  });
  if (photograph !== null) await use(photograph, isLatest);
}

function connect() {
  const chooser = element("file");
  element("choose").onclick = () => chooser.click();
  chooser.onchange = () => {
    const [chosen] = chooser.files;
    chooser.value = ""; // so that the same file can be chosen again
    attempt((isLatest) => use(chosen, isLatest));
  };
  element("camera").hidden = !isCameraOffered();
  element("camera-note").hidden = isCameraOffered();
  element("camera").onclick = () => {
    element("camera").disabled = true; // until the dialog is closed, so that one camera is open at most
    attempt(usePhotograph);
  };
  element("model").onchange = () => attempt(changeModel);
  element("rate").onchange = () => picture && attempt(classifyPicture);
  element("blend").oninput = () => blendMap(element("blend").value / 100);
  blendMap(element("blend").value / 100);
  connectDrop();
  element("script-note").remove();
}

function connectDrop() {
  const { classList } = document.body;
  document.ondragover = (event) => {
    event.preventDefault();
    classList.add("dragging");
  };
  document.ondragleave = (event) => {
    if (event.relatedTarget === null) classList.remove("dragging");
  };
  document.ondrop = (event) => {
    event.preventDefault();
    classList.remove("dragging");
    const [dropped] = event.dataTransfer.files;
    attempt((isLatest) => use(dropped, isLatest));
  };
}

connect();
attempt(load);
