// @vitest-environment happy-dom
import { expect, it } from "vitest";
import { serverOf } from "../src/server.js";

it.each([
  ["https://you.example/", ""],
  ["https://you.example/dash", ""],
  ["https://you.example/index.html?x=1#t=a/b", ""],
  ["https://you.example/ai/", "https://you.example/ai"],
  ["https://you.example/ai/dash#t=a/b", "https://you.example/ai"],
  ["https://you.example:8443/team/ai/?next=/x/y", "https://you.example:8443/team/ai"],
])("finds the server of a page at %s", (address, server) => {
  expect(serverOf(address)).toBe(server);
});
