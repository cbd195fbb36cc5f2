/* Waiting that ends early: by abort, or because the person or the network is back. */

/** Delay before try `n` (0, 1, ...): full jitter under an exponential cap. */
export function backoff(n: number, base = 500, cap = 15000, random = Math.random): number {
  return random() * Math.min(cap, base * 2 ** n);
}

/** Calls `wake` whenever trying at once makes sense: online again, shown again, restored from the
 * back-forward cache. Returns what removes the listeners. */
export function onReturn(wake: () => void): () => void {
  const scope = globalThis as Partial<Window & typeof globalThis>;
  const page = scope.document;
  const seen = () => {
    if (page?.visibilityState === "visible") wake();
  };
  scope.addEventListener?.("online", wake);
  scope.addEventListener?.("pageshow", wake);
  page?.addEventListener?.("visibilitychange", seen);
  return () => {
    scope.removeEventListener?.("online", wake);
    scope.removeEventListener?.("pageshow", wake);
    page?.removeEventListener?.("visibilitychange", seen);
  };
}

/** Calls `stop` when `signal` aborts, at once when it has. Returns what forgets it. */
export function onAbort(signal: AbortSignal | null | undefined, stop: () => void): () => void {
  signal?.addEventListener("abort", stop);
  if (signal?.aborted) stop();
  return () => signal?.removeEventListener("abort", stop);
}

/** Resolves after `ms`, at once when aborted and, where that may be, when `onReturn` fires. */
export function pause(ms: number, signal?: AbortSignal, early = true): Promise<void> {
  return new Promise((resolve) => {
    const undo: (() => void)[] = [];
    const done = () => {
      for (const forget of undo) forget();
      resolve();
    };
    const timer = setTimeout(done, ms);
    undo.push(() => clearTimeout(timer));
    if (early) undo.push(onReturn(done));
    undo.push(onAbort(signal, done));
  });
}
