/* What tests wait for may take as long as a busy machine needs; by themselves, Vitest and Testing
Library give up after one second. `expect.poll` has its time in vitest.config.ts. */

import { vi } from "vitest";

const PATIENCE = 30_000;

const waitFor = vi.waitFor;
vi.waitFor = (check, options) => {
  const given = typeof options === "number" ? { timeout: options } : options;
  return waitFor(check, { timeout: PATIENCE, ...given });
};

if (typeof document !== "undefined") {
  const { configure } = await import("@testing-library/react");
  configure({ asyncUtilTimeout: PATIENCE });
}
