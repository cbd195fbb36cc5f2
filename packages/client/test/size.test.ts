import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { build } from "vite";
import { expect, it } from "vitest";

it.each([
  ["index.ts", "as streamChat", 8800],
  ["threads/thread.ts", "as Thread,", 11000],
  ["state/threads.ts", "as Threads,", 7500],
])("src/%s is small, and needs nothing at run time", async (entry, exported, most) => {
  const built = await build({
    configFile: false,
    logLevel: "silent",
    root: join(import.meta.dirname, ".."),
    build: {
      write: false,
      minify: true,
      modulePreload: false,
      rolldownOptions: {
        input: join(import.meta.dirname, "../src", entry),
        preserveEntrySignatures: "strict",
      },
    },
  });
  const outputs = Array.isArray(built) ? built : [built];
  const chunks = outputs.flatMap((one) => ("output" in one ? one.output : []));
  const code = chunks.map((one) => (one.type === "chunk" ? one.code : "")).join("");
  expect(code).toContain(exported);
  expect(code).not.toContain("tokenwire-cassette"); // what is for tests
  expect(code).not.toMatch(/\bfrom\s*["'`]|\bimport\b/);
  const size = gzipSync(code, { level: 9 }).length;
  console.log(`${entry}: ${size} bytes gzipped`);
  expect(size).toBeLessThanOrEqual(most);
});
