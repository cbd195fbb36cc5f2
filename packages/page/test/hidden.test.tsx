// @vitest-environment happy-dom
/* What hides is shown, what belongs to writing stays, and links say where they go. */

import { createElement } from "react";
import { renderToStaticMarkup } from "react-dom/server";
import { describe, expect, it } from "vitest";
import { hiddenCount, revealed, withoutHidden } from "../src/hidden.js";
import { hostsIn, safeLink } from "../src/markdown/links.js";
import { Markdown } from "../src/markdown/markdown.js";

const ENGLAND = "\u{1f3f4}\u{e0067}\u{e0062}\u{e0065}\u{e006e}\u{e0067}\u{e007f}";
const FAMILY = "\u{1f468}\u200d\u{1f469}\u200d\u{1f467}";

describe("hidden characters", () => {
  it.each([ENGLAND, FAMILY, "\u{1f1e9}\u{1f1ea}", "❤\ufe0f", "می‌خواهم", "क्‍ष"])("%s stays as it is", (text) => {
    expect(withoutHidden(text)).toBe(text);
    expect(hiddenCount(text)).toBe(0);
  });

  it("are left out of copies, and shown in what a person decides by", () => {
    expect(withoutHidden("a\u200bb\u202ec\u{e0041}d")).toBe("abcd");
    expect(hiddenCount("a\u200bb\u202ec\u{e0041}d")).toBe(3);
    expect(revealed("report\u202egpj.exe")).toBe("report[U+202E]gpj.exe");
    expect(revealed(`\u200fa\u0007\n\tb ${ENGLAND}`)).toBe(`[U+200F]a[U+0007]\n\tb ${ENGLAND}`);
  });
});

const drawn = (text: string) => {
  const place = document.createElement("div");
  place.innerHTML = renderToStaticMarkup(createElement(Markdown, { text, open: false }));
  return place.textContent;
};

describe("a link", () => {
  it.each([
    ["[https://bank.test](https://bank.test.evil.test/)", "(bank.test.evil.test), not bank.test"],
    ["[bank.test](https://k.test/)", "(k.test), not bank.test"],
    ["[see bank.test now](https://evil.test/)", "(evil.test), not bank.test"],
    ["[bank.test:8443](https://bank.test/)", "(bank.test), not bank.test:8443"],
    ["[https://bank.test@evil.test/](https://other.test/)", "(other.test), not evil.test"],
    ["[here](https://a.test/)", "here (a.test)"],
    ["[write](mailto:a@b.test?bcc=c@d.test&body=Pay%20me)", "(a@b.test, bcc: c@d.test, body: Pay me)"],
    ["[a\u202eb](https://a.test/)", "a[U+202E]b (a.test)"],
  ])("%s says %s", (text, said) => {
    expect(drawn(text)).toContain(said);
  });

  it("that names its host says no more", () => {
    expect(drawn("[https://a.test/x](https://a.test/x)")).toBe("https://a.test/x");
    expect(hostsIn("BÜCHER.test and 10.0.0.1")).toEqual(["xn--bcher-kva.test", "10.0.0.1"]);
    expect(safeLink("mailto:a@b.test")?.host).toBe("a@b.test");
  });
});
