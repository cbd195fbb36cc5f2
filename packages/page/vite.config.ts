/* The chat page, built into the Python package's static folder. The document is served at `/`, its
files under `assets/` beside it; their names hold their content's hash, so they may be cached for good. */

import react from "@vitejs/plugin-react";
import { rmSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { defineConfig, type Plugin } from "vite";
import { sources } from "../sources.ts";

const path = (name: string) => fileURLToPath(new URL(name, import.meta.url));
/** The server compares `Origin` with `Host`, which the short form of a proxy would change. */
const api = { target: "http://127.0.0.1:8765", changeOrigin: false };
const target = path("../../src/tokenwire/server/static");

/** Old files of the build go; what else is in the folder stays. */
const clean: Plugin = {
  name: "clean-assets",
  apply: "build",
  buildStart: () => rmSync(`${target}/assets`, { recursive: true, force: true }),
};

export default defineConfig({
  root: path("."),
  // Under any prefix: what a page names is beside it.
  base: "./",
  plugins: [react(), clean],
  resolve: { alias: sources },
  build: {
    outDir: target,
    emptyOutDir: false,
    rolldownOptions: { input: { index: path("index.html"), dash: path("dash.html") } },
    // Everything comes from files: the page's policy allows no inline script or style.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    target: "es2022",
    cssTarget: ["chrome123", "firefox120", "safari17.5"],
  },
  server: { proxy: { "/v1": api, "/metrics": api, "/chat": api, "/ws": { ...api, ws: true } } },
});
