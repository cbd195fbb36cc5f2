/* For a test in a real browser: draws every prefix of the hostile Markdown, one after the other. */

import { flushSync } from "react-dom";
import { createRoot } from "react-dom/client";
import { Markdown } from "../../src/markdown/markdown.js";
import { HOSTILE } from "./hostile.js";

/** What was begun (a picture's request, a script) runs before the next prefix is drawn. */
function turn(): Promise<void> {
  return new Promise((done) => {
    const { port1, port2 } = new MessageChannel();
    port1.onmessage = () => done();
    port2.postMessage(0);
  });
}

async function draw(text: string): Promise<number> {
  const place = document.createElement("div");
  document.body.append(place);
  const root = createRoot(place);
  for (let end = 0; end <= text.length; end++) {
    flushSync(() => root.render(<Markdown text={text.slice(0, end)} open={end < text.length} />));
    await turn();
  }
  root.unmount();
  place.remove();
  return text.length + 1;
}

/** How many prefixes were drawn: of each piece alone, and of all of them in one answer. */
export async function drawAll(): Promise<number> {
  let count = 0;
  for (const piece of HOSTILE.split("\n\n")) count += await draw(piece);
  return count + (await draw(HOSTILE));
}

Object.assign(window, { drawAll });
