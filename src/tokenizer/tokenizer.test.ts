import fc from "fast-check";
import { Tokenizer as HuggingFaceTokenizer } from "tokenizers";
import { beforeAll, expect, test } from "vitest";
import { parseTokenizer, type Tokenizer } from "./index.ts";
import { trainTokenizer } from "./node.ts";

const USER = "<｜User｜>";
const END = "<｜end▁of▁sentence｜>";

const TRAINING_TEXTS = [
  "The quick brown fox jumps over the lazy dog; the dog doesn't care, and the fox isn't there.\n\n".repeat(4),
  "混合专家模型把每个词元送到少数专家。专家模型很大，但是每个词元只用少数专家。\n".repeat(4),
  "export function sum(values: readonly number[]): number {\n  return values.reduce((a, b) => a + b, 0);\n}\n".repeat(
    4,
  ),
  "😀😀 👩‍👩‍👧 1234567890 3.14159 ключ ключи παράδειγμα カタカナ カタログ\t\t\r\n\r\n".repeat(4),
];

const SAMPLES = [
  "",
  "Hello, world! It's the fox's 1st of 12345678 jumps…",
  "你好，世界：混合专家模型MoE 用了256个专家。",
  "  if (x > 0) {\r\n\t\treturn `${x}`;\r\n  }\n\n\n",
  "👩‍👩‍👧‍👦 🇫🇷 e\u0301 क्षि ﷺ 𝒳",
  "\u0000\u0001\u001b[0m\ufeffBOM\u0085\u0085next\u00a0\u3000wide\u2028",
  `${USER}hi${END}${END}<｜User <｜User｜｜>`,
  "   \n  \t ",
];

const anyText = fc.oneof(
  fc.string({ unit: "binary", maxLength: 60 }),
  fc
    .array(fc.constantFrom(...SAMPLES, "the", " ", "\n", "9", "é", "你", "・", "、", "😀", USER), { maxLength: 12 })
    .map((parts) => parts.join("")),
);

let native: Tokenizer;
let plain: Tokenizer;
let reference: HuggingFaceTokenizer;

beforeAll(async () => {
  native = await trainTokenizer(TRAINING_TEXTS, { vocabSize: 420, specialTokens: [USER] });
  plain = parseTokenizer(JSON.parse(native.toJson()), JSON.parse(native.toConfigJson()));
  reference = HuggingFaceTokenizer.fromString(native.toJson());
});

async function expectSameIds(text: string): Promise<void> {
  const expected = (await reference.encode(text, null, { addSpecialTokens: false })).getIds().join(" ");
  expect(native.encode(text).join(" "), JSON.stringify(text)).toBe(expected);
  expect(plain.encode(text).join(" "), JSON.stringify(text)).toBe(expected);
}

test("the saved tokenizer encodes in Hugging Face tokenizers as here, native and plain", async () => {
  for (const text of SAMPLES) await expectSameIds(text);
  await fc.assert(fc.asyncProperty(anyText, expectSameIds), { numRuns: 500, seed: 2 });
});

test("decoding gives the text back, whatever it holds", () => {
  fc.assert(
    fc.property(anyText, (text) => {
      expect(native.decode(native.encode(text))).toBe(text);
      expect(native.decode(native.encode(text, { allowSpecial: false }))).toBe(text);
    }),
    { numRuns: 500, seed: 3 },
  );
});

test("an unpaired surrogate is read as U+FFFD, native and plain", () => {
  const ids = native.encode("a\ufffdb\ufffd");
  expect(native.encode("a\ud800b\udc00")).toEqual(ids);
  expect(plain.encode("a\ud800b\udc00")).toEqual(ids);
});

test("a long piece merges as Hugging Face tokenizers does", async () => {
  for (const unit of ["the", "👩‍👩‍👧", "专家模型", "-", " ", "\u0001"]) await expectSameIds(unit.repeat(700));
});

test("special tokens take the first ids, the bytes the next", () => {
  expect([native.bosId, native.eosId, native.padId, native.tokenToId(USER)]).toEqual([0, 1, 2, 3]);
  expect(native.tokenToId("!")).toBe(4);
  expect(native.tokenToId("nothing like this")).toBeUndefined();
  expect(native.vocabSize).toBe(420);
});

test("added tokens in text from outside are plain text", () => {
  const [userId] = native.encode(USER);
  expect(native.encode(`${USER}x`)).toContain(userId);
  expect(native.encode(`${USER}x`, { allowSpecial: false })).not.toContain(userId);
  expect(plain.encode(`${USER}x`, { allowSpecial: false })).toEqual(native.encode(`${USER}x`, { allowSpecial: false }));
});

test("begin-of-sentence is put in front when asked for", () => {
  expect([...native.encode("the", { addBos: true })]).toEqual([0, ...native.encode("the")]);
  expect(native.encodeMany(["the", ""], { addBos: true }).map((ids) => ids[0])).toEqual([0, 0]);
});

test("many texts give the ids that each gives alone", () => {
  const texts = Array.from({ length: 30 }, (_, i) => SAMPLES[i % SAMPLES.length]!.repeat(i));
  const alone = texts.map((text) => native.encode(text));
  expect(native.encodeMany(texts)).toEqual(alone);
  expect(plain.encodeMany(texts)).toEqual(alone);
});

test("skipSpecial leaves special tokens out", () => {
  expect(native.decode(native.encode(`the${END}dog`), { skipSpecial: true })).toBe("thedog");
});

test("decoding a stream never breaks a character and gives the same text", () => {
  fc.assert(
    fc.property(anyText, (text) => {
      const decoder = native.createDecoder();
      const parts = [...native.encode(text)].map((id) => decoder.push(id));
      expect([...parts, decoder.flush()].join("")).toBe(text);
      if (!text.includes("\ufffd")) expect(parts.join("")).not.toContain("\ufffd");
    }),
    { numRuns: 300, seed: 4 },
  );
});

test("a stream that ends inside a character ends with U+FFFD", () => {
  const decoder = native.createDecoder();
  const [first] = native.encode("𠀀");
  expect(decoder.push(first!)).toBe("");
  expect(decoder.flush()).toBe("\ufffd");
});

test("an id outside the vocabulary is refused", () => {
  expect(() => native.decode([3, 420])).toThrowErrorMatchingInlineSnapshot(
    `[ConfigError: tokenizer.decode: ids must be integers from 0 to 419, got 420]`,
  );
  expect(() => native.createDecoder().push(-1)).toThrowErrorMatchingInlineSnapshot(
    `[ConfigError: tokenizer.decode: ids must be integers from 0 to 419, got -1]`,
  );
});
