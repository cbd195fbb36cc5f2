import { describe, expect, it } from "vitest";
import { streamChat } from "../src/index.js";
import { serve, STREAM } from "./serve.js";

const ANSWER = 'event: token\ndata: Héllo 👩‍💻\n\nevent: token\ndata: \ndata: line two\n\nevent: done\ndata: {}\n\n';

describe("streamChat", () => {
  it("gives the same answer wherever the bytes are cut", async () => {
    const bytes = Buffer.from(ANSWER);
    for (let cut = 1; cut < bytes.length; cut++) {
      const body = new ReadableStream<Uint8Array>({
        start(controller) {
          controller.enqueue(bytes.subarray(0, cut));
          controller.enqueue(bytes.subarray(cut));
          controller.close();
        },
      });
      const tokens: string[] = [];
      const fake = async () => new Response(body, { headers: STREAM });
      const whole = await streamChat("x", (t) => tokens.push(t), { fetch: fake });
      expect(whole).toBe("Héllo 👩‍💻\nline two");
      expect(tokens).toEqual(["Héllo 👩‍💻", "\nline two"]);
    }
  });

  it("asks with the prompt as it is", async () => {
    let asked = "";
    const baseUrl = await serve((request, response) => {
      asked = new URL(request.url!, "http://x").searchParams.get("prompt")!;
      response.writeHead(200, STREAM).end("event: done\ndata: {}\n\n");
    });
    await streamChat("a&b=c ü\n#", () => undefined, { baseUrl });
    expect(asked).toBe("a&b=c ü\n#");
  });

  it("rejects when the stream ends without done", async () => {
    const baseUrl = await serve((_, response) => {
      response.writeHead(200, STREAM).end("event: token\ndata: half\n\n");
    });
    const got: string[] = [];
    const failed = streamChat("x", (t) => got.push(t), { baseUrl });
    await expect(failed).rejects.toMatchObject({ code: "truncated" });
    expect(got).toEqual(["half"]);
  });

  it("rejects with what an error event says", async () => {
    const baseUrl = await serve((_, response) => {
      response
        .writeHead(200, STREAM)
        .end('event: error\ndata: {"code":"overloaded","message":"try later"}\n\n');
    });
    await expect(streamChat("x", () => undefined, { baseUrl })).rejects.toMatchObject({
      code: "overloaded",
      message: "try later",
    });
  });

  it("rejects with the status when the server says no", async () => {
    const baseUrl = await serve((_, response) => {
      response.writeHead(429, { "retry-after": "7" }).end('{"code":"busy","message":"full"}');
    });
    await expect(streamChat("x", () => undefined, { baseUrl })).rejects.toMatchObject({
      status: 429,
      code: "busy",
      retryAfter: 7000,
    });
  });

  it("closes the connection on abort, and when the callback throws", async () => {
    let closed = 0;
    const open: (() => void)[] = [];
    const baseUrl = await serve((_, response) => {
      response.writeHead(200, STREAM).write("event: token\ndata: a\n\n");
      response.on("close", () => {
        closed++;
        open.splice(0).forEach((go) => go());
      });
    });
    const gone = () => new Promise<void>((go) => open.push(go));
    const abort = new AbortController();
    const first = gone();
    const aborted = streamChat("x", () => abort.abort(), { baseUrl, signal: abort.signal });
    await expect(aborted).rejects.toMatchObject({ name: "AbortError" });
    await first;
    const second = gone();
    const thrown = streamChat(
      "x",
      () => {
        throw new Error("mine");
      },
      { baseUrl },
    );
    await expect(thrown).rejects.toThrow("mine");
    await second;
    expect(closed).toBe(2);
  });
});
