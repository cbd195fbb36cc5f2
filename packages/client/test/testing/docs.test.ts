/* The guide's tests run: docs/guide/testing.md. */

import { mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { afterAll, expect, it } from "vitest";

const guide = readFileSync(join(import.meta.dirname, "../../../../docs/guide/testing.md"), "utf8");
const place = join(import.meta.dirname, "../../node_modules/.docs");
const blocks = [...guide.matchAll(/^```ts\n([\s\S]*?)^```$/gm)].map(([, code]) => code!);

afterAll(() => rmSync(place, { recursive: true, force: true }));
it("there is one", () => expect(blocks.length).toBeGreaterThan(0));

mkdirSync(place, { recursive: true });
for (const [at, code] of blocks.entries()) {
  const file = join(place, `testing${at}.ts`);
  writeFileSync(file, code);
  await import(/* @vite-ignore */ pathToFileURL(file).href); // its tests are this file's
}
