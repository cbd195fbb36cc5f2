// node build.mjs OUT: the page of main.js.
import { writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "vite";

const [out] = process.argv.slice(2);
const here = dirname(fileURLToPath(import.meta.url));
const source = (path) => join(here, "..", "..", "..", "packages", "client", "src", path);

await build({
  root: here,
  configFile: false,
  logLevel: "error",
  resolve: {
    alias: [
      { find: /^@tokenwire\/client$/, replacement: source("index.ts") },
      { find: "@tokenwire/client/thread", replacement: source("threads/thread.ts") },
    ],
  },
  build: {
    outDir: out,
    emptyOutDir: false,
    minify: false,
    lib: { entry: join(here, "main.js"), formats: ["es"], fileName: "thread" },
  },
});
writeFileSync(
  join(out, "thread.html"),
  `<!doctype html><meta charset="utf-8"><title>A tab</title><script type="module" src="thread.js"></script>`,
);
