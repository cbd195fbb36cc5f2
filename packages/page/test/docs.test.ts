/* The code blocks of the guides are programs that the packages' types accept. */

import { execFileSync } from "node:child_process";
import { mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, expect, it } from "vitest";

const root = join(import.meta.dirname, "../../..");
const place = join(import.meta.dirname, "../node_modules/.docs");

afterAll(() => rmSync(place, { recursive: true, force: true }));

it("the guides' TypeScript is right", () => {
  const guides = ["browser", "embed", "testing"].map((name) => readFileSync(join(root, `docs/guide/${name}.md`), "utf8"));
  const blocks = guides.flatMap((guide) => [...guide.matchAll(/^```(tsx?)\n([\s\S]*?)^```$/gm)]);
  expect(blocks.length).toBeGreaterThanOrEqual(5);
  rmSync(place, { recursive: true, force: true });
  mkdirSync(place, { recursive: true });
  blocks.forEach(([, kind, code], at) => writeFileSync(join(place, `block${at}.${kind}`), code!));
  const config = {
    extends: join(import.meta.dirname, "../tsconfig.json"),
    compilerOptions: { noUnusedLocals: false },
    include: ["./*"],
  };
  writeFileSync(join(place, "tsconfig.json"), JSON.stringify(config));
  try {
    execFileSync("npx", ["tsc", "-p", place, "--noEmit"], { cwd: root, encoding: "utf8", stdio: "pipe" });
  } catch (error) {
    throw new Error(String((error as { stdout?: string }).stdout));
  }
}, 60_000);
