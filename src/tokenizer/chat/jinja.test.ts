import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { type ChatMessage, renderJinja, type ToolCall } from "../index.ts";

const GOLDEN = new URL("../../../test/golden/tokenizers/chat-v3.json", import.meta.url);

interface HfMessage {
  readonly role: "system" | "user" | "assistant" | "tool";
  readonly content: string | null;
  readonly tool_calls?: readonly { readonly function: ToolCall }[];
}

interface Golden {
  readonly template: string;
  readonly cases: readonly { messages: readonly HfMessage[]; add_generation_prompt: boolean; text: string }[];
}

const { template, cases } = JSON.parse(readFileSync(GOLDEN, "utf8")) as Golden;
const V3 = {
  text: template,
  file: "tokenizer_config.json",
  bosToken: "<｜begin▁of▁sentence｜>",
  eosToken: "<｜end▁of▁sentence｜>",
};
const TOOLS = [{ name: "weather", parameters: { type: "object" } }];

function own({ role, content, tool_calls: calls }: HfMessage): ChatMessage {
  const toolCalls = calls?.map((call) => call.function);
  return role === "assistant" && toolCalls !== undefined
    ? { role, content: content ?? "", toolCalls }
    : { role, content: content! };
}

test("V3's own template gives the bytes of apply_chat_template", () => {
  for (const { messages, add_generation_prompt: addGenerationPrompt, text } of cases) {
    expect(renderJinja(V3, messages.map(own), { tools: TOOLS, addGenerationPrompt })).toBe(text);
  }
});

test("the single tool call that V3's template leaves open is left open", () => {
  const single = cases.find(({ messages }) => messages.at(-1)?.tool_calls?.length === 1);
  expect(single?.text).toContain("<｜tool▁call▁end｜>");
  expect(single?.text).not.toContain("<｜tool▁calls▁end｜>");
});

test("a malformed template and a refused conversation are told apart", () => {
  expect(() => renderJinja({ ...V3, text: "{% if %}" }, [], {})).toThrow(
    "tokenizer_config.json: chat_template must be Jinja",
  );
  const refusing = { ...V3, text: "{{ raise_exception('roles must alternate') }}" };
  expect(() => renderJinja(refusing, [], {})).toThrowErrorMatchingInlineSnapshot(
    `[ConfigError: chat template of the checkpoint: must take this conversation, got "roles must alternate"]`,
  );
});
