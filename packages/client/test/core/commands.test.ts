/* Commands whose reply was lost: sent again, and a refusal of the second is success only where the
first may be what it names. */

import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { TokenwireClient } from "../../src/index.js";

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

const RUN = "run_0000000000000001";

/** A client whose server answers with each of `replies` in turn; null: the reply is lost. */
function client(...replies: ([number, object] | null)[]) {
  const paths: string[] = [];
  const fetch: typeof globalThis.fetch = async (input) => {
    paths.push(new URL(String(input)).pathname);
    const reply = replies.shift();
    if (!reply) throw new TypeError("fetch failed");
    return new Response(JSON.stringify(reply[1]), { status: reply[0] });
  };
  return { subject: new TokenwireClient({ baseUrl: "http://x", fetch }), paths };
}

const refused = (reason?: string): [number, object] => [
  409,
  { error: { code: "conflict", message: "no", reason } },
];
const COMMANDS: [string, (subject: TokenwireClient) => Promise<unknown>][] = [
  ["an approval", (subject) => subject.approve(RUN, "a1", { approved: true })],
  ["a tool's result", (subject) => subject.answerTool(RUN, "c1", "18")],
];

/** What becomes of a command, with all its pauses. */
async function outcome(command: Promise<unknown>): Promise<unknown> {
  const settled = command.catch((error: unknown) => error);
  await vi.runAllTimersAsync();
  return settled;
}

describe.each(COMMANDS)("%s", (_, send) => {
  it("says whether the run has it", async () => {
    const reply = { id: RUN, taken: false };
    expect(await outcome(send(client([202, reply]).subject))).toEqual(reply);
  });

  it("that was taken although its reply was lost is no error", async () => {
    const { subject, paths } = client(null, refused());
    expect(await outcome(send(subject))).toBeNull();
    expect(paths).toHaveLength(2);
    expect(paths[1]).toBe(paths[0]);
  });

  it("that is answered the second time brings that answer", async () => {
    const reply = { id: RUN, taken: true };
    expect(await outcome(send(client(null, null, [202, reply]).subject))).toEqual(reply);
  });

  it.each(["run_ended", "expired", "server_tool", "one of a later release"])(
    "that is refused as %s was not taken, with and without a lost reply",
    async (reason) => {
      for (const lost of [[], [null], [null, null]]) {
        const { subject, paths } = client(...lost, refused(reason));
        expect(await outcome(send(subject))).toMatchObject({ code: "conflict", status: 409, reason });
        expect(paths).toHaveLength(lost.length + 1);
      }
    },
  );

  it("that somebody else's was before is an error, once", async () => {
    const { subject, paths } = client(refused());
    expect(await outcome(send(subject))).toMatchObject({ status: 409, reason: undefined });
    expect(paths).toHaveLength(1);
  });

  it("that is refused in another way after a lost reply is an error", async () => {
    const { subject } = client(null, [404, { error: { code: "unknown_run", message: "gone" } }]);
    expect(await outcome(send(subject))).toMatchObject({ code: "unknown_run", status: 404 });
  });
});

it("a run that is gone after a lost reply to its deletion was deleted", async () => {
  const gone: [number, object] = [404, { error: { code: "unknown_run", message: "gone" } }];
  expect(await outcome(client(null, gone).subject.delete(RUN))).toBeNull();
  expect(await outcome(client(gone).subject.delete(RUN))).toMatchObject({ status: 404 });
});
