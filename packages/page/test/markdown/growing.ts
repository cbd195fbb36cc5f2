/* What is drawn of a growing answer, as a tree, and whether it is the beginning of another. */

import { createElement } from "react";
import { renderToStaticMarkup } from "react-dom/server";
import { BlockReader } from "../../src/markdown/blocks.js";
import { renderBlocks } from "../../src/markdown/render.js";

/** The drawing as a tree: names of elements, texts, children. What only looks different (a link that
 * may still grow, the host beside it) is the same. */
export type Tree = string | { name: string; children: Tree[] };

const SAME: Record<string, string> = { SPAN: "A" };

export function treeOf(node: Node): Tree[] {
  const trees: Tree[] = [];
  for (const child of node.childNodes) {
    if (child.nodeType === 3) add(trees, child.textContent ?? "");
    if (child.nodeType !== 1) continue;
    const element = child as Element;
    // The host beside a link, buttons, and icons are ours.
    if (element.classList.contains("host") || ["BUTTON", "svg"].includes(element.tagName)) continue;
    if (element.tagName === "SPAN" && !element.classList.contains("no-link")) {
      for (const inner of treeOf(element)) typeof inner === "string" ? add(trees, inner) : trees.push(inner);
      continue;
    }
    const name = SAME[element.tagName] ?? element.tagName;
    trees.push({ name, children: treeOf(element) });
  }
  return trees;
}

function add(trees: Tree[], text: string): void {
  if (!text) return;
  const last = trees.length - 1;
  if (typeof trees[last] === "string") trees[last] += text;
  else trees.push(text);
}

/** Why `now` is not a beginning of `final`; undefined when it is. */
export function misfit(now: Tree[], final: Tree[], where = "", isOpen = true): string | undefined {
  for (const [at, tree] of now.entries()) {
    const other = final[at];
    const place = `${where}/${typeof tree === "string" ? "text" : tree.name}[${at}]`;
    const last = isOpen && at === now.length - 1;
    if (other === undefined) return `${place}: nothing stands there at the end`;
    if (typeof tree === "string" || typeof other === "string") {
      if (typeof tree !== "string" || typeof other !== "string") return `${place}: becomes ${JSON.stringify(other).slice(0, 80)}`;
      const [a, b] = [tree.trimEnd(), other.trimEnd()];
      if (last ? !b.startsWith(a) : a !== b) return `${place}: ${JSON.stringify(a.slice(-60))} becomes ${JSON.stringify(b.slice(0, a.length + 20).slice(-60))}`;
      continue;
    }
    if (tree.name !== other.name) return `${place}: becomes ${other.name}`;
    // Cells of a row come with it, before they have their text.
    const cells = tree.name === "TD";
    const inner = misfit(tree.children, other.children, place, last || (isOpen && cells));
    if (inner) return inner;
    if (!last && !cells && tree.children.length < other.children.length) return `${place}: is not whole`;
  }
  return undefined;
}

export class Drawing {
  #reader = new BlockReader();

  read(text: string, open: boolean): Tree[] {
    const blocks = this.#reader.read(text, open);
    const markup = renderToStaticMarkup(createElement("div", null, ...blocks.map(({ tokens, open: last }) => renderBlocks(tokens, last))));
    const place = document.createElement("div");
    place.innerHTML = markup;
    return treeOf(place.firstChild!);
  }
}
