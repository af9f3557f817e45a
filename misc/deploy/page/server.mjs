/** Requests to the server. */

import { PassingProblem, Problem, TokenProblem } from "./problem.mjs";

const PATIENCE = 60_000; // milliseconds

/** Return the served models, [{fingerprint, config, edge, examples, ...}, ...]. */
export const models = async () => (await json("/model")).models;

/** Return the content of a JSON file. */
export const json = (path) => request(path, contentOf);

/** Return the content of a file as a Blob. */
export const file = (path) => request(path, (response) => response.blob());

/**
 * Send a stream and return the server's answer, {classes, bytes_received, milliseconds, ...}.
 *
 * @param {Uint8Array} stream
 * @param {string} token empty if none is known
 */
export function classify(stream, token) {
  const headers = { "Content-Type": "application/octet-stream", ...(token && { Authorization: `Bearer ${token}` }) };
  return request("/classify", contentOf, { method: "POST", headers, body: stream });
}

/** Return the content of a JSON answer. */
async function contentOf(response) {
  const text = await response.text();
  try {
    return JSON.parse(text);
  } catch {
    const { pathname } = new URL(response.url);
    throw new PassingProblem(`${pathname} is no FrankenSplit server's: check that scripts/serve.py runs at this address.`);
  }
}

async function request(path, read, options = {}) {
  const signal = AbortSignal.timeout(PATIENCE);
  const response = await fetch(path, { ...options, signal }).catch(refuseSilence);
  if (!response.ok) throw problemOf(response, await reasonOf(response), options);
  return read(response).catch(refuseSilence);
}

function refuseSilence(error) {
  if (error instanceof Problem) throw error;
  throw new PassingProblem("The server does not answer: check that scripts/serve.py is running, then try again.");
}

async function reasonOf(response) {
  const body = await response.json().catch(() => ({}));
  return body.detail ?? `status ${response.status}`;
}

function problemOf(response, reason, options) {
  if (response.status === 401) {
    const what = options.headers?.Authorization ? "refuses this token" : "wants a token";
    return new TokenProblem(`The server ${what}: enter the one in the file that it was started with (--token_file).`);
  }
  if (response.status === 503) {
    const seconds = response.headers.get("Retry-After");
    return new PassingProblem(`The server is busy: try again ${seconds ? `in ${seconds} s` : "in a moment"}.`);
  }
  if (response.status >= 500) return new PassingProblem(`The server failed (${reason}): look into its log, or try again.`);
  return new Problem(`The server refuses ${new URL(response.url).pathname}: ${reason}`);
}
