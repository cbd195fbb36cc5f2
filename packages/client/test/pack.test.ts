/* The packages as they are published: what is in them, and that a program outside can use them.
`npm pack` builds them, so a clone without a build gives whole packages. */

import { execFileSync } from "node:child_process";
import { cpSync, existsSync, mkdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";

const root = join(import.meta.dirname, "../../..");
const place = join(root, "node_modules/.tokenwire-packed");
const run = (command: string, args: string[], cwd = root) => {
  try {
    return execFileSync(command, args, { cwd, encoding: "utf8", stdio: "pipe" });
  } catch (error) {
    const { stdout, stderr } = error as { stdout: string; stderr: string };
    throw new Error(`${command} ${args.join(" ")}\n${stdout}\n${stderr}`);
  }
};

interface Manifest {
  name: string;
  exports: Record<string, { types: string; import: string; default: string } | string>;
}
const manifest = (name: string) =>
  JSON.parse(readFileSync(join(root, "packages", name, "package.json"), "utf8")) as Manifest;

const entriesOf = (name: string) =>
  Object.keys(manifest(name).exports).filter((entry) => entry !== "./package.json");

const files = new Map<string, string[]>();

/** What a clone has: no build, and the packages side by side. */
function clone(into: string): void {
  const whole = (path: string) => !/[\\/](dist|node_modules|test)$/.test(path);
  for (const name of ["client", "react"]) {
    cpSync(join(root, "packages", name), join(into, name), { recursive: true, filter: whole });
  }
  mkdirSync(join(into, "react/node_modules/@tokenwire"), { recursive: true });
  symlinkSync(join(into, "client"), join(into, "react/node_modules/@tokenwire/client"), "dir");
}

beforeAll(() => {
  rmSync(place, { recursive: true, force: true });
  clone(join(place, "clone"));
  for (const name of ["react", "client"]) {
    const into = join(place, "node_modules/@tokenwire", name);
    mkdirSync(into, { recursive: true });
    const pack = ["pack", "--json", "--silent", "--pack-destination", place];
    const [packed] = JSON.parse(run("npm", pack, join(place, "clone", name))) as {
      filename: string;
      files: { path: string }[];
    }[];
    files.set(name, packed!.files.map(({ path }) => path));
    run("tar", ["xzf", join(place, packed!.filename), "-C", into, "--strip-components=1"]);
  }
}, 120_000);
afterAll(() => rmSync(place, { recursive: true, force: true }));

describe.each(["client", "react"])("@tokenwire/%s", (name) => {
  it("has what was built and says what it is, and nothing else", () => {
    const [built, others] = [/^dist\/([\w-]+\/)?[\w.-]+\.(js|d\.ts)$/, ["LICENSE", "README.md", "package.json"]];
    const packed = files.get(name)!;
    expect(packed.filter((path) => !built.test(path)).sort()).toEqual(others);
    expect(packed.filter((path) => built.test(path)).length).toBeGreaterThan(4);
  });

  it("has every file that it exports", () => {
    for (const target of Object.values(manifest(name).exports)) {
      for (const path of typeof target === "string" ? [target] : Object.values(target)) {
        expect([path, existsSync(join(place, "node_modules/@tokenwire", name, path))]).toEqual([path, true]);
      }
    }
  });
});

it("are found by a program outside, by its types and when it runs", () => {
  const entries = ["client", "react"].flatMap((name) =>
    entriesOf(name).map((entry) => `@tokenwire/${name}${entry.slice(1)}`),
  );
  expect(entries).toContain("@tokenwire/react/assistant-ui");
  const lines = entries.map((entry, at) => `import * as entry${at} from ${JSON.stringify(entry)};`);
  const used = `for (const [name, value] of Object.entries({ ${entries.map((_, at) => `entry${at}`).join(", ")} })) {
  if (!Object.keys(value).length) throw new Error(name + " is empty");
}
const answer: Promise<string> = entry0.streamChat("x", () => undefined, { fetch: async () => new Response("") });
await answer.catch(() => undefined);
`;
  writeFileSync(join(place, "package.json"), '{"type":"module"}');
  const readmes = ["client", "react"].flatMap((name) => {
    const text = readFileSync(join(root, "packages", name, "README.md"), "utf8");
    return [...text.matchAll(/^```(tsx?)\n([\s\S]*?)^```$/gm)].map(([, kind, code], at) => {
      writeFileSync(join(place, `${name}${at}.${kind}`), code!);
      return `${name}${at}.${kind}`;
    });
  });
  expect(readmes).toEqual(["client0.ts", "react0.tsx"]);
  writeFileSync(join(place, "program.ts"), [...lines, used].join("\n"));
  const compilerOptions = {
    target: "es2022",
    lib: ["es2023", "dom", "dom.iterable", "dom.asynciterable"],
    jsx: "react-jsx",
    strict: true,
    skipLibCheck: true,
    noEmit: true,
    outDir: ".",
    types: [],
  };
  const ways = [
    { module: "nodenext", noEmit: false },
    { module: "node16", exactOptionalPropertyTypes: true },
    { module: "esnext", moduleResolution: "bundler", exactOptionalPropertyTypes: true, noUncheckedIndexedAccess: true },
  ];
  for (const way of ways) {
    const options = { ...compilerOptions, ...way };
    writeFileSync(join(place, "tsconfig.json"), JSON.stringify({ compilerOptions: options, files: ["program.ts", ...readmes] }));
    run("npx", ["tsc", "-p", place]);
  }
  run("node", ["program.js"], place);
  // What is required is what is imported: Node loads modules both ways.
  const required = entries.map((entry) => `if (!Object.keys(require(${JSON.stringify(entry)})).length) throw new Error(${JSON.stringify(entry)});`);
  const versions = ["client", "react"].map((name) => `require("@tokenwire/${name}/package.json").version.length > 4 || process.exit(7);`);
  writeFileSync(join(place, "program.cjs"), [...required, ...versions].join("\n"));
  run("node", ["program.cjs"], place);
}, 120_000);

/** The Node 22 that tests/node installs, whatever Node runs this. */
const node22 = ["x64", "arm64"]
  .map((cpu) => join(root, `tests/node/node_modules/node22-${cpu}/bin/node`))
  .find(existsSync);

it("are required and imported by Node 22, each entry for itself", ({ skip }) => {
  if (!node22) skip("tests/node is not installed, or has no Node 22 for this machine");
  expect(run(node22!, ["--version"])).toMatch(/^v22\./);
  for (const name of ["client", "react"]) {
    for (const entry of entriesOf(name)) {
      const module = JSON.stringify(`@tokenwire/${name}${entry.slice(1)}`);
      const [required, imported] = [
        ["entry.cjs", `console.log(Object.keys(require(${module})).sort().join())`],
        ["entry.mjs", `import * as all from ${module}; console.log(Object.keys(all).sort().join())`],
      ].map(([file, program]) => {
        writeFileSync(join(place, file!), program!);
        return run(node22!, ["--no-warnings", file!], place).trim();
      });
      expect([module, required!.split(",").filter((one) => one !== "__esModule").join()]).toEqual([module, imported]);
      expect(imported!.length).toBeGreaterThan(2);
    }
    const version = `console.log(require("@tokenwire/${name}/package.json").version)`;
    expect(run(node22!, ["-e", version], place)).toMatch(/^\d+\.\d+/);
  }
}, 120_000);

it("says in Node that the server's address is missing", () => {
  const program = `import { streamChat, TokenwireClient } from "@tokenwire/client";
await new TokenwireClient().thread("x").catch((error) => console.log(error.code, error.message));
await streamChat("x", () => undefined).catch((error) => console.log(error.code));
new TokenwireClient({ baseUrl: "http://127.0.0.1:1" });`;
  writeFileSync(join(place, "address.mjs"), program);
  expect(run("node", ["address.mjs"], place).trim().split("\n")).toEqual([
    "no_base_url outside a browser give baseUrl",
    "no_base_url",
  ]);
});
