/* Files as `data:` addresses (RFC 2397), in every form that browsers take. */

export interface DataURL {
  /** Media type, where the address has one. */
  type: string | undefined;
  /** Base64, without line ends, with its padding. */
  data: string;
}

/** Reads a `data:` address; undefined when it is none, null when it cannot be read. */
export function readDataURL(url: string): DataURL | null | undefined {
  if (!/^data:/i.test(url)) return undefined;
  const comma = url.indexOf(",");
  if (comma < 0) return null;
  const head = url.slice("data:".length, comma).split(";");
  const written = url.slice(comma + 1).split("#", 1)[0]!;
  const type = /^\s*([\w.+*-]+\/[\w.+*-]+)\s*$/.exec(head[0]!)?.[1]?.toLowerCase();
  try {
    const isBase64 = head.length > 1 && head[head.length - 1]!.trim().toLowerCase() === "base64";
    const data = isBase64 ? base64Of(written) : toBase64(bytesOf(written));
    return data === undefined ? null : { type: type ?? (isBase64 ? undefined : "text/plain"), data };
  } catch {
    return null;
  }
}

/** What a model reads in place of a file that cannot be read. */
export function unreadable(name: string | undefined): { type: "text"; text: string } {
  return { type: "text", text: `[The file${name ? ` ${name}` : ""} could not be read.]` };
}

function base64Of(written: string): string | undefined {
  const plain = decodeURIComponent(written).replace(/[\s=]/g, "").replace(/-/g, "+").replace(/_/g, "/");
  if (/[^A-Za-z0-9+/]/.test(plain) || plain.length % 4 === 1) return undefined;
  return plain.padEnd(Math.ceil(plain.length / 4) * 4, "=");
}

/** Percent signs stand for bytes, which need not be text; everything else for its UTF-8. */
function bytesOf(written: string): Uint8Array {
  const bytes: number[] = [];
  for (const [piece, hex] of written.matchAll(/%([0-9a-f]{2})|[^%]+|%/gi)) {
    if (hex) bytes.push(parseInt(hex, 16));
    else for (const byte of new TextEncoder().encode(piece)) bytes.push(byte);
  }
  return Uint8Array.from(bytes);
}

function toBase64(bytes: Uint8Array): string {
  let text = "";
  for (let at = 0; at < bytes.length; at += 8192) {
    text += String.fromCharCode(...bytes.subarray(at, at + 8192));
  }
  return btoa(text);
}
