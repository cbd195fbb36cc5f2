/* How the sources lie: small folders, files of one screen's worth, imports that go one way. */

import { readdirSync, readFileSync } from "node:fs";
import { dirname, join, relative } from "node:path";
import { describe, expect, it } from "vitest";

const packages = join(import.meta.dirname, "../..");
const LONGEST_FILE = 500;
const MOST_FILES = 15;
/** A folder of the client imports from folders before it only; those of one row not each other. */
const LAYERS = [["core"], ["live"], ["state", "translate"], ["ai-sdk", "ag-ui", "threads", "testing"]];

const sourcesOf = (name: string) =>
  readdirSync(join(packages, name, "src"), { recursive: true, encoding: "utf8" }).filter((file) =>
    /\.tsx?$/.test(file),
  );

const importsOf = (name: string, file: string) => {
  const text = readFileSync(join(packages, name, "src", file), "utf8");
  const folder = join(packages, name, "src", dirname(file));
  return [...text.matchAll(/^(?:import|export|\} from)[^;"]*"(\.[^"]+)"/gm)].map(([, path]) =>
    relative(join(packages, name, "src"), join(folder, path!)).replace(/\.js$/, ""),
  );
};

describe.each(["client", "react", "page"])("packages/%s", (name) => {
  it("has folders and files that can be looked through", () => {
    const counts = new Map<string, number>();
    for (const file of sourcesOf(name)) {
      const lines = readFileSync(join(packages, name, "src", file), "utf8").split("\n").length - 1;
      if (!file.includes("generated")) expect([file, lines > LONGEST_FILE]).toEqual([file, false]);
      counts.set(dirname(file), (counts.get(dirname(file)) ?? 0) + 1);
    }
    expect(counts.size).toBeGreaterThan(0);
    for (const [folder, count] of counts) {
      expect([folder, count > MOST_FILES]).toEqual([folder, false]);
    }
  });

  it("has no files that need each other", () => {
    const imports = new Map(
      sourcesOf(name).map((file) => [file.replace(/\.tsx?$/, ""), importsOf(name, file)]),
    );
    const finished = new Set<string>();
    const visit = (file: string, path: string[]) => {
      if (path.includes(file)) throw new Error([...path, file].join(" -> "));
      if (finished.has(file)) return;
      for (const next of imports.get(file) ?? []) visit(next, [...path, file]);
      finished.add(file);
    };
    for (const file of imports.keys()) visit(file, []);
    expect(finished.size).toBeGreaterThanOrEqual(imports.size);
  });
});

it("the client's folders stand on each other in one order", () => {
  const rowOf = (path: string) => LAYERS.findIndex((row) => row.includes(path.split("/")[0]!));
  let seen = 0;
  for (const file of sourcesOf("client")) {
    if (!file.includes("/")) continue; // the entries may import everything
    expect([file, rowOf(file) >= 0]).toEqual([file, true]);
    for (const target of importsOf("client", file)) {
      const allowed = dirname(target) === dirname(file) || rowOf(target) < rowOf(file);
      expect([file, target, allowed]).toEqual([file, target, true]);
      seen++;
    }
  }
  expect(seen).toBeGreaterThan(30);
});
