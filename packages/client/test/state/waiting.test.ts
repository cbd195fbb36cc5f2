import { expect, test } from "vitest";
import { approvalLink, revokeLinks, waiting } from "../../src/state/waiting.js";

const RUN = "a-run-of-sixteen-or-more";

function client(reply: unknown) {
  const sent: unknown[][] = [];
  return { sent, json: (...call: unknown[]) => (sent.push(call), Promise.resolve(reply)) };
}

test("a page is asked for with what chooses it, and nothing that is empty", async () => {
  const page = { waiting: [], next: null };
  const one = client(page);
  expect(await waiting(one)).toBe(page);
  await waiting(one, { limit: 2, after: "1.2&x", thread: "a b", tool: "" });
  expect(one.sent.map((call) => call.slice(0, 2))).toEqual([
    ["GET", "/v1/waiting"],
    ["GET", "/v1/waiting?limit=2&after=1.2%26x&thread=a+b"],
  ]);
});

test("links are made and revoked where the approval is, and nowhere else", async () => {
  const one = client(null);
  await approvalLink(one, RUN, "ap_1:x", { decision: "deny", ttl: 60 });
  await revokeLinks(one, RUN, "ap_1:x");
  const path = `/v1/runs/${RUN}/approvals/ap_1%3Ax/links`;
  expect(one.sent).toEqual([
    ["POST", path, { decision: "deny", ttl: 60 }],
    ["DELETE", path],
  ]);
  for (const bad of ["", "..", "a/b", "a?b", "a b"]) {
    await expect((async () => approvalLink(one, RUN, bad))()).rejects.toThrow("invalid approval id");
  }
  await expect((async () => approvalLink(one, "..", "ap"))()).rejects.toThrow();
});
