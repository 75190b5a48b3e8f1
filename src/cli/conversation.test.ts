import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { resolveConfig, type GenerationConfig } from "../config/index.ts";
import type { Engine, Piece } from "../infer/index.ts";
import type { Tokenizer } from "../tokenizer/index.ts";
import { trainTokenizer, saveTokenizer } from "../tokenizer/node.ts";
import { Conversation } from "./conversation.ts";

const USER = "<｜User｜>";
const ASSISTANT = "<｜Assistant｜>";
const END = { reason: "eos", promptTokens: 3, tokens: 2, tokensPerSec: 1 } as const;

let folder: string;
let tokenizer: Tokenizer;
let settings: GenerationConfig;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "fathom-chat-"));
  tokenizer = await trainTokenizer(["to be or not to be"], {
    vocabSize: 265,
    specialTokens: [USER, ASSISTANT, "<think>", "</think>"],
  });
  await saveTokenizer(tokenizer, folder);
  await writeFile(join(folder, "config.json"), JSON.stringify({ model_type: "deepseek_v3" }));
  settings = resolveConfig("tiny").generation;
});

afterAll(() => rm(folder, { recursive: true }));

/** An engine that says the same in pieces each time, and keeps the prompts that it was given. */
function parrot(pieces: readonly string[], prompts: string[]): Engine {
  async function* generate(ids: ArrayLike<number>): AsyncGenerator<Piece> {
    prompts.push(tokenizer.decode(ids));
    for (const text of pieces) yield { text };
    yield { text: "", end: END };
  }
  return { generate } as unknown as Engine;
}

test("an answer's thinking is shown apart and is not part of the turns that follow", async () => {
  const prompts: string[] = [];
  const engine = parrot(["hm", "</thi", "nk>\n\n4"], prompts);
  const conversation = await Conversation.open({
    engine,
    tokenizer,
    folder,
    template: undefined,
    system: "S",
    thinking: false,
  });
  expect(conversation.template).toBe("deepseek-r1");
  const shown: string[] = [];
  const answer = await conversation.ask("2+2?", settings, ({ kind, text }) => shown.push(`${kind}:${text}`));
  expect(answer).toEqual({ content: "4", reasoning: "hm", end: END });
  expect(shown).toEqual(["thinking:hm", "answer:4"]);
  await conversation.ask("sure?", settings, () => undefined);
  const begin = `<｜begin▁of▁sentence｜>S${USER}2+2?${ASSISTANT}`;
  expect(prompts).toEqual([`${begin}<think>\n`, `${begin}4<｜end▁of▁sentence｜>${USER}sure?${ASSISTANT}<think>\n`]);
});

test("checkpoint renders the model's own template, and says so when there is none", async () => {
  const prompts: string[] = [];
  const options = {
    engine: parrot(["ok"], prompts),
    tokenizer,
    folder,
    template: "checkpoint",
    system: undefined,
    thinking: true,
  };
  await expect(Conversation.open(options)).rejects.toThrow("--chat-template: needs a template in the checkpoint");
  await writeFile(
    join(folder, "chat_template.jinja"),
    "{{ bos_token }}{{ messages[0].content }}{% if thinking %}<think>{% endif %}",
  );
  const { reasoning } = await (await Conversation.open(options)).ask("to be", settings, () => undefined);
  expect([prompts[0], reasoning]).toEqual(["<｜begin▁of▁sentence｜>to be<think>", "ok"]);
});

test("an unknown template names the nearest", async () => {
  const options = {
    engine: parrot([], []),
    tokenizer,
    folder,
    template: "deepseek-v33",
    system: undefined,
    thinking: false,
  };
  await expect(Conversation.open(options)).rejects.toThrow("did you mean deepseek-v3?");
});

test("thinking that the template cannot do is refused before the first question", async () => {
  const options = {
    engine: parrot([], []),
    tokenizer,
    folder,
    template: "deepseek-v3",
    system: undefined,
    thinking: true,
  };
  await expect(Conversation.open(options)).rejects.toThrow("thinking: needs one of the templates");
});
