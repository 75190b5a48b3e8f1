/**
 * The built-in chat templates of V3.1, V3.2 and V4 against llama.cpp's:
 *
 *     npx tsx bench/tokenizer/templates.bench.ts LLAMA_CPP
 *
 * LLAMA_CPP is llama.cpp's source, with `models/templates`. Each case says whether both render the same, or shows from where
 * on they do not, the opening `<think></think>` aside; ends with an error when a case is not what docs/guide/chat.md says. Appends a line to
 * bench/results/templates.jsonl.
 */

import { readFileSync } from "node:fs";
import { join } from "node:path";
import { Template } from "@huggingface/jinja";
import {
  type ChatMessage,
  type ChatTemplate,
  renderChat,
  type RenderOptions,
  segmentText,
} from "../../src/tokenizer/index.ts";
import { appendResult } from "../result-file.ts";

const FILES: readonly (readonly [ChatTemplate, string])[] = [
  ["deepseek-v3.1", "deepseek-ai-DeepSeek-V3.1"],
  ["deepseek-v3.2", "deepseek-ai-DeepSeek-V3.2"],
  ["deepseek-v4", "deepseek-ai-DeepSeek-V4"],
];

interface Case {
  readonly name: string;
  readonly messages: readonly ChatMessage[];
  readonly options?: RenderOptions;
  /** The templates that render it otherwise than llama.cpp's. */
  readonly differ: readonly ChatTemplate[];
  /** Hands the arguments of calls on as a text; only V3.1's template can do that here. */
  readonly isQuoted?: boolean;
}

const TOOLS = [{ name: "weather", parameters: { type: "object", required: ["city"] } }];
const [S, Q, A]: ChatMessage[] = [
  { role: "system", content: "Be brief." },
  { role: "user", content: "1+1?" },
  { role: "assistant", content: "2", reasoning: "easy" },
];
const call = (id: string, args: string): ChatMessage => ({
  role: "assistant",
  content: "",
  reasoning: "look",
  toolCalls: [{ id, name: "weather", arguments: args }],
});
const OSLO = call("1", '{"city": "Oslo", "days": 2}');
const PAIR: ChatMessage = {
  role: "assistant",
  content: "",
  toolCalls: ["1", "2"].map((id) => ({ id, name: "weather", arguments: `{"city": "${id}"}` })),
};
const result = (callId: string, content: string): ChatMessage => ({ role: "tool", content, callId });
const THINK = { thinking: true };
const DONE = { ...THINK, addGenerationPrompt: false };
const OFFER = { tools: TOOLS };

const CASES: readonly Case[] = [
  { name: "a question, thinking", messages: [S!, Q!], options: THINK, differ: [] },
  { name: "a question without thinking", messages: [S!, Q!], differ: [] },
  { name: "an earlier answer", messages: [Q!, A!, Q!], options: THINK, differ: [] },
  { name: "a call", messages: [Q!, OSLO], options: DONE, differ: [] },
  {
    name: "a call and its result",
    messages: [Q!, OSLO, result("1", "sun")],
    options: THINK,
    differ: ["deepseek-v4"],
  },
  {
    name: "two calls and their results, then an answer",
    messages: [Q!, PAIR, result("1", "sun"), result("2", "rain"), { role: "assistant", content: "wet" }],
    options: DONE,
    differ: ["deepseek-v4"],
  },
  { name: "tools", messages: [S!, Q!], options: { ...OFFER, ...THINK }, differ: ["deepseek-v3.1"] },
  { name: "tools without a system text", messages: [Q!], options: { ...OFFER, ...THINK }, differ: ["deepseek-v3.1"] },
  { name: "reasoning with tools", messages: [Q!, A!, Q!], options: { ...OFFER, ...THINK }, differ: ["deepseek-v3.1"] },
  { name: "an answer first", messages: [A!, Q!], options: THINK, differ: ["deepseek-v3.1", "deepseek-v3.2"] },
  {
    name: "a call without arguments",
    messages: [Q!, call("1", "{}")],
    options: DONE,
    differ: ["deepseek-v3.2"],
  },
  {
    name: "a developer's message",
    messages: [{ role: "developer", content: "Search." }],
    options: THINK,
    differ: ["deepseek-v3.1", "deepseek-v3.2"],
  },
  { name: "arguments as a text", messages: [Q!, OSLO], options: DONE, differ: ["deepseek-v3.1"], isQuoted: true },
  {
    name: "fewer results than calls",
    messages: [Q!, PAIR, result("1", "sun")],
    options: THINK,
    differ: ["deepseek-v3.2", "deepseek-v4"],
  },
  {
    name: "results in another order",
    messages: [Q!, PAIR, result("2", "rain"), result("1", "sun")],
    options: { ...THINK, ...OFFER },
    differ: ["deepseek-v3.1", "deepseek-v4"],
  },
  {
    name: "reasoning before a result, no tools offered",
    messages: [Q!, OSLO, result("1", "sun"), A!, Q!],
    options: THINK,
    differ: ["deepseek-v4"],
  },
  {
    name: "a task",
    messages: [{ role: "user", content: "q", task: "title" }],
    options: THINK,
    differ: ["deepseek-v4"],
  },
  {
    name: "a reminder",
    messages: [Q!, { role: "latest_reminder", content: "now" }],
    options: DONE,
    differ: ["deepseek-v4"],
  },
  {
    name: "an unfinished answer",
    messages: [Q!, { role: "assistant", content: "a", reasoning: "r", open: true }],
    options: DONE,
    differ: ["deepseek-v3.1", "deepseek-v3.2", "deepseek-v4"],
  },
  { name: "after an answer", messages: [Q!, A!], options: THINK, differ: ["deepseek-v4"] },
  { name: "the highest effort", messages: [Q!], options: { ...THINK, reasoningEffort: "max" }, differ: [] },
];

/** The message as llama.cpp's templates take it. */
function hfMessage(message: ChatMessage, isQuoted: boolean): Record<string, unknown> {
  const { role, content } = message;
  if (message.role !== "assistant") return { role, content };
  const calls = message.toolCalls?.map(({ name, arguments: args }) => ({
    function: { name, arguments: isQuoted ? args : (JSON.parse(args) as unknown) },
  }));
  return { role, content, tool_calls: calls ?? [], reasoning_content: message.reasoning ?? "" };
}

/** The openings `<think></think>`, which are `</think>` here, taken out of the comparison. */
const OPENING: Partial<Record<ChatTemplate, RegExp>> = {
  "deepseek-v3.1": /<think>(?=<\/think>)/g,
  "deepseek-v3.2": /<think>(?=<\/think>$)/g,
};

function renderTheirs(source: Template, { messages, options = {}, isQuoted = false }: Case): string {
  const { tools, thinking = false, addGenerationPrompt = true, reasoningEffort } = options;
  return source.render({
    messages: messages.map((message) => hfMessage(message, isQuoted)),
    bos_token: "<｜begin▁of▁sentence｜>",
    thinking,
    add_generation_prompt: addGenerationPrompt,
    ...(tools === undefined ? {} : { tools: tools.map((tool) => ({ type: "function", function: tool })) }),
    ...(reasoningEffort === undefined ? {} : { reasoning_effort: reasoningEffort }),
  });
}

/** Where two texts part, with some of what stands before. */
function parting(ours: string, theirs: string): { readonly here: string; readonly llama_cpp: string } {
  const at = Array.from({ length: ours.length + 1 }, (_, i) => i).find((i) => ours[i] !== theirs[i]) ?? 0;
  const show = (text: string): string => text.slice(Math.max(0, at - 30), at + 60);
  return { here: show(ours), llama_cpp: show(theirs) };
}

const folder = join(process.argv[2] ?? "", "models/templates");
const wrong: string[] = [];
const line: Record<string, unknown> = {};
for (const [template, file] of FILES) {
  const source = new Template(readFileSync(join(folder, `${file}.jinja`), "utf8"));
  const opening = OPENING[template];
  const differ: string[] = [];
  let openings = 0;
  for (const item of CASES.filter(({ isQuoted }) => isQuoted !== true || template === "deepseek-v3.1")) {
    const ours = segmentText(renderChat(template, item.messages, item.options));
    const whole = renderTheirs(source, item);
    const theirs = opening === undefined ? whole : whole.replaceAll(opening, "");
    if (theirs !== whole) openings++;
    console.log(template, ours === theirs ? "same  " : "differs", item.name);
    if (ours !== theirs) {
      console.log(parting(ours, theirs));
      differ.push(item.name);
    }
    if ((ours !== theirs) !== item.differ.includes(template)) wrong.push(`${template}: ${item.name}`);
  }
  line[template] = { cases: CASES.length, openings, differ };
}
if (wrong.length > 0) throw new Error(`otherwise than docs/guide/chat.md says: ${wrong.join("; ")}`);
appendResult("templates", line);
