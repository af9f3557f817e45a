/** A picture from the camera. */

import { Problem } from "./problem.mjs";

/** Tell whether the browser lets this page ask for a camera: only from HTTPS or localhost. */
export const isCameraOffered = () => navigator.mediaDevices?.getUserMedia !== undefined;

/**
 * Show the camera in a dialog and return the picture taken, or null if the dialog was left.
 *
 * @param {HTMLDialogElement} dialog with a video that plays by itself, and a button of value "take"
 * @returns {Promise<Blob | null>}
 * @throws {Problem} no camera, or no permission
 */
export async function takePicture(dialog) {
  const video = dialog.querySelector("video");
  const stream = await open();
  try {
    video.srcObject = stream;
    dialog.returnValue = "";
    dialog.showModal();
    await event(dialog, "close");
    return dialog.returnValue === "take" ? await frame(video) : null;
  } finally {
    for (const track of stream.getTracks()) track.stop();
    video.srcObject = null;
  }
}

async function open() {
  try {
    return await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
  } catch (error) {
    throw new Problem(
      error.name === "NotAllowedError"
        ? "The camera is not allowed: allow it for this page in the browser's settings, or choose a file."
        : "No camera can be used: connect one, or close the program that uses it, or choose a file.",
    );
  }
}

async function frame(video) {
  if (video.readyState < video.HAVE_CURRENT_DATA) await event(video, "loadeddata");
  const canvas = new OffscreenCanvas(video.videoWidth, video.videoHeight);
  canvas.getContext("2d").drawImage(video, 0, 0);
  return canvas.convertToBlob();
}

function event(target, name) {
  return new Promise((resolve) => target.addEventListener(name, resolve, { once: true }));
}
