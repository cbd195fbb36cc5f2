import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { build } from "vite";
import { expect, it } from "vitest";

it("is at most 8.5 kB gzipped, and needs nothing at run time", async () => {
  const built = await build({
    configFile: false,
    logLevel: "silent",
    root: join(import.meta.dirname, ".."),
    build: {
      write: false,
      minify: true,
      modulePreload: false,
      rolldownOptions: {
        input: join(import.meta.dirname, "../src/index.ts"),
        preserveEntrySignatures: "strict",
      },
    },
  });
  const outputs = Array.isArray(built) ? built : [built];
  const chunks = outputs.flatMap((one) => ("output" in one ? one.output : []));
  const code = chunks.map((one) => (one.type === "chunk" ? one.code : "")).join("");
  expect(code).toContain("as streamChat");
  expect(code).not.toMatch(/\bfrom\s*["'`]|\bimport\b/);
  const size = gzipSync(code, { level: 9 }).length;
  console.log(`@tokenwire/client: ${size} bytes gzipped`);
  expect(size).toBeLessThanOrEqual(8500);
});
