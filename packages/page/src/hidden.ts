/* Characters that cannot be seen, or that turn the order of others. */

/** Bidirectional controls, zero-width and tag characters, and variation selectors of which several
 * stand together (one may choose a form, more carry bytes): text that hides. The joiners of emoji
 * and of several scripts stay, and so do the tags of a flag. */
const FLAG = "\\u{1f3f4}[\\u{e0020}-\\u{e007e}]{1,8}\\u{e007f}";
const CONTROLS = "[\\u{e0000}-\\u{e007f}\\u202a-\\u202e\\u2066-\\u2069\\u200b\\u2060-\\u2064\\ufeff]";
const HIDDEN = new RegExp(`(${FLAG})|${CONTROLS}|[\\ufe00-\\ufe0f\\u{e0100}-\\u{e01ef}]{2,}`, "gu");
/** In names and arguments also marks of direction, and controls that are no line ends. */
const STRICT = new RegExp(`(${FLAG})|${CONTROLS}|[\\u200e\\u200f\\u061c\\u180e\\u0000-\\u0008\\u000b-\\u001f\\u007f-\\u009f]`, "gu");

export function withoutHidden(text: string): string {
  return text.replace(HIDDEN, (_, flag?: string) => flag ?? "");
}

export function hiddenCount(text: string): number {
  let count = 0;
  for (const [run, flag] of text.matchAll(HIDDEN)) if (!flag) count += [...run].length;
  return count;
}

/** The text with what hides shown by its number: `report\u202egpj.exe` as `report[U+202E]gpj.exe`. */
export function revealed(text: string): string {
  return text.replace(STRICT, (sign, flag?: string) => {
    const code = sign.codePointAt(0)!.toString(16).toUpperCase().padStart(4, "0");
    return flag ?? `[U+${code}]`;
  });
}
