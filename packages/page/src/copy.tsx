/* Copying as plain text, without characters that cannot be seen. */

import { useEffect, useState, type ReactNode } from "react";
import { Icon } from "./icons.js";

/** Tag characters, bidirectional controls, zero-width characters, and variation selectors of which
 * several stand together (one may choose a form, more carry bytes): text that hides. The joiners of
 * emoji and of several scripts stay. */
const HIDDEN = /[\u{e0000}-\u{e007f}\u202a-\u202e\u2066-\u2069\u200b\u2060-\u2064\ufeff]|[\ufe00-\ufe0f\u{e0100}-\u{e01ef}]{2,}/gu;

export function withoutHidden(text: string): string {
  return text.replace(HIDDEN, "");
}

export function hiddenCount(text: string): number {
  return (text.match(HIDDEN) ?? []).reduce((count, run) => count + [...run].length, 0);
}

export function CopyButton({ text, label }: { text: string; label: string }): ReactNode {
  const [done, setDone] = useState(false);
  useEffect(() => {
    if (!done) return undefined;
    const timer = setTimeout(() => setDone(false), 1500);
    return () => clearTimeout(timer);
  }, [done]);
  const copy = () => {
    void copyText(withoutHidden(text)).then(setDone);
  };
  return (
    <button type="button" className="quiet icon" onClick={copy} aria-label={done ? "Copied" : label} title={label}>
      <Icon name={done ? "check" : "copy"} />
    </button>
  );
}

async function copyText(text: string): Promise<boolean> {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return fallbackCopy(text);
  }
}

/** Where the clipboard API is missing: plain HTTP on a local network. */
function fallbackCopy(text: string): boolean {
  const area = document.createElement("textarea");
  area.value = text;
  area.setAttribute("aria-hidden", "true");
  area.className = "offscreen";
  document.body.append(area);
  area.select();
  const done = document.execCommand("copy");
  area.remove();
  return done;
}
