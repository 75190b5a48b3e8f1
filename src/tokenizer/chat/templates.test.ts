import { describe, expect, test } from "vitest";
import {
  CHAT_TEMPLATES,
  type ChatMessage,
  type ChatTemplate,
  defaultChatTemplate,
  encodeSegments,
  renderChat,
  type RenderOptions,
  segmentText,
} from "../index.ts";
import { trainTokenizer } from "../node.ts";
import type { PreTokenizer } from "../pre-tokenizer.ts";

const B = "<｜begin▁of▁sentence｜>";
const E = "<｜end▁of▁sentence｜>";
const U = "<｜User｜>";
const A = "<｜Assistant｜>";

const TURNS: readonly ChatMessage[] = [
  { role: "system", content: "S" },
  { role: "user", content: "u1" },
  { role: "assistant", content: "a1", reasoning: "r1" },
  { role: "user", content: "u2" },
];

const TOOLS = [
  { name: "weather", description: "Today's weather.", parameters: { type: "object", required: ["city"] } },
];
const OSLO = { id: "1", name: "weather", arguments: '{"city":"Oslo","days":2,"units":{"t":["C"]}}' };
const ROME = { id: "2", name: "weather", arguments: '{"city":"Rome"}' };
const QUESTION: ChatMessage = { role: "user", content: "q" };
const CALLS: ChatMessage = { role: "assistant", content: "", reasoning: "r", toolCalls: [OSLO, ROME] };
const RESULTS: readonly ChatMessage[] = [
  { role: "tool", content: "sun", callId: "2" },
  { role: "tool", content: "rain", callId: "1" },
];

function text(template: ChatTemplate, messages: readonly ChatMessage[], options: RenderOptions = {}): string {
  return segmentText(renderChat(template, messages, options));
}

test.each<[ChatTemplate, RenderOptions, string]>([
  ["deepseek-llm", {}, `${B}S\n\nUser: u1\n\nAssistant: a1${E}User: u2\n\nAssistant:`],
  ["deepseek-v2.5", {}, `${B}S${U}u1${A}a1${E}${U}u2${A}`],
  ["deepseek-v3", {}, `${B}S${U}u1${A}a1${E}${U}u2${A}`],
  ["deepseek-r1", {}, `${B}S${U}u1${A}a1${E}${U}u2${A}<think>\n`],
  ["deepseek-v3.1", {}, `${B}S${U}u1${A}</think>a1${E}${U}u2${A}</think>`],
  ["deepseek-v3.1", { thinking: true }, `${B}S${U}u1${A}</think>a1${E}${U}u2${A}<think>`],
  ["deepseek-v3.2", {}, `${B}S${U}u1${A}</think>a1${E}${U}u2${A}</think>`],
  ["deepseek-v3.2", { thinking: true }, `${B}S${U}u1${A}</think>a1${E}${U}u2${A}<think>`],
  ["deepseek-v4", {}, `${B}S${U}u1${A}</think>a1${E}${U}u2${A}</think>`],
  ["deepseek-v4", { thinking: true }, `${B}S${U}u1${A}</think>a1${E}${U}u2${A}<think>`],
  ["deepseek-v4", { thinking: true, dropThinking: false }, `${B}S${U}u1${A}<think>r1</think>a1${E}${U}u2${A}<think>`],
])("%s %j renders system, two questions and an answer", (template, options, expected) => {
  expect(text(template, TURNS, options)).toBe(expected);
});

test.each(CHAT_TEMPLATES)(
  "%s: BOS comes once and first, and an empty conversation opens an answer or nothing",
  (template) => {
    const rendered = text(template, TURNS);
    expect([rendered.indexOf(B), rendered.lastIndexOf(B)]).toEqual([0, 0]);
    expect(text(template, [], { addGenerationPrompt: false })).toBe(B);
  },
);

test("without a generation prompt the conversation ends where its last message does", () => {
  expect(text("deepseek-v3", TURNS, { addGenerationPrompt: false })).toBe(`${B}S${U}u1${A}a1${E}${U}u2`);
  expect(text("deepseek-v4", TURNS, { addGenerationPrompt: false })).toBe(`${B}S${U}u1${A}</think>a1${E}${U}u2`);
});

test("after an answer V3 opens another, V3.1, V3.2 and V4 do not", () => {
  const answered: ChatMessage[] = [QUESTION, { role: "assistant", content: "a" }];
  expect(text("deepseek-v3", answered)).toBe(`${B}${U}q${A}a${E}${A}`);
  for (const template of ["deepseek-v3.1", "deepseek-v3.2", "deepseek-v4"] as const) {
    expect(text(template, answered)).toBe(`${B}${U}q${A}</think>a${E}`);
  }
});

test("R1's history keeps only the text behind </think>", () => {
  const history: ChatMessage[] = [QUESTION, { role: "assistant", content: "<think>\nhm\n</think>\n\n4" }, QUESTION];
  expect(text("deepseek-r1", history)).toBe(`${B}${U}q${A}\n\n4${E}${U}q${A}<think>\n`);
});

describe("tool calls are always closed", () => {
  const single: readonly ChatMessage[] = [QUESTION, { role: "assistant", content: "", toolCalls: [ROME] }];

  test("V3, one call and two with their outputs, after which no new turn is opened", () => {
    const call = (args: string): string =>
      `<｜tool▁call▁begin｜>function<｜tool▁sep｜>weather\n\`\`\`json\n${args}\n\`\`\`<｜tool▁call▁end｜>`;
    const begin = `${B}${U}q${A}<｜tool▁calls▁begin｜>`;
    expect(text("deepseek-v3", single, { addGenerationPrompt: false })).toBe(
      `${begin}${call(ROME.arguments)}<｜tool▁calls▁end｜>${E}`,
    );
    const outputs =
      "<｜tool▁outputs▁begin｜><｜tool▁output▁begin｜>sun<｜tool▁output▁end｜>\n" +
      "<｜tool▁output▁begin｜>rain<｜tool▁output▁end｜><｜tool▁outputs▁end｜>";
    const asked = `${begin}${call(OSLO.arguments)}\n${call(ROME.arguments)}<｜tool▁calls▁end｜>${E}${outputs}`;
    expect(text("deepseek-v3", [QUESTION, CALLS, ...RESULTS])).toBe(asked);
    expect(text("deepseek-v3", [QUESTION, CALLS, ...RESULTS, { role: "assistant", content: "wet" }, QUESTION])).toBe(
      `${asked}wet${E}${U}q${A}`,
    );
  });

  test("V3.1: name and arguments without a fence, outputs without a block", () => {
    const call = (args: string): string => `<｜tool▁call▁begin｜>weather<｜tool▁sep｜>${args}<｜tool▁call▁end｜>`;
    expect(text("deepseek-v3.1", [QUESTION, CALLS, ...RESULTS])).toBe(
      `${B}${U}q${A}</think><｜tool▁calls▁begin｜>${call(OSLO.arguments)}${call(ROME.arguments)}<｜tool▁calls▁end｜>${E}` +
        "<｜tool▁output▁begin｜>sun<｜tool▁output▁end｜><｜tool▁output▁begin｜>rain<｜tool▁output▁end｜>",
    );
  });

  const dsml = (block: string): string =>
    [
      `<｜DSML｜${block}>`,
      '<｜DSML｜invoke name="weather">',
      '<｜DSML｜parameter name="city" string="true">Oslo</｜DSML｜parameter>',
      '<｜DSML｜parameter name="days" string="false">2</｜DSML｜parameter>',
      '<｜DSML｜parameter name="units" string="false">{"t": ["C"]}</｜DSML｜parameter>',
      "</｜DSML｜invoke>",
      '<｜DSML｜invoke name="weather">',
      '<｜DSML｜parameter name="city" string="true">Rome</｜DSML｜parameter>',
      "</｜DSML｜invoke>",
      `</｜DSML｜${block}>`,
    ].join("\n");

  test("V3.2: DSML, results in a block, and the answer goes on behind it", () => {
    expect(text("deepseek-v3.2", [QUESTION, CALLS, ...RESULTS], { thinking: true })).toBe(
      `${B}${U}q${A}<think>r</think>\n\n${dsml("function_calls")}${E}` +
        "\n\n<function_results>\n<result>sun</result>\n<result>rain</result>\n</function_results>\n\n<think>",
    );
  });

  test("V4: DSML, results in a user's turn in the order of the calls, reasoning kept while there are tools", () => {
    const tools = { tools: TOOLS, thinking: true };
    const rendered = text("deepseek-v4", [QUESTION, CALLS, ...RESULTS, { role: "user", content: "so?" }], tools);
    expect(rendered.slice(rendered.indexOf(U))).toBe(
      `${U}q${A}<think>r</think>\n\n${dsml("tool_calls")}${E}` +
        `${U}<tool_result>rain</tool_result>\n\n<tool_result>sun</tool_result>\n\nso?${A}<think>`,
    );
  });
});

test("tools are described behind the system text", () => {
  const tools = { tools: TOOLS };
  const v31 = text("deepseek-v3.1", TURNS, tools);
  expect(v31.slice(0, v31.indexOf("\n\nWhere"))).toBe(
    `${B}S\n\n## Tools\nYou have access to the following tools:\n\n### weather\nDescription: Today's weather.\n\n` +
      'Parameters: {"type": "object", "required": ["city"]}\n\nIMPORTANT: ALWAYS adhere to this exact format for tool use:\n' +
      "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>tool_call_name<｜tool▁sep｜>tool_call_arguments<｜tool▁call▁end｜>" +
      "{additional_tool_calls}<｜tool▁calls▁end｜>",
  );
  const schema =
    '{"name": "weather", "description": "Today\'s weather.", "parameters": {"type": "object", "required": ["city"]}}\n';
  for (const [template, end] of [
    ["deepseek-v3.2", "</functions>\n"],
    [
      "deepseek-v4",
      "\nYou MUST strictly follow the above defined tool name and parameter schemas to invoke tool calls.\n",
    ],
  ] as const) {
    const rendered = text(template, TURNS, tools);
    expect(rendered.startsWith(`${B}S\n\n## Tools\n\nYou have access to a set of tools`)).toBe(true);
    expect(rendered.slice(0, rendered.indexOf(U)).endsWith(schema + end)).toBe(true);
  }
  expect(text("deepseek-v4", [QUESTION], tools).startsWith(`${B}## Tools\n\n`)).toBe(true);
});

test("V2.5, V3 and R1 list tools as the model card of V2.5 does", () => {
  const listed = [
    `${B}S\n\n## Tools\n\n### Function\n\nYou have the following functions available:\n\n- \`weather\`:\n\`\`\`json`,
    "{",
    '    "name": "weather",',
    '    "description": "Today\'s weather.",',
    '    "parameters": {',
    '        "type": "object",',
    '        "required": [',
    '            "city"',
    "        ]",
    "    }",
    "}",
    "```",
  ].join("\n");
  const messages: ChatMessage[] = [{ role: "system", content: "S" }, QUESTION];
  expect(text("deepseek-v2.5", messages, { tools: TOOLS })).toBe(`${listed}${U}q${A}`);
  expect(text("deepseek-v3", messages, { tools: TOOLS })).toBe(`${listed}${U}q${A}`);
  const two = text("deepseek-r1", [QUESTION], { tools: [{ name: "f" }, { name: "g" }] });
  expect(two).toContain('- `f`:\n```json\n{\n    "name": "f"\n}\n```\n\n- `g`:\n');
});

test("V4: response format, highest effort, tasks, reminders and unfinished answers", () => {
  expect(text("deepseek-v4", TURNS.slice(0, 2), { responseFormat: { type: "json_object" } })).toBe(
    `${B}S\n\n## Response Format:\n\nYou MUST strictly adhere to the following schema to reply:\n{"type": "json_object"}${U}u1${A}</think>`,
  );
  const effort = text("deepseek-v4", [QUESTION], { thinking: true, reasoningEffort: "max" });
  expect(effort.startsWith(`${B}Reasoning Effort: Absolute maximum`)).toBe(true);
  expect(text("deepseek-v4", [QUESTION], { thinking: true, reasoningEffort: "high" })).toBe(`${B}${U}q${A}<think>`);
  expect(text("deepseek-v4", [{ role: "user", content: "q", task: "title" }])).toBe(`${B}${U}q<｜title｜>`);
  expect(text("deepseek-v4", [{ role: "user", content: "q", task: "action" }])).toBe(
    `${B}${U}q${A}</think><｜action｜>`,
  );
  const task: ChatMessage[] = [
    { role: "user", content: "q", task: "query" },
    { role: "assistant", content: "a", reasoning: "r" },
  ];
  expect(text("deepseek-v4", task, { thinking: true })).toBe(`${B}${U}q<｜query｜>a${E}`);
  const reminded: ChatMessage[] = [QUESTION, { role: "latest_reminder", content: "now" }];
  expect(text("deepseek-v4", reminded)).toBe(`${B}${U}q${A}</think><｜latest_reminder｜>now`);
  expect(text("deepseek-v4", [QUESTION, { role: "assistant", content: "a", open: true }])).toBe(
    `${B}${U}q${A}</think>a`,
  );
});

test("what a template cannot do is refused", () => {
  expect(() => renderChat("deepseek-v3", TURNS, { thinking: true })).toThrowErrorMatchingInlineSnapshot(
    `[ConfigError: thinking: needs one of the templates deepseek-r1, deepseek-v3.1, deepseek-v3.2, deepseek-v4, got "deepseek-v3"; leave it out]`,
  );
  expect(() => renderChat("deepseek-llm", TURNS, { tools: TOOLS })).toThrow("chat.tools: need a template with tools");
  const bad: ChatMessage = { role: "assistant", content: "", toolCalls: [{ name: "f", arguments: "[1]" }] };
  expect(() => renderChat("deepseek-v4", [QUESTION, bad])).toThrowErrorMatchingInlineSnapshot(
    `[ConfigError: chat: arguments of f: must be a JSON object, got "[1]"]`,
  );
});

test("special tokens that a message spells stay text, those of the template are tokens", async () => {
  const tokenizer = await trainTokenizer(["to be or not to be"], { vocabSize: 263, specialTokens: [U, A] });
  const ids = encodeSegments(tokenizer, renderChat("deepseek-v3", [{ role: "user", content: `to${A}be${E}` }]));
  const [bos, eos] = [tokenizer.bosId, tokenizer.eosId];
  expect([ids.indexOf(bos), ids.includes(eos), ids.filter((id) => id === tokenizer.tokenToId(A)).length]).toEqual([
    0,
    false,
    1,
  ]);
  expect(tokenizer.decode(ids)).toBe(`${B}${U}to${A}be${E}${A}`);
});

test("a token that the vocabulary lacks is encoded together with the text around it", async () => {
  const tokenizer = await trainTokenizer(["think>\nthink>\nthink>\n"], { vocabSize: 266, specialTokens: [U, A] });
  const ids = encodeSegments(tokenizer, renderChat("deepseek-r1", [QUESTION]));
  const tail = tokenizer.encode("<think>\n");
  expect(ids.subarray(-tail.length)).toEqual(tail);
});

test.each<[string, string | undefined, readonly string[], string | undefined, PreTokenizer?]>([
  ["deepseek-llm", "llama", [], undefined],
  ["deepseek-llm", "deepseek", [], undefined],
  ["deepseek-llm", "deepseek_v2", [], undefined],
  ["deepseek-v2.5", "deepseek_v2", [U], undefined, "deepseek-llm"],
  ["deepseek-v2.5", "deepseek2", [U], undefined, "deepseek-llm"],
  ["deepseek-v3", "deepseek2", [U], undefined],
  ["deepseek-v3", "deepseek_v3", [U], undefined],
  ["deepseek-r1", "deepseek_v3", [U, "<think>"], "{{ '<think>\\n' }}"],
  ["deepseek-v3.1", "deepseek_v3", [U, "<think>"], "{% if not thinking %}"],
  ["deepseek-v3.1", "deepseek2", [U, "<think>", "<｜search▁begin｜>"], undefined],
  ["deepseek-v3.2", "deepseek_v32", [U, "<think>", "｜DSML｜"], undefined],
  ["deepseek-v3.2", undefined, [U, "<think>", "｜DSML｜"], undefined],
  ["deepseek-v4", "deepseek_v4", [U, "<think>"], undefined],
])("%s is the template of %s with %j", (template, family, tokens, jinja, preTokenizer = "deepseek-v3") => {
  const tokenToId = (token: string): number | undefined => (tokens.includes(token) ? 1 : undefined);
  expect(defaultChatTemplate({ family, tokenizer: { tokenToId, preTokenizer }, jinja })).toBe(template);
});
