// @vitest-environment happy-dom
/* The hooks against the stand-in for a server that users have: @tokenwire/client/testing. */

import { act, cleanup, renderHook, waitFor } from "@testing-library/react";
import { textOf } from "@tokenwire/client";
import { call, pause, ScriptedServer } from "@tokenwire/client/testing";
import { afterEach, expect, it, vi } from "vitest";
import { useApprovals, useChat, useRun } from "../src/index.js";

const patient = { timeout: 20_000 };

afterEach(() => {
  cleanup();
  vi.restoreAllMocks();
});

it("a run is shown while it is written", async () => {
  vi.spyOn(Math, "random").mockReturnValue(0); // come back at once
  const server = new ScriptedServer(["Hello", pause(), ", world"], { cuts: [{ events: 3, how: "error" }] });
  const client = server.client();
  const { id } = await client.start({ prompt: "x" });
  const { result } = renderHook(() => useRun(client, id));
  await waitFor(() => expect(textOf(result.current.state)).toBe("Hello"), patient);
  server.resume();
  await waitFor(() => expect(result.current.state.outcome).toBe("complete"), patient);
  expect(textOf(result.current.state)).toBe("Hello, world");
});

it("a chat asks, waits for a person, and goes on", async () => {
  const server = new ScriptedServer(["Shall I?", call("delete", { path: "x" }, { needsApproval: true }), "Done."]);
  const client = server.client();
  const { result } = renderHook(() => {
    const chat = useChat({ client });
    return { chat, approvals: useApprovals(chat.turns.at(-1)) };
  });
  await act(() => result.current.chat.send("Delete x"));
  await waitFor(() => expect(result.current.approvals).toHaveLength(1), patient);
  const [run] = server.runs;
  await act(async () => void (await client.approve(run!, "ap_call_1", { approved: true })));
  await waitFor(() => expect(server.events(run!).at(-1)?.type).toBe("run-end"), patient);
});
