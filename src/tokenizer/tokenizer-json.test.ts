import { Tokenizer as HuggingFaceTokenizer } from "tokenizers";
import { expect, test } from "vitest";
import { ALPHABET_BYTES, BYTE_CHARACTERS } from "./byte-alphabet.ts";
import { parseTokenizer } from "./index.ts";
import { TokenTable } from "./token-table.ts";
import { formatTokenizerJson } from "./tokenizer-json.ts";

type Json = Record<string, unknown>;

const BYTES = ALPHABET_BYTES.map((byte) => BYTE_CHARACTERS[byte]!);
const SPECIAL = ["<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"];
const TOKENS = [...SPECIAL, ...BYTES, "th", "the"];

function validJson(): { root: Json; model: Json } {
  const id = (token: string): number => TOKENS.indexOf(token);
  const merges = ["t", "h", "th", "th", "e", "the"].map(id);
  const added = SPECIAL.map((content) => ({ id: id(content), content, special: true }));
  const tokens = new TokenTable(TOKENS.length);
  TOKENS.forEach((token, i) => tokens.spell(i, token));
  const vocabulary = {
    preTokenizer: "deepseek-v3" as const,
    tokens,
    nModelTokens: TOKENS.length,
    merges: Uint32Array.from(merges),
    added,
    bosId: 0,
    eosId: 1,
    padId: 1,
    addBos: true,
  };
  const root = JSON.parse(formatTokenizerJson(vocabulary)) as Json;
  return { root, model: root["model"] as Json };
}

function parseWith(change: (json: { root: Json; model: Json }) => void, config?: unknown): unknown {
  const json = validJson();
  change(json);
  return parseTokenizer(json.root, config);
}

test("a valid file parses; end-of-sentence stands in for a missing pad token", () => {
  const tokenizer = parseTokenizer(validJson().root);
  expect([...tokenizer.encode("the th")]).toEqual([259, 2 + ALPHABET_BYTES.indexOf(0x20), 258]);
  expect([tokenizer.bosId, tokenizer.eosId, tokenizer.padId]).toEqual([0, 1, 1]);
});

test("merges may be written as strings, as older files do", () => {
  const tokenizer = parseWith(({ model }) => (model["merges"] = ["t h", "th e"])) as ReturnType<typeof parseTokenizer>;
  expect([...tokenizer.encode("the")]).toEqual([259]);
});

test("tokens after the model's vocabulary are added ones, special or not", () => {
  const user = { id: 260, content: "<｜User｜>", special: false };
  const tokenizer = parseWith(({ root }) => (root["added_tokens"] as unknown[]).push(user)) as ReturnType<
    typeof parseTokenizer
  >;
  expect([...tokenizer.encode("the<｜User｜>")]).toEqual([259, 260]);
  expect(tokenizer.decode([0, 260, 259], { skipSpecial: true })).toBe("<｜User｜>the");
});

test.each(["in model.vocab", "behind it"])("an added token %s stands for its own letters", (place) => {
  const content = "<caf\u00e9>";
  const tokenizer = parseWith(({ root, model }) => {
    (root["added_tokens"] as unknown[]).push({ id: 260, content, special: false });
    if (place === "in model.vocab") (model["vocab"] as Json)[content] = 260;
  }) as ReturnType<typeof parseTokenizer>;
  expect([...tokenizer.encode(`the${content}`)]).toEqual([259, 260]);
  expect(tokenizer.decode([260])).toBe(content);
});

test("the roles are taken from tokenizer_config.json, as strings or objects", () => {
  const config = { bos_token: { content: SPECIAL[1] }, eos_token: SPECIAL[0], pad_token: SPECIAL[1] };
  const tokenizer = parseTokenizer(validJson().root, config);
  expect([tokenizer.bosId, tokenizer.eosId, tokenizer.padId]).toEqual([1, 0, 1]);
  expect(() => parseTokenizer(validJson().root, { bos_token: "<s>" })).toThrowErrorMatchingInlineSnapshot(
    `[FormatError: tokenizer.json: bos_token must be one of added_tokens, got "<s>"]`,
  );
});

test("a malformed field is named", () => {
  expect(() => parseTokenizer([])).toThrowErrorMatchingInlineSnapshot(
    `[FormatError: tokenizer.json: the file must be a JSON object, got []]`,
  );
  expect(() => parseWith(({ root }) => delete root["model"])).toThrowErrorMatchingInlineSnapshot(
    `[FormatError: tokenizer.json: model must be a JSON object, got "nothing"]`,
  );
  expect(() => parseWith(({ model }) => (model["vocab"] = 3))).toThrowErrorMatchingInlineSnapshot(
    `[FormatError: tokenizer.json: model.vocab must be a JSON object, got 3]`,
  );
  expect(() => parseWith(({ model }) => ((model["vocab"] as Json)["the"] = 258))).toThrowErrorMatchingInlineSnapshot(
    `[FormatError: tokenizer.json: model.vocab["the"] must be an id of its own from 0 to 259, got 258]`,
  );
  expect(() => parseWith(({ model }) => ((model["vocab"] as Json)["the"] = -1))).toThrowErrorMatchingInlineSnapshot(
    `[FormatError: tokenizer.json: model.vocab["the"] must be an integer from 0 to 1048575, got -1]`,
  );
  expect(() => parseWith(({ model }) => ((model["vocab"] as Json)["你"] = 260))).toThrowErrorMatchingInlineSnapshot(
    `[FormatError: tokenizer.json: model.vocab["你"] must be spelled in the byte-level alphabet, got "你"]`,
  );
  expect(() => parseWith(({ model }) => (model["merges"] = [["t"]]))).toThrowErrorMatchingInlineSnapshot(
    `[FormatError: tokenizer.json: model.merges[0] must be two tokens, got ["t"]]`,
  );
  expect(() => parseWith(({ model }) => (model["merges"] = ["t q"]))).toThrowErrorMatchingInlineSnapshot(
    `[FormatError: tokenizer.json: model.merges[0] must be of tokens of model.vocab that make one of them, got "t q"]`,
  );
  expect(() =>
    parseWith(({ root }) => (root["added_tokens"] = [{ id: 0, content: "" }])),
  ).toThrowErrorMatchingInlineSnapshot(
    `[FormatError: tokenizer.json: added_tokens[0].content must be a non-empty string, got ""]`,
  );
  expect(() =>
    parseWith(({ root }) => (root["added_tokens"] = [{ id: 0, content: "<s>" }])),
  ).toThrowErrorMatchingInlineSnapshot(
    `[FormatError: tokenizer.json: added_tokens with id 0 must be the token "<｜begin▁of▁sentence｜>" of model.vocab, got "<s>"]`,
  );
  expect(() =>
    parseWith(({ root }) => (root["added_tokens"] as unknown[]).push({ id: 999, content: "<x>" })),
  ).toThrowErrorMatchingInlineSnapshot(
    `[FormatError: tokenizer.json: added_tokens must be numbered without gaps after model.vocab, got "no id 260"]`,
  );
});

test("a vocabulary without one of the bytes of UTF-8 is refused", () => {
  const renamed = ({ model }: { model: Json }): void => {
    const { a, ...vocab } = model["vocab"] as Json;
    model["vocab"] = { ...vocab, aa: a };
  };
  expect(() => parseWith(renamed)).toThrowErrorMatchingInlineSnapshot(
    `[FormatError: tokenizer.json: model.vocab must be a vocabulary with every byte of UTF-8, got "none for byte 97"]`,
  );
});

test("a setting that would change the ids and is not implemented is refused", () => {
  expect(() => parseWith(({ model }) => (model["type"] = "Unigram"))).toThrowErrorMatchingInlineSnapshot(
    `[UnsupportedError: tokenizer.json: model.type: must be one that is implemented, got "Unigram"; available: BPE]`,
  );
  expect(() => parseWith(({ model }) => (model["ignore_merges"] = true))).toThrowErrorMatchingInlineSnapshot(
    `[UnsupportedError: tokenizer.json: model.ignore_merges: must be one that is implemented, got true; available: false, null]`,
  );
  expect(() =>
    parseWith(({ root }) => (root["pre_tokenizer"] = { type: "Whitespace" })),
  ).toThrowErrorMatchingInlineSnapshot(
    `[UnsupportedError: tokenizer.json: pre_tokenizer: must be one that is implemented, got {"type":"Whitespace"}; available: the sequence of deepseek-v3, the sequence of deepseek-llm, the sequence of deepseek-coder]`,
  );
  expect(() => parseWith(({ root }) => (root["normalizer"] = { type: "NFC" }))).toThrowErrorMatchingInlineSnapshot(
    `[UnsupportedError: tokenizer.json: normalizer: must be one that is implemented, got {"type":"NFC"}; available: null]`,
  );
  expect(() => parseWith(({ root }) => (root["post_processor"] = { type: "TemplateProcessing" }))).toThrow(
    "post_processor",
  );
  expect(() => parseWith(({ root }) => (root["truncation"] = { max_length: 8 }))).toThrow("truncation");
  expect(() =>
    parseWith(({ root }) => (root["added_tokens"] = [{ id: 0, content: SPECIAL[0], lstrip: true }])),
  ).toThrow("added_tokens[0].lstrip");
});

test("a file asks for BOS as tokenizer_config.json says, else as its post-processor does, and is written so", async () => {
  const { root } = validJson();
  const asked = (json: Json, config?: Json): boolean => parseTokenizer(json, config).addBos;
  const byteLevel = { ...root, post_processor: { type: "ByteLevel" } };
  const both = {
    ...root,
    post_processor: { type: "Sequence", processors: [byteLevel["post_processor"], root["post_processor"]] },
  };
  expect([asked(root), asked(root, {}), asked(both, {}), asked(byteLevel), asked(byteLevel, {})]).toEqual([
    true,
    true,
    true,
    true,
    false,
  ]);
  expect([asked(byteLevel, { add_bos_token: true }), asked(root, { add_bos_token: false })]).toEqual([true, false]);
  for (const addBos of [true, false]) {
    const tokenizer = parseTokenizer(root, { add_bos_token: addBos });
    expect(JSON.parse(tokenizer.toConfigJson())).toMatchObject({ add_bos_token: addBos });
    const reference = HuggingFaceTokenizer.fromString(tokenizer.toJson());
    for (const text of ["", "the th"]) {
      const ids = (await reference.encode(text, null, { addSpecialTokens: true })).getIds();
      expect(ids).toEqual([...tokenizer.encode(text, { addBos })]);
    }
  }
});
