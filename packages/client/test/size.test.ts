import { gzipSync } from "node:zlib";
import { join } from "node:path";
import { build } from "vite";
import { expect, it } from "vitest";

it("is at most 8 kB gzipped, and needs nothing at run time", async () => {
  const built = await build({
    configFile: false,
    logLevel: "silent",
    build: {
      write: false,
      minify: true,
      lib: { entry: join(import.meta.dirname, "../src/index.ts"), formats: ["es"] },
    },
  });
  const outputs = Array.isArray(built) ? built : [built];
  const chunks = outputs.flatMap((one) => ("output" in one ? one.output : []));
  const code = chunks.map((one) => (one.type === "chunk" ? one.code : "")).join("");
  expect(code).not.toMatch(/\bfrom\s*["']/);
  const size = gzipSync(code, { level: 9 }).length;
  console.log(`@tokenwire/client: ${size} bytes gzipped`);
  expect(size).toBeLessThanOrEqual(8192);
});
