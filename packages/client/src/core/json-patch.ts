/* The operations of a `state` event (`add`, `replace`, `remove` of RFC 6902); the same reading as
Python's `events/json_patch.py`.

Always true: values are never changed in place; a patch that does not fit changes nothing. */

type Operation = Record<string, unknown>;
const OPERATIONS: unknown[] = ["add", "replace", "remove"];

/** A shared state after a `state` event: its snapshot, or what the patch makes of `value`. */
export function patched(value: unknown, snapshot: unknown, patch?: Operation[]): unknown {
  if (!patch) return snapshot;
  if (!patch.every(({ op }) => OPERATIONS.includes(op))) return value; // of a newer version
  try {
    return patch.reduce((now, { op, path, value: item }) => {
      const names = String(path)
        .split("/")
        .map((name) => name.replaceAll("~1", "/").replaceAll("~0", "~"));
      return changed(now, names.slice(1), String(op), item ?? null);
    }, value);
  } catch {
    return value;
  }
}

/** A copy without a prototype, so that every name is only a name. */
export function bare(source: object): Record<string, unknown> {
  return Object.assign(Object.create(null) as Record<string, unknown>, source);
}

function changed(value: unknown, [name, ...rest]: string[], op: string, item: unknown): unknown {
  if (name === undefined) {
    if (op === "remove") throw value;
    return item;
  }
  const last = !rest.length;
  if (Array.isArray(value)) {
    const items = [...(value as unknown[])];
    const adds = last && op === "add";
    const at = adds && name === "-" ? items.length : Number(name);
    if (String(at) !== name && name !== "-") throw value;
    if (!(at >= 0 && at < items.length + Number(adds))) throw value;
    if (!last) items[at] = changed(items[at], rest, op, item);
    else items.splice(at, Number(op !== "add"), ...(op === "remove" ? [] : [item]));
    return items;
  }
  const copy = bare(value as object);
  if (typeof value !== "object" || (!(name in copy) && !(last && op === "add"))) throw value;
  if (last && op === "remove") delete copy[name];
  else copy[name] = last ? item : changed(copy[name], rest, op, item);
  return copy;
}
