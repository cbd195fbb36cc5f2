// node build.mjs OUT VERSION...: the pages of main.js with those versions of the AI SDK.
import { writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "vite";

const [out, ...versions] = process.argv.slice(2);
const here = dirname(fileURLToPath(import.meta.url));
const root = join(here, "..", "..", "..");
const packages = join(root, "tests", "node", "node_modules");

for (const version of versions) {
  await build({
    root: here,
    configFile: false,
    logLevel: "error",
    define: { "process.env.NODE_ENV": '"production"' },
    resolve: {
      alias: [
        { find: "@ai-sdk/react", replacement: join(packages, `aireact${version}`) },
        { find: /^ai$/, replacement: join(packages, `ai${version}`) },
        { find: /^react(-dom)?(?=\/|$)/, replacement: `${packages}/react$1` },
        { find: "tokenwire-ai", replacement: join(root, "packages", "client", "src", "ai-sdk", "transport.ts") },
      ],
    },
    build: {
      outDir: out,
      emptyOutDir: false,
      minify: false,
      lib: { entry: join(here, "main.js"), formats: ["es"], fileName: `v${version}` },
    },
  });
  writeFileSync(
    join(out, `v${version}.html`),
    `<!doctype html><meta charset="utf-8"><title>useChat</title><div id="root"></div>` +
      `<script type="module" src="v${version}.js"></script>`,
  );
}
