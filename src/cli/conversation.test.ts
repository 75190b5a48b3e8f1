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
const CONTEXT = 64;
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
  return { generate, config: { maxSeqLen: CONTEXT } } as unknown as Engine;
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
  expect(answer).toEqual({ content: "4", reasoning: "hm", end: END, droppedTurns: 0 });
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

/** Opens a conversation whose answers are `A`, and asks questions one after the other. */
async function conversationOf(prompts: string[], dropOldest: boolean) {
  const options = { engine: parrot(["A"], prompts), tokenizer, folder, system: "S", thinking: false, dropOldest };
  const conversation = await Conversation.open({ ...options, template: "deepseek-v3" });
  const ask = (question: string, maxTokens = 1) =>
    conversation.ask(question, { ...settings, maxTokens }, () => undefined);
  return { conversation, ask };
}

const turn = (question: string): string => `${USER}${question}${ASSISTANT}A<｜end▁of▁sentence｜>`;
const FILLER = "zyxw".repeat(10);

test("a conversation that fills the context says how to go on, and goes on when a turn is dropped", async () => {
  const prompts: string[] = [];
  const { conversation, ask } = await conversationOf(prompts, false);
  await ask(FILLER);
  await ask("1");
  await expect(ask(FILLER.slice(0, 15))).rejects.toThrowErrorMatchingInlineSnapshot(
    `[ConfigError: conversation: must be shorter than the context of 64 tokens, got 68; /drop leaves out the oldest turn, --drop-oldest as many as need be]`,
  );
  expect([conversation.turns, conversation.drop(1), conversation.turns]).toEqual([2, 1, 1]);
  await ask(FILLER.slice(0, 15));
  const begin = "<｜begin▁of▁sentence｜>S";
  expect(prompts.at(-1)).toBe(`${begin}${turn("1")}${USER}${FILLER.slice(0, 15)}${ASSISTANT}`);
  expect([conversation.drop(5), conversation.turns]).toEqual([2, 0]);
  await expect(ask("v".repeat(80))).rejects.toThrowErrorMatchingInlineSnapshot(
    `[ConfigError: conversation: must be shorter than the context of 64 tokens, got 84; shorten the question or the system text]`,
  );
});

test("--drop-oldest leaves out as many of the oldest turns as the question and its longest answer need", async () => {
  const prompts: string[] = [];
  const { conversation, ask } = await conversationOf(prompts, true);
  const dropped = [];
  for (const question of ["1", "2", "3", "4"]) dropped.push((await ask(question)).droppedTurns);
  expect(dropped).toEqual([0, 0, 0, 0]);
  expect((await ask("5", 40)).droppedTurns).toBe(0);
  // BOS, the system text, 42 tokens of the question and 5 of each turn: three turns fit 64 with an answer of one token.
  expect((await ask(FILLER, 1)).droppedTurns).toBe(2);
  const kept = [turn("3"), turn("4"), turn("5")].join("");
  expect(prompts.at(-1)).toBe(`<｜begin▁of▁sentence｜>S${kept}${USER}${FILLER}${ASSISTANT}`);
  expect((await ask("6", 30)).droppedTurns).toBe(4);
  // For an answer that may be longer than the context, half of it is kept.
  expect((await ask("7", 1000)).droppedTurns).toBe(0);
  await expect(ask("v".repeat(80))).rejects.toThrow("shorten the question or the system text");
  expect(conversation.turns).toBe(2);
});
