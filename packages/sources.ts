/* Where the sources of the packages' entries are: tests and the page use them, not what is built.
The entries are those of the packages' `exports`, so there is one list. */

import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";

const path = (name: string) => fileURLToPath(new URL(name, import.meta.url));

interface Manifest {
  name: string;
  exports: Record<string, { import: string } | string>;
}

function entriesOf(folder: string): { find: RegExp; replacement: string }[] {
  const { name, exports } = JSON.parse(readFileSync(path(`${folder}/package.json`), "utf8")) as Manifest;
  return Object.entries(exports).flatMap(([entry, target]) => {
    if (typeof target === "string") return [];
    const source = target.import.replace("./dist/", `${folder}/src/`).replace(/\.js$/, ".ts");
    return [{ find: new RegExp(`^${name}${entry.slice(1)}$`), replacement: path(source) }];
  });
}

/** For `resolve.alias` of Vite and Vitest. */
export const sources = ["client", "react"].flatMap(entriesOf);
