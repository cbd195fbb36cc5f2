import { describe, expect, it } from "vitest";
import { toMessages } from "../../src/ai-sdk/messages.js";
import { readDataURL } from "../../src/state/data-url.js";

describe("a data URL", () => {
  it.each([
    ["data:image/png;base64,aGk=", "image/png", "aGk="],
    ["DATA:Image/PNG;BASE64,aGk", "image/png", "aGk="],
    ["data:text/plain;charset=utf-8;base64,aGk%3D", "text/plain", "aGk="],
    ["data:application/pdf;base64,-_-_", "application/pdf", "+/+/"],
    ["data:,hi%20there", "text/plain", btoa("hi there")],
    ["data:text/csv;charset=utf-8,a%2Cb", "text/csv", btoa("a,b")],
    ["data:image/svg+xml,%3Csvg/%3E#part", "image/svg+xml", btoa("<svg/>")],
    ["data:;base64,aGk=", undefined, "aGk="],
    ["data:,%ffü", "text/plain", btoa("\xff\xc3\xbc")],
  ])("%s is read", (url, type, data) => {
    expect(readDataURL(url)).toEqual({ type, data });
  });

  it.each(["data:image/png;base64,a", "data:image/png;base64,%%%", "data:x"])("%s harms only itself", (url) => {
    expect(readDataURL(url)).toBeNull();
    const file = { type: "file" as const, url, mediaType: "image/png", filename: "cat.png" };
    const messages = toMessages([
      { id: "1", role: "user", parts: [file] },
      { id: "2", role: "user", parts: [{ type: "text", text: "And now?" }] },
    ]);
    expect(messages[0]!.content).toEqual([{ type: "text", text: "[The file cat.png could not be read.]" }]);
    expect(messages[1]!.content).toEqual([{ type: "text", text: "And now?" }]);
  });

  it("is no other address", () => {
    expect(readDataURL("https://a.test/")).toBeUndefined();
  });
});
