/* Both pages, into dist/, which the application serves. `npx vite build` makes them;
 * `npx vite` serves them for development beside the application on port 8000. */

import { fileURLToPath } from "node:url";
import { defineConfig } from "vite";

const path = (name: string) => fileURLToPath(new URL(name, import.meta.url));
const api = { target: "http://127.0.0.1:8000", changeOrigin: false };

export default defineConfig({
  root: path("."),
  build: { rolldownOptions: { input: { index: path("index.html"), "ai-sdk": path("ai-sdk.html") } } },
  server: {
    proxy: {
      "/ai/": { ...api, ws: true },
      "/session": api,
      "/people": api,
      "/files": api,
      "/conversations": api,
    },
  },
});
