/* Builds prefixes.tsx for a browser, with its folder as the last argument: `--outDir`. */

import react from "@vitejs/plugin-react";
import { fileURLToPath } from "node:url";
import { defineConfig } from "vite";

export default defineConfig({
  root: fileURLToPath(new URL(".", import.meta.url)),
  base: "./",
  plugins: [react()],
  build: {
    emptyOutDir: true,
    minify: false,
    modulePreload: { polyfill: false },
    rolldownOptions: {
      input: fileURLToPath(new URL("prefixes.tsx", import.meta.url)),
      output: { entryFileNames: "prefixes.js" },
    },
  },
});
