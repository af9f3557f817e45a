/** A failure that the reader of the page can do something about; the message says what, in one or two sentences. */
export class Problem extends Error {}
