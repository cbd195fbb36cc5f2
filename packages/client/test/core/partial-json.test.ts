import { describe, expect, it } from "vitest";
import { PartialJSON } from "../../src/core/partial-json.js";

const WHOLE = [
  '{"city":"Paris","n":[1,2.5,-3e2,{"deep":[[]]}],"ok":true,"no":null,"e":""}',
  '"a \\"quoted\\" \\u00e9\\ud83d\\ude00\\n line"',
  "[ ]",
  " { \"a\" : [ true , false ] } ",
  "-12.5",
  '{"__proto__":{"x":1},"constructor":2,"0":3}',
];

describe("PartialJSON", () => {
  it("reads whole texts as JSON.parse does, however they are cut", () => {
    for (const text of WHOLE) {
      for (const step of [1, 2, 5, 1000]) {
        const reader = new PartialJSON();
        for (let at = 0; at < text.length; at += step) {
          reader.feed(text.slice(at, at + step));
          void reader.value;
        }
        expect(reader.value).toEqual(JSON.parse(text));
        expect(reader.complete).toBe(true);
      }
    }
    expect(({} as { x?: number }).x).toBeUndefined();
  });

  it("shows what is there so far", () => {
    const at = (text: string) => new PartialJSON().feed(text).value;
    expect(at("")).toBeUndefined();
    expect(at('{"a')).toEqual({});
    expect(at('{"a":')).toEqual({});
    expect(at('{"a":"x')).toEqual({ a: "x" });
    expect(at('{"a":"x\\')).toEqual({ a: "x" });
    expect(at('{"a":[1,2')).toEqual({ a: [1, 2] });
    expect(at('{"a":12.')).toEqual({ a: 12 });
    expect(at('{"a":tru')).toEqual({});
  });

  it("gives snapshots that stay, and share what was finished", () => {
    const text = '{"__proto__":{"x":1},"days":[{"n":1,"at":["a","b"]},{"n":2}],"end":"of it"}';
    for (const size of [1, 3, 7]) {
      const reader = new PartialJSON();
      const kept: [unknown, string][] = [];
      for (let at = 0; at < text.length; at += size) {
        const shown = reader.feed(text.slice(at, at + size)).snapshot();
        expect(reader.feed("").snapshot()).toBe(shown);
        kept.push([shown, JSON.stringify(shown) ?? ""]);
      }
      for (const [shown, before] of kept) expect(JSON.stringify(shown) ?? "").toBe(before);
      expect(reader.snapshot()).toEqual(JSON.parse(text));
    }
    const reader = new PartialJSON();
    type Trip = { days: { n: number }[]; end: string };
    const one = reader.feed('{"days":[{"n":1},{"n":').snapshot() as Trip;
    const two = reader.feed("2}],").snapshot() as Trip;
    const three = reader.feed('"end":"x').snapshot() as Trip;
    expect([one.days[1], two.days[1]]).toEqual([{}, { n: 2 }]);
    expect(two.days[0]).toBe(one.days[0]);
    expect(two.days).not.toBe(one.days);
    expect(three.days).toBe(two.days);
    expect(three).not.toBe(two);
  });

  it("stops at what is no JSON, and keeps what came before", () => {
    const reader = new PartialJSON().feed('{"a":1} and more');
    expect(reader.value).toEqual({ a: 1 });
    expect(reader.complete).toBe(false);
    expect(new PartialJSON().feed("[".repeat(10000)).complete).toBe(false);
    expect(new PartialJSON().feed("{]").complete).toBe(false);
    expect(new PartialJSON().feed("[01]").complete).toBe(false);
  });
});
