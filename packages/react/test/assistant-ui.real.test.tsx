/* assistant-ui's own components on our runtime, against a real server behind a proxy that cuts. */

import {
  AssistantRuntimeProvider,
  BranchPickerPrimitive,
  ComposerPrimitive,
  MessagePrimitive,
  ThreadPrimitive,
  useAssistantTool,
  type AssistantRuntime,
  type ToolCallMessagePartProps,
} from "@assistant-ui/react";
import { TokenwireClient } from "@tokenwire/client";
import { screen, waitFor } from "@testing-library/react";
import { StrictMode, type ReactNode } from "react";
import { createRoot, type Root } from "react-dom/client";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it, vi } from "vitest";
import { type Proxy, type Real, startProxy, startServer } from "../../client/test/real.js";
import { useTokenwireRuntime, type RuntimeOptions } from "../src/assistant-ui.js";

const SLOW = "scenario:slow?rate=90";
const NUMBERS = Array.from({ length: 90 }, (_, n) => `${n + 1} `).join("");

let server: Real;
let proxy: Proxy;
let client: TokenwireClient;

beforeAll(async () => {
  vi.stubGlobal("IS_REACT_ACT_ENVIRONMENT", false);
  server = await startServer();
});
afterAll(() => server.stop());
beforeEach(async () => {
  proxy = await startProxy(server.url, (n) => 900 + 400 * n);
  client = new TokenwireClient({ baseUrl: proxy.url, shareTabs: false });
  vi.spyOn(Math, "random").mockImplementation(() => (drawn = (drawn + 0.000_001) % 0.001));
});
afterEach(async () => {
  for (const root of roots.splice(0)) root.unmount();
  vi.restoreAllMocks();
  await proxy.stop();
});

const roots: Root[] = [];
let drawn = 0;
let threads = 0;
let runtime: AssistantRuntime;
const drawnTexts: string[] = [];

function Text({ text }: { text: string }): ReactNode {
  drawnTexts.push(text);
  return <p>{text}</p>;
}

function Tool(props: ToolCallMessagePartProps): ReactNode {
  const { toolName, argsText, result, approval, isError, respondToApproval } = props;
  return (
    <section data-tool={toolName} data-error={isError}>
      <pre>{argsText}</pre>
      {result !== undefined && <output>{JSON.stringify(result)}</output>}
      {approval && approval.approved === undefined && (
        <>
          <button onClick={() => void respondToApproval({ approved: true })}>Allow</button>
          <button onClick={() => void respondToApproval({ approved: false, reason: "no" })}>Deny</button>
        </>
      )}
    </section>
  );
}

const parts = { Text, tools: { Fallback: Tool } };

function Said({ role }: { role: string }): ReactNode {
  return (
    <MessagePrimitive.Root>
      <div data-role={role}>
        <MessagePrimitive.Parts components={parts} />
      </div>
      <MessagePrimitive.Error />
      <BranchPickerPrimitive.Root hideWhenSingleBranch>
        <BranchPickerPrimitive.Previous>Before {role}</BranchPickerPrimitive.Previous>
        <BranchPickerPrimitive.Number />/<BranchPickerPrimitive.Count />
      </BranchPickerPrimitive.Root>
    </MessagePrimitive.Root>
  );
}

const components = {
  UserMessage: () => <Said role="user" />,
  AssistantMessage: () => <Said role="assistant" />,
};

function App({ children, ...options }: Partial<RuntimeOptions> & { children?: ReactNode }): ReactNode {
  runtime = useTokenwireRuntime({ client, ...options });
  return (
    <AssistantRuntimeProvider runtime={runtime}>
      {children}
      <ThreadPrimitive.Root>
        <ThreadPrimitive.Messages components={components} />
        <ComposerPrimitive.Root>
          <ComposerPrimitive.Input placeholder="Ask" />
          <ComposerPrimitive.Send>Send</ComposerPrimitive.Send>
          <ComposerPrimitive.Cancel>Stop</ComposerPrimitive.Cancel>
        </ComposerPrimitive.Root>
      </ThreadPrimitive.Root>
    </AssistantRuntimeProvider>
  );
}

/** Drawn as an application draws it: nothing here waits for React. */
function opened(options: Partial<RuntimeOptions> = {}, children?: ReactNode) {
  const thread = options.thread ?? `thread-${++threads}`;
  document.body.innerHTML = "<main></main>";
  const root = createRoot(document.querySelector("main")!);
  roots.push(root);
  root.render(
    <StrictMode>
      <App {...options} thread={thread}>
        {children}
      </App>
    </StrictMode>,
  );
  return { thread, unmount: () => root.unmount() };
}

async function ask(text: string): Promise<void> {
  const send = await screen.findByText("Send");
  runtime.thread.composer.setText(text);
  await waitFor(() => expect(send.hasAttribute("disabled")).toBe(false), WAIT);
  send.click();
}

const said = (role: string) =>
  [...document.querySelectorAll(`[data-role=${role}]`)].map((one) => one.textContent ?? "");
const messages = () => runtime.thread.getState().messages;
const idle = () => waitFor(() => expect(runtime.thread.getState().isRunning).toBe(false), WAIT);
const WAIT = { timeout: 30_000 };

async function runsOf(thread: string) {
  const { runs } = await new TokenwireClient({ baseUrl: server.url }).thread(thread);
  return runs.map(({ state }) => state);
}

describe("useTokenwireRuntime", () => {
  it("streams an answer over cuts, and draws finished ones no more", async () => {
    const { thread } = opened();
    await ask("Hello");
    await waitFor(() => expect(said("assistant")[0]).toContain("You asked"), WAIT);
    const first = said("assistant")[0]!;
    await idle();
    drawnTexts.length = 0;
    await ask(SLOW);
    await waitFor(() => expect(said("assistant")[1]).toBe(NUMBERS), WAIT);
    await idle();
    expect(proxy.cuts()).toBeGreaterThan(2);
    expect(said("user")).toEqual(["Hello", SLOW]);
    expect(new Set(drawnTexts).size).toBeGreaterThan(1);
    expect(drawnTexts.filter((text) => text === first)).toEqual([]);
    expect(messages().map(({ status }) => status?.type)).toEqual([undefined, "complete", undefined, "complete"]);
    expect(await runsOf(thread)).toEqual(["complete", "complete"]);
  });

  it("shows the conversation and the answer under way to a page that is loaded again", async () => {
    const { thread, unmount } = opened();
    await ask(SLOW);
    await waitFor(() => expect(said("assistant")[0]!.length).toBeGreaterThan(5), WAIT);
    unmount();
    opened({ thread });
    await waitFor(() => expect(said("assistant")[0]).toBe(NUMBERS), WAIT);
    // The question is read by a request of its own, which may come after the answer's stream.
    await waitFor(() => expect(said("user")).toEqual([SLOW]), WAIT);
    await idle();
    expect(await runsOf(thread)).toEqual(["complete"]);
  });

  it("stops the run", async () => {
    const { thread } = opened();
    await ask("scenario:stall");
    await waitFor(() => expect(said("assistant")[0]!.length).toBeGreaterThan(5), WAIT);
    screen.getByText("Stop").click();
    await idle();
    await waitFor(() => expect(messages()[1]!.status).toEqual({ type: "incomplete", reason: "cancelled" }), WAIT);
    expect(await runsOf(thread)).toEqual(["cancelled"]);
    expect(said("user")).toEqual(["scenario:stall"]);
  });

  it("draws tool calls, and answers an approval in the same run", async () => {
    for (const [button, result] of [["Allow", "deleted"], ["Deny", "denied"]] as const) {
      const { thread, unmount } = opened();
      await ask("scenario:approval?rate=500");
      const choice = await screen.findByText(button, undefined, WAIT);
      await waitFor(() => expect(messages()[1]!.status).toEqual({ type: "requires-action", reason: "interrupt" }), WAIT);
      expect(document.querySelector("[data-tool=delete_file] pre")!.textContent).toContain("report.txt");
      choice.click();
      await waitFor(() => expect(document.querySelector("output")?.textContent).toContain(result), WAIT);
      await waitFor(() => expect(messages()[1]!.status?.type).toBe("complete"), WAIT);
      expect(screen.queryByText(button)).toBeNull();
      expect(await runsOf(thread)).toEqual(["complete"]);
      unmount();
    }
  });

  it("runs the tools of the page", async () => {
    const execute = vi.fn(async () => ({ city: "Lyon" }));
    function Locate(): null {
      useAssistantTool({
        toolName: "locate",
        type: "frontend",
        description: "Tell where the person is.",
        parameters: { type: "object", properties: {} },
        execute,
      });
      return null;
    }
    const { thread } = opened({}, <Locate />);
    await ask("Please locate me.");
    await waitFor(() => expect(document.querySelector("output")?.textContent).toBe('{"city":"Lyon"}'), WAIT);
    await waitFor(() => expect(messages()[1]!.status?.type).toBe("complete"), WAIT);
    expect(execute).toHaveBeenCalledTimes(1);
    expect(await runsOf(thread)).toEqual(["complete"]);
    // Asked again, the model has the tool again.
    void runtime.thread.getMessageByIndex(1).reload();
    await waitFor(() => expect(execute).toHaveBeenCalledTimes(2), WAIT);
    await waitFor(() => expect(messages()[1]!.status?.type).toBe("complete"), WAIT);
  });

  it("makes branches of answers and of questions", async () => {
    const { thread } = opened();
    await ask("Hello");
    await waitFor(() => expect(messages()[1]?.status?.type).toBe("complete"), WAIT);
    const answer = messages()[1]!.id;
    void runtime.thread.getMessageById(answer).reload();
    await waitFor(() => expect(messages()[1]!.id).not.toBe(answer), WAIT);
    await waitFor(() => expect(messages()[1]!.status?.type).toBe("complete"), WAIT);
    expect(messages()).toHaveLength(2);
    expect(screen.getByText("Before assistant")).toBeTruthy();
    expect(screen.queryByText("Before user")).toBeNull();
    screen.getByText("Before assistant").click();
    await waitFor(() => expect(messages()[1]!.id).toBe(answer));

    const editor = runtime.thread.getMessageByIndex(0).composer;
    editor.beginEdit();
    editor.setText("scenario:length?rate=500");
    editor.send();
    await waitFor(() => expect(said("user")).toEqual(["scenario:length?rate=500"]), WAIT);
    await waitFor(() => expect(messages()[1]!.status).toEqual({ type: "incomplete", reason: "length" }), WAIT);
    expect(await runsOf(thread)).toHaveLength(3);
    screen.getByText("Before user").click();
    await waitFor(() => expect(said("user")).toEqual(["Hello"]));
  });

  it("sends files, and shows them again after a reload", async () => {
    const { thread, unmount } = opened();
    await screen.findByText("Send");
    const image = "data:image/png;base64,iVBORw0KGgo=";
    const file = { type: "file", data: "aGk=", mimeType: "text/plain", filename: "a.txt" } as const;
    const text = { type: "text", text: "What is this?" } as const;
    runtime.thread.append({ role: "user", content: [text, { type: "image", image }, file] });
    await waitFor(() => expect(messages()[1]?.status?.type).toBe("complete"), WAIT);
    const run = (await client.thread(thread)).runs[0]!.id;
    const { input } = await client.snapshot(run);
    const content = [
      text,
      { type: "file", media_type: "image/png", data: "iVBORw0KGgo=" },
      { type: "file", media_type: "text/plain", data: "aGk=", name: "a.txt" },
    ];
    expect(input).toEqual([{ id: `${run}.0`, role: "user", content }]);
    unmount();
    opened({ thread });
    await waitFor(() => expect(said("user")[0]).toContain("What is this?"), WAIT);
    await waitFor(() => expect(messages()[0]!.content).toMatchObject([text, { type: "image", image }, file]), WAIT);
  });

  it("says why an answer failed", async () => {
    opened({ model: "no-such-model" });
    await ask("Hello");
    await waitFor(() => expect(messages()[1]?.status).toMatchObject({ type: "incomplete", reason: "error" }), WAIT);
    expect(said("user")).toEqual(["Hello"]);
  });

  it("lists, opens, names and erases conversations", async () => {
    const onThread = vi.fn();
    const { thread } = opened({ onThread });
    await ask("Hello");
    await waitFor(() => expect(messages()[1]?.status?.type).toBe("complete"), WAIT);
    void runtime.threads.switchToNewThread();
    await waitFor(() => expect(messages()).toHaveLength(0));
    await ask("scenario:refusal?rate=500");
    await waitFor(() => expect(messages()[1]?.status?.type).toBe("complete"), WAIT);
    expect(said("user")).toEqual(["scenario:refusal?rate=500"]);
    const newer = onThread.mock.lastCall![0] as string;
    const listed = () => runtime.threads.getState().threadItems;
    await waitFor(() => expect(Object.keys(listed())).toEqual(expect.arrayContaining([thread, newer])), WAIT);
    void runtime.threads.switchToThread(thread);
    await waitFor(() => expect(said("user")).toEqual(["Hello"]), WAIT);
    void runtime.threads.getItemById(thread).rename("Greeting");
    void runtime.threads.getItemById(newer).delete();
    await waitFor(async () => expect(await runsOf(newer)).toEqual([]), WAIT);
    const kept = (await client.json("GET", "/v1/threads")) as { threads: { thread: string; title: string }[] };
    const titles = new Map(kept.threads.map((one) => [one.thread, one.title]));
    expect([titles.get(thread), titles.has(newer)]).toEqual(["Greeting", false]);
  });
});
