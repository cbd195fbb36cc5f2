/* Sockets and long polling, byte by byte: wherever a connection is cut, by an orderly end or by a
 * reset, each event is delivered once and in order. (Event streams: properties.test.ts.) */

import { createHash } from "node:crypto";
import { createServer, type AddressInfo, type Socket } from "node:net";
import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { WebSocket as NodeSocket } from "ws";
import { type Connect, type Delivered, follow, offsetOf } from "../../src/index.js";
import { pollWay } from "../../src/core/http.js";
import { webSocketWay } from "../../src/core/websocket.js";

const RUN = "run_0123456789abcdef";
const LOG = [
  { type: "run-start", run: RUN },
  { type: "text-start", part: 0, step: 1 },
  { type: "text-delta", part: 0, text: 'Hé "' },
  { type: "text-delta", part: 0, text: "👩‍💻\n" },
  { type: "run-end", outcome: "complete" },
].map((event, at) => ({ cursor: `${at + 1}-ab`, event: { ...event, seq: at + 1 } }));
const rest = (after = "") => LOG.slice(Math.max(offsetOf(after), 0));
const AT_ONCE = 32;

let stop: () => Promise<void>;
beforeEach(() => {
  vi.spyOn(Math, "random").mockReturnValue(0); // come back at once
  vi.stubGlobal("WebSocket", NodeSocket);
});
afterEach(async () => {
  vi.restoreAllMocks();
  vi.unstubAllGlobals();
  await stop();
});

type Say = (data: Buffer) => void;
type Answer = (say: Say, head: string) => void;
type Hear = (say: Say, data: Buffer) => void;

/** A server that cuts at `/CUT-HOW` in an address: after so many bytes of its answers there, once. */
async function cutting(answer: Answer, hear?: Hear, closes = false): Promise<string> {
  const left = new Map<string, number>();
  const open = new Set<Socket>();
  const server = createServer((socket) => {
    open.add(socket);
    socket.on("error", () => undefined); // the other side is cut as well
    socket.on("close", () => open.delete(socket));
    let say: Say | undefined;
    socket.on("data", (data) => {
      if (say && hear) return hear(say, data);
      const head = data.toString("latin1");
      const [place, cut, how] = /\/(\d+)-(end|reset)/.exec(head)!;
      say = (bytes) => {
        const most = left.get(place) ?? Number(cut);
        left.set(place, bytes.length < most ? most - bytes.length : Infinity);
        if (bytes.length < most) return void (closes ? socket.end(bytes) : socket.write(bytes));
        const leave = () => (how === "end" ? socket.end() : socket.resetAndDestroy());
        if (most > 0) socket.write(bytes.subarray(0, most), leave);
        else leave();
      };
      answer(say, head);
    });
  });
  await new Promise<void>((done) => server.listen(0, "127.0.0.1", done));
  stop = () => {
    for (const socket of open) socket.destroy();
    return new Promise((done) => server.close(() => done()));
  };
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

/** Cuts at every byte of `length`; the reader that `way` makes for an address loses nothing. */
async function everywhere(length: number, way: (place: string) => Connect): Promise<void> {
  const read = async (cut: number, how: string) => {
    const got: Delivered[] = [];
    let connections = 0;
    const counted: Connect = (request) => (connections++, way(`${cut}-${how}`)(request));
    await follow([counted], { onEvents: (batch) => got.push(...batch) });
    const told = got.map(({ cursor, event }) => ({ cursor, event }));
    expect({ cut, how, told }).toEqual({ cut, how, told: LOG });
    expect(connections).toBeLessThanOrEqual(2);
  };
  for (let from = 0; from <= length; from += AT_ONCE) {
    const cuts = Array.from({ length: Math.min(AT_ONCE, length + 1 - from) }, (_, n) => from + n);
    await Promise.all(cuts.flatMap((cut) => [read(cut, "end"), read(cut, "reset")]));
  }
}

function frame(message: object): Buffer {
  const data = Buffer.from(JSON.stringify(message));
  const size = data.length < 126 ? [data.length] : [126, data.length >> 8, data.length & 255];
  return Buffer.concat([Buffer.from([0x81, ...size]), data]);
}

/** What the reader asked for: one frame, masked, that came in one piece. */
function asked(data: Buffer): { op: string; after?: string } {
  const at = (data[1]! & 127) === 126 ? 4 : 2;
  const mask = data.subarray(at, at + 4);
  const text = data.subarray(at + 4).map((byte, n) => byte ^ mask[n % 4]!);
  return JSON.parse(Buffer.from(text).toString()) as { op: string };
}

it("a socket", async () => {
  const handshake = (head: string) => {
    const [, key] = /sec-websocket-key: (\S+)/i.exec(head)!;
    const guid = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    const accept = createHash("sha1").update(key + guid).digest("base64");
    const lines = ["HTTP/1.1 101 Switching Protocols", "upgrade: websocket", "connection: upgrade"];
    return Buffer.from([...lines, `sec-websocket-accept: ${accept}`, "", ""].join("\r\n"));
  };
  // Two events a message, then the end.
  const messages = (after?: string) => {
    const left = rest(after);
    const pairs = left.flatMap((_, at) => (at % 2 ? [] : [left.slice(at, at + 2)]));
    const told = pairs.map((events) => frame({ op: "events", run: RUN, events }));
    return Buffer.concat([...told, frame({ op: "end", run: RUN })]);
  };
  const url = await cutting(
    (say, head) => say(handshake(head)),
    (say, data) => {
      if ((data[0]! & 15) === 1) say(messages(asked(data).after));
    },
  );
  const length = handshake("sec-websocket-key: x").length + messages().length;
  await everywhere(length, (place) => webSocketWay(`${url}/${place}`, { op: "follow", run: RUN }));
});

it.each(["content-length", "connection: close"])("a page of long polling, %s", async (ends) => {
  const page = (after?: string) => {
    // The second half comes by a request of its own.
    const events = rest(after).slice(0, after ? undefined : 3);
    const next = events.at(-1)?.cursor ?? after;
    const body = Buffer.from(JSON.stringify({ events, next, closed: next === LOG.at(-1)!.cursor }));
    const size = ends === "content-length" ? `content-length: ${body.length}` : ends;
    const head = `HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n${size}\r\n\r\n`;
    return Buffer.concat([Buffer.from(head), body]);
  };
  const answer: Answer = (say, head) => say(page(/[?&]after=([^ &]+)/.exec(head)?.[1]));
  const url = await cutting(answer, undefined, ends === "connection: close");
  const get = (path: string, init: RequestInit) => fetch(`${url}${path}`, init);
  const length = page().length + page(LOG[2]!.cursor).length;
  await everywhere(length, (place) => pollWay(`/${place}/events`, get));
});
