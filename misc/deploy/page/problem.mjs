/** A failure that the reader of the page can do something about: the message says what happened and what to do. */
export class Problem extends Error {}

/** A failure that may be gone when the same thing is tried again. */
export class PassingProblem extends Problem {}

/** The server wants another token. */
export class TokenProblem extends Problem {}
