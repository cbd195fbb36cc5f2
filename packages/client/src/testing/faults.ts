/* Faults put over a recorded response: the plans of the simulator (docs/guide/simulator.md), such as
`cut-rst@512,crlf`.

Always true: without faults the pieces are the recorded ones; a plan without positions has fixed
ones, so that it does the same each time. */

/** Bytes, and the milliseconds after the piece before in which they are due. */
export interface Timed {
  delay: number;
  data: Uint8Array;
}

/** How a body ends: as a whole one, by an error, or never. */
export type Ending = "end" | "error" | "silence";

interface Fault {
  at: number | undefined;
  more: number | undefined;
}
export type FaultPlan = ReadonlyMap<string, Fault>;

const KINDS = new Set([
  "slow-start", "status", "rate-limit", "overloaded", "html", "error-200", "no-terminal", "no-finish",
  "duplicate", "reorder", "garbage", "corrupt", "comments", "bom", "crlf", "cr", "no-space",
  "no-last-newline", "split", "stall", "cut-end", "cut-fin", "cut-rst",
]);
/** After these the client still has the whole response. */
const HARMLESS = new Set(["slow-start", "comments", "bom", "crlf", "cr", "no-space", "no-last-newline", "split"]);
const TERMINAL = /^data: ?\[DONE\]|"type": ?"(?:message_stop|response\.(?:completed|incomplete|failed))"|"done": ?true/m;
const FINISH = /"(?:finish_reason|finishReason|stop_reason)": ?"/;

/** Reads a plan. Throws for a fault that is not known. */
export function parseFaults(text: string): FaultPlan {
  const plan = new Map<string, Fault>();
  for (const part of text.split(",").map((one) => one.trim()).filter(Boolean)) {
    const [, kind, at, more] = /^([a-z0-9-]+)(?:@([\d.]+))?(?::([\d.]+))?$/.exec(part) ?? [];
    if (kind === undefined || !KINDS.has(kind)) {
      throw new Error(`unknown fault '${part}'; known faults: ${[...KINDS].join(", ")}`);
    }
    const number = (value: string | undefined) => (value === undefined ? undefined : Number(value));
    plan.set(kind, { at: number(at), more: number(more) });
  }
  return plan;
}

/** Whether a client still gets all of a response with these faults. */
export function keepsAll(plan: FaultPlan): boolean {
  return [...plan.keys()].every((kind) => HARMLESS.has(kind));
}

/** What a plan puts in the place of the response; `count` numbers the requests with it from 1. */
export function earlyResponse(plan: FaultPlan, count: number): Response | undefined {
  for (const [kind, status] of [["rate-limit", 429], ["overloaded", 503]] as const) {
    const fault = plan.get(kind);
    if (fault && count <= (fault.at ?? 1)) return refusal(status, { "retry-after": String(fault.more ?? 1) });
  }
  const status = plan.get("status");
  if (status) return refusal(status.at ?? 500, {});
  if (plan.has("html")) return new Response("<!doctype html><p>Sign in first.", { headers: { "content-type": "text/html" } });
  return plan.has("error-200") ? refusal(200, {}) : undefined;
}

function refusal(status: number, headers: Record<string, string>): Response {
  const error = { type: "simulated_error", code: "simulated", message: `Simulated status ${status}.` };
  const body = JSON.stringify({ type: "error", error });
  return new Response(body, { status, headers: { "content-type": "application/json", ...headers } });
}

/** The pieces of a body with the faults of a plan, and how it ends then. */
export function broken(
  plan: FaultPlan,
  pieces: readonly Timed[],
  ending: Ending,
  contentType: string,
): { pieces: Timed[]; ending: Ending } {
  const isSse = contentType.includes("event-stream");
  const isFramed = isSse || /ndjson|jsonl/.test(contentType);
  const inFrames = [...plan.keys()].some((kind) => !HARMLESS.has(kind) || !["slow-start", "split"].includes(kind));
  let changed = isFramed && inFrames ? breakFrames(plan, framesOf(pieces, isSse), isSse) : [...pieces];
  const corrupt = plan.get("corrupt");
  if (corrupt) changed = corrupted(changed, corrupt.at ?? 100);
  let end = ending;
  for (const [kind, how] of [["stall", "silence"], ["cut-end", "end"], ["cut-fin", "error"], ["cut-rst", "error"]] as const) {
    const fault = plan.get(kind);
    if (!fault) continue;
    changed = firstBytes(changed, fault.at ?? 100);
    end = how;
  }
  const split = plan.get("split");
  if (split) changed = changed.flatMap((piece) => splitUp(piece, Math.max(1, split.at ?? 3)));
  const slow = plan.get("slow-start");
  if (slow && changed[0]) changed[0] = { ...changed[0], delay: changed[0].delay + (slow.at ?? 5) * 1000 };
  return { pieces: changed, ending: end };
}

function breakFrames(plan: FaultPlan, frames: Timed[], isSse: boolean): Timed[] {
  let changed = frames;
  const at = (kind: string) => plan.get(kind)?.at ?? 1;
  if (plan.has("no-finish") || plan.has("no-terminal")) changed = withoutEnd(changed, plan.has("no-finish"));
  if (plan.has("reorder")) {
    const number = at("reorder");
    changed = [...changed.slice(0, number), ...changed.slice(number, number + 2).reverse(), ...changed.slice(number + 2)];
  }
  if (plan.has("duplicate")) {
    const number = at("duplicate") + 1;
    changed = [...changed.slice(0, number), ...changed.slice(number - 1)];
  }
  if (plan.has("garbage")) {
    const rubbish = textPiece(isSse ? "data: {not json at all\0\n\n" : "{not json at all\0\n");
    changed = [...changed.slice(0, at("garbage")), rubbish, ...changed.slice(at("garbage"))];
  }
  if (plan.has("comments")) {
    const comment = textPiece(isSse ? ": keep-alive\n\n" : "\n");
    changed = changed.flatMap((frame, number) => (number % Math.max(1, at("comments")) ? [frame] : [comment, frame]));
  }
  if (plan.has("no-last-newline")) {
    changed = changed.map((frame, number) => (number === changed.length - 1 ? edited(frame, (text) => text.trimEnd()) : frame));
  }
  const lineEnd = plan.has("crlf") ? "\r\n" : plan.has("cr") ? "\r" : undefined;
  if (lineEnd) changed = changed.map((frame) => edited(frame, (text) => text.replace(/\r\n|\n/g, lineEnd)));
  if (isSse && plan.has("no-space")) {
    changed = changed.map((frame) => edited(frame, (text) => text.replace(/^(data|event|id): /gm, "$1:")));
  }
  if (plan.has("bom") && changed[0]) changed = [edited(changed[0], (text) => `\ufeff${text}`), ...changed.slice(1)];
  return changed;
}

function withoutEnd(frames: Timed[], withFinish: boolean): Timed[] {
  const texts = frames.map(({ data }) => new TextDecoder().decode(data));
  const finish = texts.findIndex((text) => FINISH.test(text));
  return frames.filter((_, at) => {
    if (TERMINAL.test(texts[at]!)) return false;
    return !(withFinish && finish >= 0 && at >= finish);
  });
}

/** Whole frames, each due when its last byte is. */
function framesOf(pieces: readonly Timed[], isSse: boolean): Timed[] {
  const end = isSse ? /\r\n\r\n|\n\n|\r\r/g : /\n/g;
  const decoder = new TextDecoder("utf-8", { ignoreBOM: true });
  const frames: Timed[] = [];
  let [buffer, delay] = ["", 0];
  for (const piece of pieces) {
    buffer += decoder.decode(piece.data, { stream: true });
    delay += piece.delay;
    let at = 0;
    for (const match of buffer.matchAll(end)) {
      const next = match.index + match[0].length;
      frames.push({ ...textPiece(buffer.slice(at, next)), delay });
      [at, delay] = [next, 0];
    }
    buffer = buffer.slice(at);
  }
  return buffer ? [...frames, { ...textPiece(buffer), delay }] : frames;
}

function textPiece(text: string): Timed {
  return { delay: 0, data: new TextEncoder().encode(text) };
}

function edited(frame: Timed, change: (text: string) => string): Timed {
  const text = new TextDecoder("utf-8", { ignoreBOM: true }).decode(frame.data);
  return { ...textPiece(change(text)), delay: frame.delay };
}

function corrupted(pieces: Timed[], at: number): Timed[] {
  let offset = 0;
  return pieces.map((piece) => {
    const place = at - offset;
    offset += piece.data.length;
    if (place < 0 || place >= piece.data.length) return piece;
    const data = piece.data.slice();
    data[place] = 0xff;
    return { ...piece, data };
  });
}

function firstBytes(pieces: Timed[], limit: number): Timed[] {
  let left = limit;
  const kept: Timed[] = [];
  for (const piece of pieces) {
    if (left <= 0) break;
    kept.push({ ...piece, data: piece.data.subarray(0, left) });
    left -= piece.data.length;
  }
  return kept;
}

function splitUp(piece: Timed, size: number): Timed[] {
  const parts: Timed[] = [];
  for (let at = 0; at < piece.data.length; at += size) {
    parts.push({ delay: at ? 0 : piece.delay, data: piece.data.subarray(at, at + size) });
  }
  return parts;
}
