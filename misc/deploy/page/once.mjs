/** Return a function that calls `make` once and keeps its promise; failures, and what `forget` drops, are made again. */
export function once(make) {
  let kept = null;
  const get = () => {
    if (kept !== null) return kept;
    const promise = make();
    kept = promise;
    promise.catch(() => {
      if (kept === promise) kept = null;
    });
    return promise;
  };
  get.forget = () => {
    kept = null;
  };
  return get;
}
