/* Whether a request means the same as a recorded one, and where they differ.

Always true: the same answers as the Python kit's (`conformance/cassettes/matching.json`). The order
of fields, whitespace, the names of ids and what only identifies the caller do not matter. */

import { withoutSlash } from "../core/http.js";

/** What is compared of a request. A body is `json`, `text` or `base64`. */
export interface Compared {
  method: string;
  url: string;
  json?: unknown;
  text?: string;
  base64?: string;
}

/** One place in which two requests differ. */
export interface Difference {
  path: string;
  requested: string;
  recorded: string;
}

type Data = Record<string, unknown>;

const REDACTED = "[redacted]";
/** Fields at the top of a body that say for whom, and not what. */
const CALLER = new Set(["user", "metadata", "safety_identifier", "prompt_cache_key"]);
/** Fields whose texts are names that a provider or a framework draws. */
const IDS = new Set([
  "id", "call_id", "tool_call_id", "tool_use_id", "item_id", "message_id", "response_id",
  "previous_response_id", "request_id", "run_id", "session_id", "thread_id", "conversation_id",
]);
/** Parameters of an address that hold a key. */
const KEYS = new Set(["key", "api_key", "api-key", "apikey", "access_token", "token", "sig"]);
const MISSING = Symbol("nothing");

/** Where two requests differ in meaning; nothing where they mean the same. `ignore`: paths into a
 * JSON body (`messages.*.name`) that do not matter. */
export function differences(requested: Compared, recorded: Compared, ignore: readonly string[] = []): Difference[] {
  const results: Difference[] = [];
  const [left, right] = [requested, recorded].map((one) => meaningOf(one, ignore)) as [Data, Data];
  for (const field of ["method", "address", "query"]) compare(left[field], right[field], field, results);
  compare(left.body, right.body, "", results);
  return results;
}

function meaningOf(request: Compared, ignore: readonly string[]): Data {
  const [address = "", search = ""] = request.url.split(/\?(.*)/s);
  const query = [...new URLSearchParams(search)].filter(([name]) => !KEYS.has(name.toLowerCase()));
  const body = "json" in request ? dataOf(request.json, ignore) : (request.text ?? request.base64 ?? null);
  return {
    method: request.method.toUpperCase(),
    address: withoutSlash(address),
    query: Object.fromEntries(query),
    body,
  };
}

function isData(value: unknown): value is Data {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function dataOf(value: unknown, ignore: readonly string[]): unknown {
  let data = value;
  if (isData(data)) {
    const entries = Object.entries(data).filter(([name, item]) => !CALLER.has(name) && item !== null);
    data = Object.fromEntries(entries);
  }
  for (const path of ignore) data = without(data, path.split("."));
  return withIds(data, "", new Map());
}

function without(value: unknown, [first, ...rest]: string[]): unknown {
  const isMeant = (name: string) => first === "*" || first === name;
  const changed = (name: string, item: unknown) =>
    !isMeant(name) ? item : rest.length ? without(item, rest) : MISSING;
  if (Array.isArray(value)) {
    return value.map((item, at) => changed(String(at), item)).filter((item) => item !== MISSING);
  }
  if (!isData(value)) return value;
  const entries = Object.entries(value).map(([name, item]) => [name, changed(name, item)] as const);
  return Object.fromEntries(entries.filter(([, item]) => item !== MISSING));
}

/** The value with ids numbered as they appear, and JSON in texts as data. */
function withIds(value: unknown, parent: string, names: Map<string, string>): unknown {
  if (Array.isArray(value)) return value.map((item) => withIds(item, parent, names));
  if (!isData(value)) return value;
  const changed: Data = {};
  for (const name of Object.keys(value).sort()) {
    const item = value[name];
    if (IDS.has(name) && typeof item === "string" && parent !== "prompt") {
      if (!names.has(item)) names.set(item, `id ${names.size + 1}`);
      changed[name] = names.get(item);
    } else if (name === "arguments" && typeof item === "string") {
      changed[name] = withIds(parsed(item), name, new Map());
    } else changed[name] = withIds(item, name, names);
  }
  return changed;
}

function parsed(text: string): unknown {
  try {
    const value = JSON.parse(text) as unknown;
    return typeof value === "object" && value !== null ? value : text;
  } catch {
    return text;
  }
}

function compare(left: unknown, right: unknown, path: string, results: Difference[]): void {
  const below = (name: string) => (path ? `${path}.${name}` : name);
  if (isData(left) && isData(right)) {
    for (const name of new Set([...Object.keys(left), ...Object.keys(right)])) {
      const [one, other] = [left, right].map((side) => (Object.hasOwn(side, name) ? side[name] : MISSING));
      compare(one, other, below(name), results);
    }
  } else if (Array.isArray(left) && Array.isArray(right)) {
    for (let at = 0; at < Math.max(left.length, right.length); at++) {
      compare(at in left ? left[at] : MISSING, at in right ? right[at] : MISSING, below(String(at)), results);
    }
  } else if (left !== right && !(typeof left === "string" && typeof right === "string" && fits(left, right))) {
    results.push({ path: path || "body", requested: shown(left), recorded: shown(right) });
  }
}

/** Whether `text` is `recorded` with other words in the places that were redacted. */
function fits(text: string, recorded: string): boolean {
  const [first = "", ...others] = recorded.split(REDACTED);
  const last = others.pop();
  if (last === undefined || !text.startsWith(first)) return false;
  let place = first.length;
  for (const part of others) {
    const at = text.indexOf(part, place);
    if (at < 0) return false;
    place = at + part.length;
  }
  return text.length - last.length >= place && text.endsWith(last);
}

function shown(value: unknown): string {
  if (value === MISSING) return "nothing";
  const text = JSON.stringify(value) ?? "undefined";
  return text.length <= 200 ? text : `${text.slice(0, 199)}…`;
}
