/* Code to coloured pieces; loaded when the first listing is shown. */

import { common, createLowlight } from "lowlight";

export interface Piece {
  text: string;
  className: string;
}

const lowlight = createLowlight(common);

interface Node {
  type: string;
  value?: string;
  properties?: { className?: unknown };
  children?: Node[];
}

/** The pieces of `code`, in order; null where the language is not known. */
export function highlight(code: string, language: string): Piece[] | null {
  if (!lowlight.registered(language)) return null;
  const pieces: Piece[] = [];
  const walk = (node: Node, className: string) => {
    if (node.type === "text") pieces.push({ text: node.value ?? "", className });
    const own = node.properties?.className;
    const inner = Array.isArray(own) ? own.join(" ") : className;
    for (const child of node.children ?? []) walk(child, inner || className);
  };
  walk(lowlight.highlight(language, code) as Node, "");
  return pieces;
}
