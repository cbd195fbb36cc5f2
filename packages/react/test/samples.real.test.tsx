/* The samples of the guide and of the README, run as they stand, against a real server. */

import { act, cleanup, fireEvent, render, screen, waitFor } from "@testing-library/react";
import { mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { createElement, type ComponentType } from "react";
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from "vitest";
import { type Real, startServer } from "../../client/test/real.js";

const root = join(import.meta.dirname, "../../..");
/** Beside the tests, so that they are found as sources are. */
const place = join(import.meta.dirname, ".samples");
const WAIT = { timeout: 20_000 };

let server: Real;
let online = true;

beforeAll(async () => {
  server = await startServer();
  rmSync(place, { recursive: true, force: true });
  mkdirSync(place);
});
afterAll(async () => {
  rmSync(place, { recursive: true, force: true });
  await server.stop();
});
const real = globalThis.fetch;
afterEach(() => {
  cleanup();
  online = true;
});

/** The sample's component; its own origin is the server. */
async function sample(page: string, marker: string): Promise<ComponentType<{ thread: string }>> {
  const text = readFileSync(join(root, page), "utf8");
  const blocks = [...text.matchAll(/^```tsx\n([\s\S]*?)^```$/gm)].map(([, code]) => code!);
  const code = blocks.find((block) => block.includes(`export function ${marker}(`))!;
  const file = join(place, `${marker}-${page.replace(/\W/g, "-")}.tsx`);
  writeFileSync(file, code);
  const module = (await import(/* @vite-ignore */ file)) as Record<string, ComponentType<{ thread: string }>>;
  return module[marker]!;
}

vi.stubGlobal("fetch", (input: string | URL, init?: RequestInit) => {
  if (!online) return Promise.reject(new TypeError("fetch failed"));
  return real(new URL(String(input), server.url), init);
});

const SAMPLES = [
  ["docs/guide/browser.md", "App"],
  ["docs/guide/browser.md", "StoredChat"],
  ["packages/react/README.md", "Chat"],
] as const;

describe.each(SAMPLES)("%s: %s", (page, marker) => {
  let Sample: ComponentType<{ thread: string }>;
  let drawn = 0;
  let thread = "";
  beforeAll(async () => {
    Sample = await sample(page, marker);
  });

  const open = async (again = false) => {
    if (!again) thread = `sample-${marker}-${++drawn}`;
    location.hash = `#${thread}`;
    cleanup();
    await act(async () => void render(createElement(Sample, { thread })));
    await waitFor(() => expect(field().disabled).toBe(false), WAIT);
  };
  const field = () => screen.getByLabelText<HTMLInputElement>("Question");
  const ask = async (text: string) => {
    await act(async () => {
      fireEvent.change(field(), { target: { value: text } });
      fireEvent.submit(field().form!);
    });
  };
  const ready = () => waitFor(() => expect(field().disabled).toBe(false), WAIT);

  it("shows an error, and the form works again", async () => {
    await open();
    await ask("scenario:error?rate=2000");
    await waitFor(() => expect(screen.getAllByRole("alert").length).toBeGreaterThan(0), WAIT);
    await ready();
    await ask("scenario:length?rate=2000");
    await ready();
    expect(document.body.textContent!.length).toBeGreaterThan(60);
  });

  it("says why a start failed, and works again", async () => {
    await open();
    vi.spyOn(Math, "random").mockReturnValue(0.001);
    online = false;
    await ask("Hello");
    await waitFor(() => expect(screen.getAllByRole("alert").length).toBeGreaterThan(0), WAIT);
    await ready();
    online = true;
    vi.restoreAllMocks();
    await ask("scenario:text?rate=2000");
    await ready();
  });

  it.each(["Allow", "Deny"])("has buttons for an approval: %s", async (name) => {
    await open();
    await ask("scenario:approval?rate=2000");
    const button = await screen.findByRole("button", { name }, WAIT);
    await act(async () => void fireEvent.click(button));
    await waitFor(() => expect(screen.queryByRole("button", { name })).toBeNull(), WAIT);
    await ready();
    expect(screen.queryAllByRole("alert")).toEqual([]);
  });

  it("stops, and keeps the conversation over a reload", async () => {
    await open();
    await ask("scenario:slow?rate=20");
    await waitFor(() => expect(document.body.textContent).toContain("1 2 3"), WAIT);
    await act(async () => void fireEvent.click(screen.getByRole("button", { name: "Stop" })));
    await ready();
    await ask("scenario:text?rate=2000");
    await ready();
    const before = document.body.textContent;
    await open(true);
    await waitFor(() => expect(document.body.textContent).toContain("1 2 3"), WAIT);
    expect(document.body.textContent).toBe(before);
  });

  it("goes on reading the answer under way after a reload", async () => {
    await open();
    await ask("scenario:slow?rate=60");
    await waitFor(() => expect(document.body.textContent).toContain("1 2 3"), WAIT);
    cleanup();
    await act(async () => void render(createElement(Sample, { thread })));
    await waitFor(() => expect(document.body.textContent).toContain("88 89 90"), WAIT);
    expect(document.body.textContent).toContain("scenario:slow");
    expect(document.body.textContent!.match(/88 89 90/g)).toHaveLength(1);
    await ready();
  });
});
