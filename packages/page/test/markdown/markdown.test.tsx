// @vitest-environment happy-dom

import { createElement } from "react";
import { renderToStaticMarkup } from "react-dom/server";
import { describe, expect, it } from "vitest";
import { BlockReader } from "../../src/markdown/blocks.js";
import { steady } from "../../src/markdown/hold.js";
import { decodeEntities, isInlineImage, safeLink } from "../../src/markdown/links.js";
import { Markdown } from "../../src/markdown/markdown.js";
import { HOSTILE } from "./hostile.js";

const ELEMENTS = new Set(
  ("A BLOCKQUOTE BR BUTTON CODE DEL DIV EM FIGCAPTION FIGURE H3 H4 H5 H6 HR IMG INPUT LI OL P PATH PRE SUP " +
    "SPAN STRONG SVG TABLE TBODY TD TH THEAD TR UL").split(" "),
);
const ATTRIBUTES = new Set(
  ("href target rel title class start type checked disabled readonly aria-label aria-hidden tabindex role " +
    "scope src alt dir viewbox width height focusable d style").split(" "),
);

function drawn(text: string, open: boolean): HTMLElement {
  const place = document.createElement("div");
  place.innerHTML = renderToStaticMarkup(createElement(Markdown, { text, open }));
  return place;
}

/** What is in the document must come from the closed set, whatever the text is. */
function inspect(place: HTMLElement): string[] {
  const bad: string[] = [];
  for (const element of place.querySelectorAll("*")) {
    if (!ELEMENTS.has(element.tagName.toUpperCase())) bad.push(`<${element.tagName}>`);
    for (const { name, value } of element.attributes) {
      if (!ATTRIBUTES.has(name.toLowerCase())) bad.push(`${element.tagName} ${name}`);
      if (name === "href" && !/^(https?:\/\/|mailto:)/.test(value)) bad.push(`href ${value}`);
      if (name === "src" && !isInlineImage(value)) bad.push(`src ${value}`);
    }
    if (element.tagName === "A" && element.getAttribute("rel") !== "noopener noreferrer nofollow") {
      bad.push("rel");
    }
  }
  return bad;
}

describe("hostile Markdown", () => {
  it("gives only elements of the closed set, at every prefix and when complete", () => {
    for (const text of HOSTILE.split("\n\n")) {
      for (let end = 0; end <= text.length; end++) {
        expect([text.slice(0, end), inspect(drawn(text.slice(0, end), true))]).toEqual([
          text.slice(0, end),
          [],
        ]);
      }
    }
    for (let end = 0; end <= HOSTILE.length; end += 13) {
      expect([end, inspect(drawn(HOSTILE.slice(0, end), true))]).toEqual([end, []]);
    }
    expect(inspect(drawn(HOSTILE, false))).toEqual([]);
  }, 120_000);

  it("keeps the text of what it does not draw", () => {
    const text = drawn(HOSTILE, false).textContent!;
    expect(text).toContain("<script>alert(1)</script>");
    expect(text).toContain("<svg><animate onbegin=alert(10)");
  });

  it("tells the real host of a link whose text says another", () => {
    const place = drawn("[https://bank.test](https://evil.test/phish)", false);
    expect(place.textContent).toContain("(evil.test)");
  });

  it("makes no link of an address that may still grow", () => {
    const whole = "See https://good.test/path and [this](https://good.test/x) too";
    for (let end = 0; end <= whole.length; end++) {
      const place = drawn(whole.slice(0, end), true);
      for (const a of place.querySelectorAll("a")) {
        expect(["https://good.test/path", "https://good.test/x"]).toContain(a.getAttribute("href"));
      }
    }
    expect(drawn(whole, false).querySelectorAll("a")).toHaveLength(2);
  });
});

describe("safeLink", () => {
  it("takes http, https and mailto only, absolute and without a password", () => {
    expect(safeLink("https://a.test/x?y=1")).toEqual({ href: "https://a.test/x?y=1", host: "a.test" });
    expect(safeLink("mailto:a@b.test")?.href).toBe("mailto:a@b.test");
    for (const bad of [
      "javascript:alert(1)",
      "java\nscript:alert(1)",
      "\u0001javascript:x",
      "java&#x0A;script:x",
      "javascript&colon;x",
      "data:text/html,x",
      "blob:https://a.test/x",
      "//a.test",
      "/v1/runs",
      "#x",
      "https://user@a.test/",
      "https:",
      "",
    ]) {
      expect([bad, safeLink(bad)]).toEqual([bad, null]);
    }
  });

  it("decodes references once", () => {
    expect(decodeEntities("&amp;lt; &#65;&#x42; &nope; &#0;")).toBe("&lt; AB &nope; \ufffd");
  });
});

describe("BlockReader", () => {
  const text = [
    "# Title\n\nSome *text* with `code`.\n\n",
    "- one\n- two\n\n  still two\n\n1. a\n\n2. b\n\n",
    "| a | b |\n|---|---|\n| 1 | 2 |\n\n",
    "```python\nprint(1)\n\nprint(2)\n```\n\n",
    "> quote\n\nEnd: $x^2$ and \\(y\\).\n\n$$\nz\n$$\n\nlast",
  ].join("");
  const shape = (reader: BlockReader, of: string, open: boolean) =>
    reader
      .read(of, open)
      .flatMap(({ tokens }) => tokens)
      .filter(({ type }) => type !== "space")
      .map(({ type, raw }) => [type, raw.trim()]);

  it("gives the same blocks read piece by piece as at once", () => {
    const whole = shape(new BlockReader(), text, false);
    for (const step of [1, 3, 7, 50]) {
      const reader = new BlockReader();
      for (let end = 0; end < text.length; end += step) reader.read(text.slice(0, end), true);
      expect(shape(reader, text, false)).toEqual(whole);
    }
  });

  it("keeps the keys and the objects of finished blocks", () => {
    const reader = new BlockReader();
    const many = Array.from({ length: 20 }, (_, n) => `Paragraph ${n}.\n\n`).join("");
    const before = reader.read(many.slice(0, 150), true);
    const after = reader.read(many, true);
    expect(after.slice(0, before.length - 3)).toEqual(before.slice(0, before.length - 3));
    expect(after[0]).toBe(before[0]);
    expect(new Set(after.map(({ key }) => key)).size).toBe(after.length);
  });

  it("starts again when the text was replaced", () => {
    const reader = new BlockReader();
    reader.read("first text\n\nsecond\n\nthird\n\nfourth", true);
    expect(shape(reader, "other", false)).toEqual([["paragraph", "other"]]);
  });

  it("works on what is open, not on the whole: twice the text takes about twice as long", () => {
    const piece = "A sentence of some length, with **bold** words and `code` in it.\n\n";
    const listing = "```js\n" + "const line = 'of code';\n".repeat(4000);
    for (const long of [piece.repeat(4000), listing]) {
      const reader = new BlockReader();
      let most = 0;
      for (let end = 0; end < long.length; end += 997) {
        const open = reader.read(long.slice(0, end), true).filter((block) => block.open);
        most = Math.max(most, ...open.map(({ tokens }) => tokens[0]!.raw.length));
      }
      expect(most).toBeLessThan(70_000);
      const code = reader.read(long, false).map(({ tokens }) => tokens.map((t) => ("text" in t ? t.text : "")).join(""));
      if (long === listing) expect(code.join("\n").match(/of code/g)).toHaveLength(4000);
    }
  });
});

describe("steady", () => {
  it.each([
    ["a **bold", "a "],
    ["a `code", "a "],
    ["a [text](https://half", "a "],
    ["a [text", "a "],
    ["a [text]", "a "],
    ["a [text] b", "a [text] b"],
    ["```\na **b", "```\na **b"],
    ["done **bold** here", "done **bold** here"],
    ["text\n-", "text\n"],
    ["text\n##", "text\n"],
    ["| a | b |\n|--", ""],
    ["```js\na\n``", "```js\na"],
    ["costs $5", "costs "],
    ["costs $5 and a little more, and then there is more of the text that goes on", "costs $5 and a little more, and then there is more of the text that goes on"],
    [`**${"long ".repeat(40)}`, `**${"long ".repeat(40).trimEnd()}**`],
  ])("%j is drawn as %j", (text, drawn) => {
    expect(steady(text)).toBe(drawn);
  });
});

describe("long blocks", () => {
  it("keeps tables tables", () => {
    const rows = Array.from({ length: 4000 }, (_, n) => `| row ${n} | \`a|${n}\` |\n`).join("");
    const text = `| a | b |\n|---|---|\n${rows}\nafter\n`;
    const reader = new BlockReader();
    for (let end = 0; end < text.length; end += 1009) {
      const types = reader.read(text.slice(0, end), true).flatMap(({ tokens }) => tokens.map(({ type }) => type));
      expect([end, types.filter((type) => !["table", "space"].includes(type))]).toEqual([end, []]);
    }
    const place = drawn(text, false);
    expect(place.textContent).toContain("after");
    const blocks = reader.read(text, false).flatMap(({ tokens }) => tokens);
    const count = blocks.reduce((sum, token) => sum + ("rows" in token ? (token.rows as unknown[]).length : 0), 0);
    expect(count).toBe(4000);
  });

  it("keeps the items of a list, also nested ones", () => {
    const items = Array.from({ length: 3000 }, (_, n) => `- item ${n}\n  - inner ${n}\n`).join("");
    const reader = new BlockReader();
    for (let end = 0; end < items.length; end += 1009) reader.read(items.slice(0, end), true);
    const lists = reader.read(items, false).flatMap(({ tokens }) => tokens);
    expect(lists.every(({ type }) => type === "list")).toBe(true);
    const count = lists.reduce((sum, list) => sum + (list as { items: unknown[] }).items.length, 0);
    expect(count).toBe(3000);
  });

  it("finds the addresses of references that come at the end", () => {
    const many = Array.from({ length: 50 }, (_, n) => `See [source ${n}][s${n}] and [this].\n\n`).join("");
    const definitions = Array.from({ length: 50 }, (_, n) => `[s${n}]: https://s${n}.test/\n`).join("");
    const text = `${many}${definitions}[This]: https://this.test/\n`;
    const reader = new BlockReader();
    for (let end = 0; end < text.length; end += 7) reader.read(text.slice(0, end), true);
    const links = JSON.stringify(reader.read(text, false)).match(/"href":"https:[^"]*"/g);
    expect(links).toHaveLength(100 + 51); // and the definitions themselves
  });

  it.each([
    ["quotes", "> ".repeat(2000)],
    ["lists", "- ".repeat(2000) + "x"],
    ["brackets", "[".repeat(32_768)],
    ["stars", "a*".repeat(16_384)],
    ["links", "[a](".repeat(8000)],
    ["nested quotes and lists", "> - ".repeat(1000) + "x"],
  ])("draws %s without end in time that grows with their length", (_name, text) => {
    for (let end = 0; end <= text.length; end += 331) drawn(text.slice(0, end), true);
    expect(drawn(text, false).textContent!.length).toBeGreaterThan(0);
  }, 60_000);
});

it("a task is drawn once, in tight, loose and mixed lists", () => {
  const place = drawn("- plain\n- [ ] to do\n- [x] done\n\n1. one\n\n2. [x] two\n\n   more\n", false);
  const items = [...place.querySelectorAll("li")].map((item) => [
    item.className,
    item.querySelector("input")?.getAttribute("aria-label"),
    item.textContent,
  ]);
  expect(items).toEqual([
    ["", undefined, "plain"],
    ["task", "to do", "to do"],
    ["task", "done", "done"],
    ["", undefined, "one"],
    ["task", "done", "twomore"],
  ]);
});

it("a link has no other inside", () => {
  const text = "[![badge](https://a.test/b.svg) **![two](https://c.test/d.png)**](https://e.test) ![alone](https://f.test/g.png)";
  const place = drawn(text, false);
  expect(place.querySelectorAll("a a")).toHaveLength(0);
  expect([...place.querySelectorAll("a")].map((link) => link.getAttribute("href"))).toEqual([
    "https://e.test/",
    "https://f.test/g.png",
  ]);
  expect(place.querySelector("a")!.textContent).toContain("badge");
});

describe("many signs", () => {
  const lines = (line: (n: number) => string) => Array.from({ length: 600 }, (_, n) => line(n + 1)).join("\n");
  it.each([
    ["bullets", (n: number) => `- **item ${n}** _soft_`],
    ["numbers", (n: number) => `${n}. **item ${n}** _soft_`],
  ])("in a long list of %s are drawn item by item", (_, line) => {
    const place = drawn(`${lines(line)}\n`, false);
    expect(place.querySelectorAll("li > p > strong")).toHaveLength(600);
    expect(place.textContent).not.toContain("**");
  });

  it.each([
    ["one paragraph", () => "**a* _b_ [c"],
    ["numbers that are none", (n: number) => `${n + 1}. **a* _b_ [c`],
    ["numbers in an item", (n: number) => `${n === 1 ? "- x\n" : ""}  ${n + 1}. **a* _b_ [c`],
  ])("in %s are text, read in no time", (_, line) => {
    const place = drawn(`Text\n${lines(line)}\n`, false);
    expect(place.querySelectorAll("strong, em")).toHaveLength(0);
  });
});
