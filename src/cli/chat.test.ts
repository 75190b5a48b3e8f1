/** `fathom chat` with its input from a pipe: what stands on its two outputs. */

import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Readable } from "node:stream";
import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from "vitest";
import { drawnGguf } from "../../test/helpers/drawn-gguf.ts";
import { drawWeights } from "../../test/helpers/drawn-weights.ts";
import { outputOf } from "../../test/helpers/verb.ts";
import { resolveConfig } from "../config/index.ts";
import { writeGguf } from "../formats/index.ts";
import { nodeFiles } from "../formats/node.ts";
import { chatCommand } from "./chat.ts";

const CONTEXT = 96;

let folder: string;
let file: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "fathom-chat-"));
  file = join(folder, "model.gguf");
  const { model } = resolveConfig("tiny", { vocab_size: 259, n_mtp_layers: 0, max_seq_len: CONTEXT });
  await writeGguf(nodeFiles, file, drawnGguf(model, drawWeights(model, 3), { splitKvB: true, type: "F32" }));
});
afterAll(() => rm(folder, { recursive: true }));
afterEach(() => void vi.restoreAllMocks());

interface Said {
  readonly answers: readonly Readonly<Record<string, unknown>>[];
  readonly notes: string;
}

async function chat(lines: readonly string[], ...words: string[]): Promise<Said> {
  vi.spyOn(process, "stdin", "get").mockReturnValue(
    Readable.from(lines.map((line) => `${line}\n`)) as typeof process.stdin,
  );
  let notes = "";
  vi.spyOn(process.stderr, "write").mockImplementation((text) => {
    notes += String(text);
    return true;
  });
  const fixed = ["--model", file, "--json", "--temperature", "0"];
  const output = await outputOf(chatCommand(), ...fixed, ...words);
  const answers = output.split("\n").slice(0, -1);
  return { answers: answers.map((line) => JSON.parse(line) as Record<string, unknown>), notes };
}

test("a question after /drop is answered as if the turn had not been", async () => {
  const { answers, notes } = await chat(["What?", "/drop", "What?", "/drop 9"], "--max-tokens", "4");
  expect(answers).toHaveLength(2);
  expect(answers[1]).toMatchObject({ text: answers[0]!["text"], prompt_tokens: answers[0]!["prompt_tokens"] });
  expect(notes).toBe("oldest turns left out: 1, kept: 0\n".repeat(2));
});

test("a conversation that fills the context ends with an error that names both ways on", async () => {
  await expect(chat(["What is it?".repeat(3), "Why?".repeat(8)], "--max-tokens", "24")).rejects.toThrow(
    /conversation: must be shorter than the context of 96 tokens, got \d+; \/drop leaves out the oldest turn, --drop-oldest/,
  );
});

test("with --drop-oldest it goes on, and says what was left out", async () => {
  const lines = ["What is it?".repeat(3), "Why?".repeat(8)];
  const { answers, notes } = await chat(lines, "--max-tokens", "24", "--drop-oldest");
  expect(answers.map((answer) => answer["dropped_turns"])).toEqual([0, 1]);
  expect(notes).toBe("oldest turns left out: 1, kept: 0\n");
});

describe("an answer that the context cuts", () => {
  const SHORTEN = "shorten the question or take a model with a longer context";

  test.each(["", "--drop-oldest"])("to a first question says that it can be shorter %s", async (option) => {
    const words = option === "" ? [] : [option];
    const { answers, notes } = await chat(["What is it?".repeat(3)], "--max-tokens", "1000", ...words);
    expect(answers[0]).toMatchObject({ finish_reason: "length" });
    expect(notes).toBe(`the answer ends with the context of ${CONTEXT} tokens; ${SHORTEN}\n`);
  });

  test("to a later question says that turns can go", async () => {
    const { answers, notes } = await chat(["A", "What is it? ".repeat(2)], "--max-tokens", "16");
    expect(Number(answers[0]!["prompt_tokens"]) + Number(answers[0]!["tokens"])).toBeLessThan(CONTEXT);
    expect(answers[1]).toMatchObject({ finish_reason: "length" });
    expect(notes).toBe(
      `the answer ends with the context of ${CONTEXT} tokens; /drop leaves out the oldest turn, --drop-oldest as many as need be\n`,
    );
  });
});
