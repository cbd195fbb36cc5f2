/* Waiting and reading that end early: by abort, or because the person or the network is back. */

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
  const change = (what: "addEventListener" | "removeEventListener") => {
    scope[what]?.("online", wake);
    scope[what]?.("pageshow", wake);
    page?.[what]?.("visibilitychange", seen);
  };
  change("addEventListener");
  return () => change("removeEventListener");
}

/** Calls `stop` when `signal` aborts, at once when it has. Returns what forgets it. */
export function onAbort(signal: AbortSignal | null | undefined, stop: () => void): () => void {
  signal?.addEventListener("abort", stop);
  if (signal?.aborted) stop();
  return () => signal?.removeEventListener("abort", stop);
}

/** A body's bytes, read by read. Ends with the body and on `signal`: not every fetch ends a read when
 * its signal is aborted after the last byte came. Whoever reads no further ends the connection. */
export async function* bytesOf(
  body: ReadableStream<Uint8Array>,
  signal?: AbortSignal | null,
): AsyncGenerator<Uint8Array> {
  const reader = body.getReader();
  const close = () => void reader.cancel().catch(() => undefined);
  const forget = onAbort(signal, close);
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done || signal?.aborted) return;
      yield value;
    }
  } finally {
    forget();
    close();
  }
}

/** Resolves after `ms`, at once when aborted and, where that may be, when `onReturn` fires. */
export function pause(ms: number, signal?: AbortSignal | null, early = true): Promise<void> {
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
