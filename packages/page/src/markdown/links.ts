/* Which addresses a link of model output may have.

Always true: every link, image and autolink of an answer goes through `safeLink`; what it does not
return is never put into the document. */

import { revealed } from "../hidden.js";

const SCHEMES = ["http:", "https:", "mailto:"];
const NAMED: Record<string, string> = {
  amp: "&",
  lt: "<",
  gt: ">",
  quot: '"',
  apos: "'",
  nbsp: "\u00a0",
  copy: "©",
  reg: "®",
  hellip: "…",
  mdash: "—",
  ndash: "–",
  lsquo: "‘",
  rsquo: "’",
  ldquo: "“",
  rdquo: "”",
  times: "×",
  rarr: "→",
  larr: "←",
  deg: "°",
  euro: "€",
  colon: ":",
  Tab: "\t",
  NewLine: "\n",
};

/** Character references of Markdown text as characters; unknown ones stay as they are. */
export function decodeEntities(text: string): string {
  if (!text.includes("&")) return text;
  return text.replace(/&(?:#(\d{1,7})|#[xX]([0-9a-fA-F]{1,6})|(\w{2,10}));/g, (whole, dec, hex, name) => {
    if (name) return Object.hasOwn(NAMED, name) ? NAMED[name]! : whole;
    const code = dec ? Number(dec) : parseInt(hex as string, 16);
    return code > 0 && code <= 0x10ffff ? String.fromCodePoint(code) : "\ufffd";
  });
}

export interface SafeLink {
  href: string;
  /** What a person should know: the host, or the mail address. */
  host: string;
}

/** The address as it may be used, or null. Relative addresses are none: they would point into this
 * server. */
export function safeLink(address: string): SafeLink | null {
  // Browsers drop these inside a scheme; so do we, before looking at it.
  const plain = decodeEntities(address).replace(/[\u0000-\u0020\u007f-\u00a0\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]/g, "");
  if (!/^[a-z]+:/i.test(plain)) return null;
  let url: URL;
  try {
    url = new URL(plain);
  } catch {
    return null;
  }
  if (!SCHEMES.includes(url.protocol)) return null;
  if (url.protocol === "mailto:") {
    const fields = [...url.searchParams].map(([name, value]) => `${name}: ${value.slice(0, 200)}`);
    const host = [decoded(url.pathname).slice(0, 100), ...fields].join(", ");
    return { href: url.href, host: revealed(host) };
  }
  if (!url.hostname || url.username || url.password) return null;
  return { href: url.href, host: url.host };
}

function decoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

// Bounded as names of hosts are: every place of a text may begin one.
const NAME = /(?:[a-z][a-z0-9+.-]{0,30}:\/\/(?:[^\s/@]{0,100}@)?)?((?:[\p{L}\p{N}_-]{1,63}\.){1,10}[\p{L}]{2,63}|\[[0-9a-f:]{1,45}\]|\d{1,3}(?:\.\d{1,3}){3})(:\d+)?/giu;

/** The hosts that a link's text names, as the browser would read them. */
export function hostsIn(label: string): string[] {
  return [...label.matchAll(NAME)].map(([, name, port = ""]) => {
    try {
      return new URL(`https://${name}${port}/`).host;
    } catch {
      return `${name}${port}`.toLowerCase();
    }
  });
}

const IMAGE = /^data:image\/(png|jpeg|webp|gif);base64,[A-Za-z0-9+/=]+$/;
const MOST_IMAGE = (1 << 20) * 1.37;

/** Whether an image may be shown at once: small pictures that are in the text itself. */
export function isInlineImage(address: string): boolean {
  return address.length <= MOST_IMAGE && IMAGE.test(address);
}
