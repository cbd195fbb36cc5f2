/* Tests of the TypeScript packages; each package's sources are used, not its build. */

import { fileURLToPath } from "node:url";
import { defineConfig } from "vitest/config";
import { sources } from "./packages/sources.ts";

const path = (name: string) => fileURLToPath(new URL(`packages/${name}`, import.meta.url));

export default defineConfig({
  resolve: { alias: sources },
  test: {
    testTimeout: 60000,
    hookTimeout: 60000,
    expect: { poll: { timeout: 30000 } },
    setupFiles: [path("patience.ts")],
    maxWorkers: 4, // tests wait more than they compute
    projects: [
      {
        extends: true,
        test: {
          name: "packages",
          include: ["packages/*/test/**/*.test.{ts,tsx}"],
          exclude: ["**/node_modules/**", "**/*.real.test.tsx"],
        },
      },
      {
        extends: true,
        test: {
          name: "real",
          include: ["packages/*/test/**/*.real.test.tsx"],
          environment: path("react/test/dom.ts"),
        },
      },
    ],
  },
});
