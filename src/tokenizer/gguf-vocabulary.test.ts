import { readFileSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Tokenizer as HuggingFaceTokenizer } from "tokenizers";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type GgufEntry, writeGguf } from "../formats/index.ts";
import { nodeFiles, openGguf } from "../formats/node.ts";
import { parseTokenizer } from "./index.ts";
import { loadTokenizer } from "./node.ts";

const GOLDEN = new URL("../../test/golden/tokenizers/", import.meta.url).pathname;

interface Golden {
  readonly cases: readonly { readonly text: string; readonly ids: readonly number[] }[];
}

describe.each(["deepseek-llm", "deepseek-coder"])("%s, read from GGUF", (name) => {
  const { cases } = JSON.parse(readFileSync(join(GOLDEN, `${name}.json`), "utf8")) as Golden;
  const file = join(GOLDEN, `${name}.gguf`);

  test("native and plain encoders give the ids of Hugging Face tokenizers", async () => {
    const native = await loadTokenizer(file);
    const plain = parseTokenizer(JSON.parse(native.toJson()), JSON.parse(native.toConfigJson()));
    for (const { text, ids } of cases) {
      expect([...native.encode(text)], JSON.stringify(text)).toEqual(ids);
      expect([...plain.encode(text)], JSON.stringify(text)).toEqual(ids);
      expect(native.decode(ids)).toBe(text);
    }
  });

  test("written as tokenizer.json it gives the same ids in Hugging Face tokenizers", async () => {
    const reference = HuggingFaceTokenizer.fromString((await loadTokenizer(file)).toJson());
    for (const { text, ids } of cases) {
      expect((await reference.encode(text, null, { addSpecialTokens: false })).getIds()).toEqual(ids);
    }
  });

  test("fillers at the end of the list are no tokens, begin and end of sentence are special", async () => {
    const tokenizer = await loadTokenizer(file);
    expect(tokenizer.tokenToId(`[PAD${tokenizer.vocabSize}]`)).toBeUndefined();
    expect(tokenizer.decode([tokenizer.bosId, tokenizer.eosId])).toBe("<｜begin▁of▁sentence｜><｜end▁of▁sentence｜>");
    expect(tokenizer.decode([tokenizer.bosId], { skipSpecial: true })).toBe("");
  });
});

test("a file asks for BOS when its metadata say so", async () => {
  const folder = await mkdtemp(join(tmpdir(), "fathom-gguf-"));
  const gguf = await openGguf(join(GOLDEN, "deepseek-coder.gguf"));
  const metadata = new Map<string, GgufEntry>();
  for (const [key, entry] of gguf.metadata) {
    metadata.set(key, entry.type === "list" ? { ...entry, values: await gguf.readList(key) } : entry);
  }
  await gguf.close();
  const asked = async (value?: boolean): Promise<boolean> => {
    metadata.delete("tokenizer.ggml.add_bos_token");
    if (value !== undefined) metadata.set("tokenizer.ggml.add_bos_token", { type: "bool", value });
    await writeGguf(nodeFiles, join(folder, "bos.gguf"), { metadata, tensors: [] });
    return (await loadTokenizer(join(folder, "bos.gguf"))).addBos;
  };
  expect([await asked(true), await asked(false), await asked()]).toEqual([true, false, false]);
  await rm(folder, { recursive: true });
});

describe("bad metadata", () => {
  let folder: string;
  beforeAll(async () => void (folder = await mkdtemp(join(tmpdir(), "fathom-gguf-"))));
  afterAll(() => rm(folder, { recursive: true }));

  async function loadWith(changes: Readonly<Record<string, GgufEntry>>): Promise<unknown> {
    const metadata = new Map<string, GgufEntry>([
      ["general.architecture", { type: "text", value: "llama" }],
      ["tokenizer.ggml.model", { type: "text", value: "gpt2" }],
      ["tokenizer.ggml.pre", { type: "text", value: "deepseek-llm" }],
      ["tokenizer.ggml.tokens", { type: "list", of: "text", values: ["a"] }],
      ["tokenizer.ggml.token_type", { type: "list", of: "i32", values: [1] }],
      ["tokenizer.ggml.merges", { type: "list", of: "text", values: [] }],
      ...Object.entries(changes).map(([key, value]) => [`tokenizer.ggml.${key}`, value] as const),
    ]);
    await writeGguf(nodeFiles, join(folder, "bad.gguf"), { metadata, tensors: [] });
    return loadTokenizer(join(folder, "bad.gguf")).catch((error: Error) => error.message.replace(folder, ""));
  }

  test("another kind of tokenizer is refused by name", async () => {
    expect(await loadWith({ model: { type: "text", value: "llama" } })).toMatchInlineSnapshot(
      `"/bad.gguf: tokenizer.ggml.model: must be byte-level BPE, got "llama"; available: gpt2"`,
    );
    expect(await loadWith({ pre: { type: "text", value: "qwen2" } })).toMatchInlineSnapshot(
      `"/bad.gguf: tokenizer.ggml.pre: must be one that is implemented, got "qwen2"; available: deepseek-v3, deepseek-llm, deepseek-coder"`,
    );
  });

  test("lists that do not fit each other or are missing bytes are named", async () => {
    expect(await loadWith({ token_type: { type: "list", of: "i32", values: [1, 1] } })).toMatchInlineSnapshot(
      `"/bad.gguf: tokenizer.ggml.token_type must have 1 values, got 2"`,
    );
    expect(await loadWith({ merges: { type: "u32", value: 3 } })).toMatchInlineSnapshot(
      `"/bad.gguf: tokenizer.ggml.merges must be a list of texts, got "u32""`,
    );
    expect(await loadWith({})).toMatchInlineSnapshot(
      `"/bad.gguf: model.vocab must be a vocabulary with every byte of UTF-8, got "none for byte 0""`,
    );
  });
});
