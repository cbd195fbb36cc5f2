/* A document for tests that read from a real server: happy-dom's, with Node's own network, because a
page of happy-dom may not read from another origin. */

import { builtinEnvironments, type Environment } from "vitest/runtime";

const NETWORK = ["fetch", "Request", "Response", "Headers", "AbortController", "AbortSignal"] as const;

export default {
  name: "happy-dom with Node's network",
  viteEnvironment: "client",
  async setup(global, options) {
    const own = NETWORK.map((name) => [name, global[name]]);
    const made = await builtinEnvironments["happy-dom"].setup(global, options);
    Object.assign(global, Object.fromEntries(own));
    return made;
  },
} satisfies Environment;
