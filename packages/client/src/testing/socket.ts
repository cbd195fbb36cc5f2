/* A stand-in for `WebSocket` whose peer is a function in this process. */

type Peer = (message: Record<string, unknown>, send: (message: object) => boolean) => Promise<void>;

/** A class to use in place of `WebSocket`: each text message goes to `peer`, whose `send` returns
 * false once the socket is closed. */
export function socketClass(peer: Peer): typeof WebSocket {
  class ScriptedSocket extends EventTarget {
    static readonly CONNECTING = 0;
    static readonly OPEN = 1;
    static readonly CLOSING = 2;
    static readonly CLOSED = 3;
    readonly CONNECTING = 0;
    readonly OPEN = 1;
    readonly CLOSING = 2;
    readonly CLOSED = 3;
    readonly url: string;
    readonly protocol = "";
    readonly extensions = "";
    readonly bufferedAmount = 0;
    binaryType: BinaryType = "blob";
    readyState = 0;
    onopen: ((event: Event) => void) | null = null;
    onmessage: ((event: MessageEvent) => void) | null = null;
    onclose: ((event: Event) => void) | null = null;
    onerror: ((event: Event) => void) | null = null;

    constructor(url: string | URL) {
      super();
      this.url = String(url);
      queueMicrotask(() => {
        if (this.readyState !== 0) return;
        this.readyState = 1;
        this.#emit("open", new Event("open"));
      });
    }

    send(data: string): void {
      if (this.readyState === 0) throw new DOMException("the socket is not open", "InvalidStateError");
      const message = JSON.parse(data) as Record<string, unknown>;
      void peer(message, (answer) => {
        if (this.readyState !== 1) return false;
        this.#emit("message", new MessageEvent("message", { data: JSON.stringify(answer) }));
        return true;
      });
    }

    close(): void {
      if (this.readyState === 3) return;
      this.readyState = 3;
      queueMicrotask(() => this.#emit("close", new Event("close")));
    }

    #emit(name: "open" | "message" | "close", event: Event): void {
      const handler = this[`on${name}`] as ((event: Event) => void) | null;
      handler?.call(this, event);
      this.dispatchEvent(event);
    }
  }
  return ScriptedSocket as unknown as typeof WebSocket;
}
