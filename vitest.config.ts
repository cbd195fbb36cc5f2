/* Tests of the TypeScript packages; each package's sources are used, not its build. */

import { fileURLToPath } from "node:url";
import { defineConfig } from "vitest/config";

const path = (name: string) => fileURLToPath(new URL(`packages/${name}`, import.meta.url));

export default defineConfig({
  resolve: {
    alias: [
      { find: /^@tokenwire\/client$/, replacement: path("client/src/index.ts") },
      { find: /^@tokenwire\/client\/(.*)$/, replacement: `${path("client/src")}/$1.ts` },
      { find: /^@tokenwire\/react$/, replacement: path("react/src/index.ts") },
    ],
  },
  test: {
    include: ["packages/*/test/**/*.test.{ts,tsx}"],
    testTimeout: 20000,
  },
});
