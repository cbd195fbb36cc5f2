/* The browser's locks, as far as tabs use them: waiting, `ifAvailable`, `steal`. */

interface Holder {
  /** Rejects the request of who has the lock: another one took it. */
  robbed(): void;
}

export class Locks {
  #held = new Map<string, Holder>();
  #waiting = new Map<string, (() => void)[]>();
  steals = 0;
  #frozen: (() => void)[] | undefined;

  /** From now on, who loses a lock does not hear of it before `hear` is called. */
  freeze(): { hear(): void } {
    const told: (() => void)[] = (this.#frozen = []);
    return {
      hear: () => {
        this.#frozen = undefined;
        for (const tell of told) tell();
      },
    };
  }

  async request(name: string, ...rest: unknown[]): Promise<unknown> {
    const work = rest.pop() as (lock: object | null) => unknown;
    const { signal, ifAvailable, steal } = (rest[0] ?? {}) as {
      signal?: AbortSignal;
      ifAvailable?: boolean;
      steal?: boolean;
    };
    signal?.throwIfAborted();
    const holder = this.#held.get(name);
    if (holder && ifAvailable) return work(null);
    if (holder && steal) {
      this.steals++;
      holder.robbed();
    } else if (holder) {
      const queue = this.#waiting.get(name) ?? [];
      this.#waiting.set(name, queue);
      await new Promise<void>((go, no) => {
        queue.push(go);
        signal?.addEventListener("abort", () => {
          const at = queue.indexOf(go);
          if (at < 0) return;
          queue.splice(at, 1);
          no(signal.reason as Error);
        });
      });
    }
    return new Promise((resolve, reject) => {
      const mine: Holder = {
        robbed: () => {
          const tell = () => reject(new DOMException("the lock was taken", "AbortError"));
          if (this.#frozen) this.#frozen.push(tell);
          else tell();
        },
      };
      this.#held.set(name, mine);
      const release = () => {
        if (this.#held.get(name) !== mine) return;
        this.#held.delete(name);
        this.#waiting.get(name)?.shift()?.();
      };
      Promise.resolve({ name }).then(work).then(resolve, reject).finally(release);
    });
  }
}
