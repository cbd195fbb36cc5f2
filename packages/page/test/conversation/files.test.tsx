// @vitest-environment happy-dom

import { cleanup, render } from "@testing-library/react";
import { afterEach, expect, test, vi } from "vitest";
import { cleanName, readFiles, size } from "../../src/conversation/attach.js";
import { FileView } from "../../src/conversation/files.js";

afterEach(cleanup);

test("only small pictures of four kinds are drawn", () => {
  const kinds = ["image/png", "image/jpeg", "image/webp", "image/gif"];
  const others = ["image/svg+xml", "image/avif", "text/html", "application/pdf", "image/png;x=y", ""];
  for (const type of [...kinds, ...others]) {
    for (const bytes of [(1 << 20) - 1, 1 << 20, (1 << 20) + 1]) {
      const file = { name: "x", type, size: bytes, data: "QUJD" };
      const { container, unmount } = render(<FileView file={file} large />);
      expect(container.querySelectorAll("img").length).toBe(kinds.includes(type) && bytes <= 1 << 20 ? 1 : 0);
      unmount();
    }
  }
});

test("the address of a picture holds base64 and nothing else", () => {
  const file = { name: "x", type: "image/png", size: 3, data: 'QU"onerror=alert(1) JD\n==' };
  const { container } = render(<FileView file={file} large />);
  expect(container.querySelector("img")!.getAttribute("src")).toBe("data:image/png;base64,QUonerroralert1JD");
});

test("what is saved has no type that a browser would run", async () => {
  const made = vi.spyOn(URL, "createObjectURL").mockReturnValue("blob:x");
  const clicked = vi.spyOn(HTMLAnchorElement.prototype, "click").mockImplementation(function (this: HTMLAnchorElement) {
    expect(this.download).toBe("pagetxt.html");
  });
  for (const data of ["PGI+", "PGI", "PGI+P"]) {
    const file = { name: "../page\u202etxt.html", type: "text/html", size: 3, data };
    const { getByRole, unmount } = render(<FileView file={file} />);
    getByRole("button", { name: /^Save/ }).click();
    const blob = made.mock.lastCall![0] as Blob;
    expect(blob.type).toBe("application/octet-stream");
    expect((await blob.text()).startsWith("<b")).toBe(true);
    unmount();
  }
  expect(clicked).toHaveBeenCalledTimes(3);
});

test("names have no path, nothing that hides, and an end", () => {
  expect(cleanName("C:\\a\\b.txt")).toBe("b.txt");
  expect(cleanName("../../etc/passwd")).toBe("passwd");
  expect(cleanName("a\u202e\u0000\u200bb.png")).toBe("ab.png");
  expect(cleanName("  ")).toBe("file");
  const long = cleanName(`${"w".repeat(300)}.jpeg`);
  expect([long.length, long.slice(-6)]).toEqual([120, "….jpeg"]);
});

test("sizes as people read them", () => {
  expect([0, 1023, 1024, 1 << 20, 1.5 * (1 << 20)].map(size)).toEqual(["0 B", "1023 B", "1 KiB", "1 MiB", "1.5 MiB"]);
});

test("files together have a limit, counted with those that are there", async () => {
  const file = (name: string, bytes: number) => new File(["x".repeat(bytes)], name, { type: "application/pdf" });
  const before = [{ name: "a", type: "application/pdf", size: 3 << 20, data: "" }];
  const { files, problems } = await readFiles([file("b.pdf", 3 << 20), file("c.pdf", 1)], before);
  expect(files.map(({ name }) => name)).toEqual(["b.pdf"]);
  expect(problems).toEqual(["“c.pdf” cannot be attached: with it the files have more than 6 MiB together."]);
});

test("text is what decodes as text, whatever it is called", async () => {
  const file = (name: string, type: string, ...parts: BlobPart[]) => new File(parts, name, { type });
  const { files, problems } = await readFiles(
    [
      file("a.ts", "video/mp2t", "const a = 1;"),
      file("b.svg", "image/svg+xml", "<svg/>"),
      file("c.html", "text/html", "<b>"),
      file("d.bin", "", new Uint8Array([0xff, 0xfe, 1])),
      file("e.bin", "", "a\0b"),
    ],
    [],
  );
  expect(files.map(({ name, type }) => [name, type])).toEqual([
    ["a.ts", "text/plain"],
    ["b.svg", "text/plain"],
    ["c.html", "text/plain"],
  ]);
  expect(problems.length).toBe(2);
});
