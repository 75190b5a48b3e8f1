/**
 * The chat of V3.2: turns as in V3.1, tool calls in DSML, results in a `<function_results>` block after which the
 * assistant goes on. Reasoning is kept after the last user message, where tools are still at work.
 *
 * **Source:** `encoding/` of DeepSeek-V3.2; llama.cpp models/templates/deepseek-ai-DeepSeek-V3.2.jinja for the words of the
 * tools block.
 */
import { schemaLines, writeCalls, writeMarked } from "./dsml.ts";
import {
  type ChatMessage,
  lastUserIndex,
  Rendering,
  type RenderOptions,
  type Segment,
  systemText,
  type ToolFunction,
} from "./message.ts";
import { ASSISTANT, BOS, END_THINK, EOS, THINK, USER } from "./tokens.ts";

export function renderV3_2(messages: readonly ChatMessage[], options: RenderOptions): readonly Segment[] {
  const { tools = [], thinking = false, addGenerationPrompt = true } = options;
  const out = new Rendering().token(BOS);
  const system = systemText(messages);
  out.text(system);
  if (tools.length > 0) writeTools(out, tools, system !== "");
  const lastUser = lastUserIndex(messages);
  messages.forEach((message, i) => {
    const thinks = thinking && i > lastUser;
    if (message.role === "user" || message.role === "developer") out.token(USER).text(message.content);
    else if (message.role === "tool") writeResult(out, message.content, messages[i - 1]?.role, messages[i + 1]?.role);
    else if (message.role === "assistant") {
      openAnswer(out, messages[i - 1]?.role, thinks);
      if (thinks) out.text(message.reasoning ?? "").token(END_THINK);
      out.text(message.content);
      writeCalls(out, "function_calls", message.toolCalls ?? []);
      if (message.open !== true) out.token(EOS);
    }
  });
  const last = messages.at(-1)?.role;
  if (addGenerationPrompt && last !== "assistant") openAnswer(out, last, thinking);
  return out.segments();
}

/** The beginning of an answer, up to its reasoning or, without thinking, its text. */
function openAnswer(out: Rendering, previous: ChatMessage["role"] | undefined, thinks: boolean): void {
  if (previous === "tool") out.text("\n\n");
  else out.token(ASSISTANT);
  out.token(thinks ? THINK : END_THINK);
}

function writeResult(
  out: Rendering,
  content: string,
  previous: ChatMessage["role"] | undefined,
  next: ChatMessage["role"] | undefined,
): void {
  if (previous !== "tool") out.text("\n\n<function_results>");
  out.text(`\n<result>${content}</result>`);
  if (next !== "tool") out.text("\n</function_results>");
}

const CALL_FORM = [
  "<｜DSML｜function_calls>",
  '<｜DSML｜invoke name="$FUNCTION_NAME">',
  '<｜DSML｜parameter name="$PARAMETER_NAME" string="true|false">$PARAMETER_VALUE</｜DSML｜parameter>',
  "...",
  "</｜DSML｜invoke>",
  '<｜DSML｜invoke name="$FUNCTION_NAME2">',
  "...",
  "</｜DSML｜invoke>",
  "</｜DSML｜function_calls>",
];

/** The words on which the model was trained. */
const TOOLS_HEADER = [
  "## Tools",
  "",
  "You have access to a set of tools you can use to answer the user's question.",
  'You can invoke functions by writing a "<｜DSML｜function_calls>" block like the following as part of your reply to the user:',
  ...CALL_FORM,
  "",
  'String and scalar parameters should be specified as is without any escaping or quotes, while lists and objects should use JSON format. The "string" attribute should be set to "true" for string type parameters and "false" for other types (numbers, booleans, arrays, objects).',
  "",
  "If the thinking_mode is enabled, then after function results you should strongly consider outputting a thinking block. Here is an example:",
  "",
  "<｜DSML｜function_calls>",
  "...",
  "</｜DSML｜function_calls>",
  "",
  "<function_results>",
  "...",
  "</function_results>",
  "",
  "<think>...thinking about results</think>",
  "",
  "Here are the functions available in JSONSchema format:",
  "<functions>",
  "",
].join("\n");

function writeTools(out: Rendering, tools: readonly ToolFunction[], afterSystem: boolean): void {
  if (afterSystem) out.text("\n\n");
  writeMarked(out, TOOLS_HEADER);
  out.text(`${schemaLines(tools)}\n</functions>\n`);
}
