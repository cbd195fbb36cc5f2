/* Cassettes in TypeScript: the same files, matching and faults as in Python. */

import { readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, it } from "vitest";
import { CassettePlayer, type CassetteFile, type ReplayOptions } from "../../src/testing/index.js";
import { type Compared, differences } from "../../src/testing/matching.js";

const conformance = join(import.meta.dirname, "../../../../conformance/cassettes");
const read = (name: string) => JSON.parse(readFileSync(join(conformance, name), "utf8")) as unknown;
const FILE = read("chat.json") as CassetteFile & { exchanges: Exchange[] };

interface Exchange {
  request: Compared;
  response: { status: number; headers: Record<string, string>; chunks: [number, ...unknown[]][]; end: string };
}
interface Case {
  name: string;
  requested: Compared;
  recorded: Compared;
  ignore?: string[];
  differences: string[];
}

it.each((read("matching.json") as { cases: Case[] }).cases)("means: $name", (one) => {
  const found = differences(one.requested, one.recorded, one.ignore);
  // Where several differ, the order of fields is each language's own.
  expect(found.map(({ path }) => path).sort()).toEqual([...one.differences].sort());
  expect(differences(one.requested, one.requested)).toEqual([]);
});

const send = (player: CassettePlayer, { url, json }: Compared, init: RequestInit = {}) =>
  player.fetch(url, { method: "POST", body: JSON.stringify(json), headers: { "content-type": "application/json" }, ...init });
const play = (options: ReplayOptions = {}) => new CassettePlayer(FILE, options);
const at = (number: number) => FILE.exchanges[number]!;
const contentOf = ({ response }: Exchange) => response.chunks.flatMap(([, ...data]) => data).join("");

/** The body, and whether it ended by an error. */
async function readAll(response: Response): Promise<[string, boolean]> {
  const chunks: Uint8Array[] = [];
  let failed = false;
  try {
    for await (const chunk of response.body ?? []) chunks.push(chunk as Uint8Array);
  } catch {
    failed = true;
  }
  return [new TextDecoder().decode(Buffer.concat(chunks)), failed];
}

it("plays what was recorded: bodies, bad ends, binary, equal requests in order", async () => {
  const player = new CassettePlayer(JSON.stringify(FILE));
  expect(player.unused).toHaveLength(7);
  const stream = await send(player, at(0).request);
  expect([stream.status, stream.headers.get("content-type")]).toEqual([200, "text/event-stream; charset=utf-8"]);
  expect(await readAll(stream)).toEqual([contentOf(at(0)), false]);
  const busy = await send(player, at(2).request);
  expect([busy.status, busy.headers.get("retry-after")]).toEqual([429, "7"]);
  expect(await busy.text()).toContain("[redacted]");
  const image = await (await send(player, at(3).request)).arrayBuffer();
  expect([...new Uint8Array(image)]).toEqual(Array.from({ length: 256 }, (_, byte) => byte));
  expect(await readAll(await send(player, at(4).request))).toEqual(["data: 1\n\n", true]);
  const numbers = [await send(player, at(5).request), await send(player, at(5).request)];
  expect(await Promise.all(numbers.map((one) => one.text()))).toEqual([contentOf(at(5)), contentOf(at(6))]);
  expect(contentOf(at(5))).not.toBe(contentOf(at(6)));
  expect(player.unused).toEqual(["POST https://api.example/v1/messages"]);
  player.check();
});

it("says what was sent, what there is, and what to do", async () => {
  const player = play();
  const asked = { url: at(1).request.url, method: "POST", json: { ...(at(1).request.json as object), max_tokens: 9, top_p: 1 } };
  const response = await send(player, asked);
  expect([response.status, response.headers.get("x-should-retry")]).toEqual([400, "false"]);
  const { error } = (await response.json()) as { error: { message: string } };
  expect(error.message.split("\n")).toEqual([
    "POST https://api.example/v1/messages is not in the cassette",
    "  the nearest of 7 recordings is exchange 2:",
    "    max_tokens: requested 9",
    "                recorded  8",
    "    top_p: requested 1",
    "           recorded  nothing",
    "  a field that does not matter: ignore: ['the.path']",
    "  to record it: pytest --tokenwire-record",
  ]);
  expect(() => player.check()).toThrow(error.message);
  const lenient = play({ ignore: ["max_tokens", "top_p"] });
  expect((await send(lenient, asked)).status).toBe(200);
  expect((await send(lenient, asked)).status).toBe(400);
  expect(() => lenient.check()).toThrow("is in the cassette once, and was sent once more");
  const repeating = play({ repeats: true });
  for (let n = 0; n < 3; n++) expect((await send(repeating, at(1).request)).status).toBe(200);
  repeating.check();
});

it.each([
  ["{}", "is no cassette"],
  ['{"format":"tokenwire-cassette","version":2}', "version 2; this one reads version 1"],
  ["<<<<<<< HEAD", "JSON"],
])("refuses %s", (text, message) => {
  expect(() => new CassettePlayer(text)).toThrow(message);
});

it("refuses settings that mean nothing", () => {
  expect(() => play({ faults: "cut-rst@5,no-such" })).toThrow("unknown fault 'no-such'; known faults: slow-start");
  expect(() => play({ faults: ["cut-rst@x"] })).toThrow("unknown fault");
  expect(() => play({ speed: 0 })).toThrow("above 0");
});

const CONTENT = contentOf(at(0));
const blocks = CONTENT.split(/(?<=\n\n)/);

it.each<[string, string, boolean]>([
  ["cut-end@100", CONTENT.slice(0, 100), false],
  ["cut-fin@100", CONTENT.slice(0, 100), true],
  ["cut-rst@0", "", true],
  ["split@1", CONTENT, false],
  ["crlf", CONTENT.replaceAll("\n", "\r\n"), false],
  ["cr,split@2", CONTENT.replaceAll("\n", "\r"), false],
  ["no-space", CONTENT.replaceAll("data: ", "data:"), false],
  ["no-last-newline", CONTENT.trimEnd(), false],
  ["no-terminal", blocks.slice(0, -1).join(""), false],
  ["no-finish", blocks.slice(0, -2).join(""), false],
  ["duplicate@0", blocks[0] + CONTENT, false],
  ["reorder@0", [blocks[1], blocks[0], ...blocks.slice(2)].join(""), false],
  ["garbage@1", [blocks[0], "data: {not json at all\0\n\n", ...blocks.slice(1)].join(""), false],
  ["comments", blocks.map((block) => `: keep-alive\n\n${block}`).join(""), false],
])("puts %s over a recording", async (faults, expected, failed) => {
  const player = play({ faults });
  expect(await readAll(await send(player, at(0).request))).toEqual([expected, failed]);
});

it("cuts at every byte, and plays again what was cut away", async () => {
  for (let cut = 0; cut <= CONTENT.length; cut += 37) {
    const player = play({ faults: [`cut-fin@${cut}`] });
    const [first, failed] = await readAll(await send(player, at(0).request));
    expect([first, failed]).toEqual([CONTENT.slice(0, cut), true]);
    expect(await readAll(await send(player, at(0).request))).toEqual([CONTENT, false]);
    player.check();
  }
});

it("replaces bytes, and whole responses", async () => {
  const bytes = new Uint8Array(await (await send(play({ faults: "corrupt@3" }), at(0).request)).arrayBuffer());
  expect(bytes[3]).toBe(0xff);
  const marked = new Uint8Array(await (await send(play({ faults: "bom" }), at(0).request)).arrayBuffer());
  expect([...marked.subarray(0, 3)]).toEqual([0xef, 0xbb, 0xbf]);
  const limited = play({ faults: "rate-limit@2:9" });
  const statuses = [];
  for (let n = 0; n < 3; n++) statuses.push((await send(limited, at(0).request)).status);
  expect(statuses).toEqual([429, 429, 200]);
  for (const [faults, status, text] of [["overloaded", 503, "status 503"], ["status@418", 418, "status 418"], ["html", 200, "<!doctype"], ["error-200", 200, "simulated"]] as const) {
    const response = await send(play({ faults }), at(0).request);
    expect([response.status, await response.text()]).toEqual([status, expect.stringContaining(text)]);
  }
});

it("is silent until its reader leaves", async () => {
  const player = play({ faults: "stall@5" });
  const leave = new AbortController();
  const reader = (await send(player, at(0).request, { signal: leave.signal })).body!.getReader();
  expect(new TextDecoder().decode((await reader.read()).value)).toBe(CONTENT.slice(0, 5));
  const next = reader.read();
  leave.abort(new Error("enough"));
  await expect(next).rejects.toThrow("enough");
  await expect(send(player, at(0).request, { signal: leave.signal })).rejects.toThrow("enough");
});

it("plays in the recorded order of time, at any speed", async () => {
  const player = play({ speed: 1000 });
  expect(await readAll(await send(player, at(1).request))).toEqual([contentOf(at(1)), false]);
});

it("compares multipart and binary bodies", async () => {
  const exchange = (request: object) => ({ request: { method: "POST", url: "https://a.example/f", ...request }, response: { status: 204, headers: {}, wait: 0, chunks: [], end: "complete" } });
  const player = new CassettePlayer({ format: "tokenwire-cassette", version: 1, exchanges: [exchange({ text: "--boundary\r\nx\r\n--boundary--" }), exchange({ base64: "/wA=" })] });
  const sent = { method: "POST", body: "--b-7\r\nx\r\n--b-7--", headers: { "content-type": "multipart/form-data; boundary=b-7" } };
  expect((await player.fetch("https://a.example/f", sent)).status).toBe(204);
  const binary = { method: "POST", body: new Uint8Array([255, 0]) };
  expect((await player.fetch(new URL("https://a.example/f"), binary)).status).toBe(204);
  player.check();
});
