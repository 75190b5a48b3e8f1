/**
 * The chat of V4. Results of tools become part of a user's turn, a turn may carry a task token, and reasoning of earlier
 * turns is dropped unless there are tools.
 *
 * **Source:** `encoding/` of DeepSeek-V4-Flash; llama.cpp models/templates/deepseek-ai-DeepSeek-V4.jinja for the words of
 * the blocks.
 */
import { schemaLines, writeCalls, writeMarked } from "./dsml.ts";
import {
  type ChatMessage,
  Rendering,
  type RenderOptions,
  type Segment,
  systemText,
  type Task,
  type ToolFunction,
} from "./message.ts";
import { pythonJson } from "./python-json.ts";
import { ASSISTANT, BOS, END_THINK, EOS, LATEST_REMINDER, THINK, USER } from "./tokens.ts";

/** A turn after user messages and tool results have been put together. */
type Turn =
  | { readonly role: "user"; readonly contents: readonly string[]; readonly task: Task | undefined }
  | Extract<ChatMessage, { role: "assistant" }>
  | { readonly role: "latest_reminder"; readonly content: string };

export function renderV4(messages: readonly ChatMessage[], options: RenderOptions): readonly Segment[] {
  return new V4Writer(options, mergeTurns(messages)).render(systemText(messages));
}

class V4Writer {
  readonly #out = new Rendering();
  readonly #options: RenderOptions;
  readonly #turns: readonly Turn[];
  readonly #thinking: boolean;
  /** The first turn whose reasoning is shown. */
  readonly #keptFrom: number;

  constructor(options: RenderOptions, turns: readonly Turn[]) {
    this.#options = options;
    this.#turns = turns;
    this.#thinking = options.thinking ?? false;
    const drops = (options.dropThinking ?? true) && (options.tools ?? []).length === 0;
    this.#keptFrom = drops ? turns.findLastIndex(({ role }) => role === "user") : 0;
  }

  render(system: string): readonly Segment[] {
    const { reasoningEffort } = this.#options;
    this.#out.token(BOS);
    if (this.#thinking && reasoningEffort === "max") this.#out.text(MAX_EFFORT);
    this.#system(system);
    this.#turns.forEach((turn, i) => {
      if (turn.role === "user") this.#user(turn, i);
      else if (turn.role === "assistant") this.#answer(turn, i);
      else this.#out.token(LATEST_REMINDER).text(turn.content);
    });
    return this.#out.segments();
  }

  #system(system: string): void {
    const { tools = [], responseFormat } = this.#options;
    this.#out.text(system);
    let isEmpty = system === "";
    const gap = (): void => {
      if (!isEmpty) this.#out.text("\n\n");
      isEmpty = false;
    };
    if (tools.length > 0) {
      gap();
      writeTools(this.#out, tools);
    }
    if (responseFormat === undefined) return;
    gap();
    this.#out.text(`${FORMAT_HEADER}${pythonJson(responseFormat)}`);
  }

  #user({ contents, task }: Extract<Turn, { role: "user" }>, at: number): void {
    this.#out.token(USER).text(contents.join("\n\n"));
    const next = this.#turns[at + 1]?.role;
    const isAnswered = next === undefined ? (this.#options.addGenerationPrompt ?? true) : next !== "user";
    if (task !== undefined && task !== "action") this.#out.token(`<｜${task}｜>`);
    else if (isAnswered) this.#openAnswer(at);
    if (task === "action") this.#out.token("<｜action｜>");
  }

  #openAnswer(at: number): void {
    this.#out.token(ASSISTANT).token(this.#thinking && at >= this.#keptFrom ? THINK : END_THINK);
  }

  #answer(turn: Extract<Turn, { role: "assistant" }>, at: number): void {
    const before = this.#turns[at - 1];
    if (before === undefined || before.role === "assistant") this.#openAnswer(at);
    const answersTask = before?.role === "user" && before.task !== undefined;
    if (this.#thinking && at >= this.#keptFrom && !answersTask) this.#out.text(turn.reasoning ?? "").token(END_THINK);
    this.#out.text(turn.content);
    writeCalls(this.#out, "tool_calls", turn.toolCalls ?? []);
    if (turn.open !== true) this.#out.token(EOS);
  }
}

/** Users' messages and results of tools that follow each other are one turn, results in the order of their calls. */
function mergeTurns(messages: readonly ChatMessage[]): Turn[] {
  const turns: Turn[] = [];
  for (const message of inCallOrder(messages)) {
    if (message.role === "system") continue;
    if (message.role === "assistant" || message.role === "latest_reminder") {
      turns.push(message);
      continue;
    }
    const content = message.role === "tool" ? `<tool_result>${message.content}</tool_result>` : message.content;
    const task = message.role === "tool" ? undefined : message.task;
    const last = turns.at(-1);
    if (last?.role === "user" && last.task === undefined) {
      turns.splice(-1, 1, { role: "user", contents: [...last.contents, content], task });
    } else {
      turns.push({ role: "user", contents: [content], task });
    }
  }
  return turns;
}

/** Each run of results sorted by the calls before it; a result that names no call keeps its place after them. */
function inCallOrder(messages: readonly ChatMessage[]): ChatMessage[] {
  let calls: readonly (string | undefined)[] = [];
  const runs: ChatMessage[][] = [];
  for (const message of messages) {
    const run = runs.at(-1);
    if (message.role === "tool" && run?.[0]?.role === "tool") run.push(message);
    else runs.push([message]);
  }
  return runs.flatMap((run) => {
    const [first] = run;
    if (first?.role === "assistant") calls = (first.toolCalls ?? []).map(({ id }) => id);
    if (first?.role !== "tool") return run;
    const placeOf = (message: ChatMessage): number => {
      const place = message.role === "tool" && message.callId !== undefined ? calls.indexOf(message.callId) : -1;
      return place < 0 ? calls.length : place;
    };
    return run.toSorted((a, b) => placeOf(a) - placeOf(b));
  });
}

const MAX_EFFORT = [
  "Reasoning Effort: Absolute maximum with no shortcuts permitted.",
  "You MUST be very thorough in your thinking and comprehensively decompose the problem to resolve the root cause, rigorously stress-testing your logic against all potential paths, edge cases, and adversarial scenarios.",
  "Explicitly write out your entire deliberation process, documenting every intermediate step, considered alternative, and rejected hypothesis to ensure absolutely no assumption is left unchecked.",
  "",
  "",
].join("\n");

const FORMAT_HEADER = "## Response Format:\n\nYou MUST strictly adhere to the following schema to reply:\n";

const TOOLS_HEADER = [
  "## Tools",
  "",
  'You have access to a set of tools to help answer the user\'s question. You can invoke tools by writing a "<｜DSML｜tool_calls>" block like the following:',
  "",
  "<｜DSML｜tool_calls>",
  '<｜DSML｜invoke name="$TOOL_NAME">',
  '<｜DSML｜parameter name="$PARAMETER_NAME" string="true|false">$PARAMETER_VALUE</｜DSML｜parameter>',
  "...",
  "</｜DSML｜invoke>",
  '<｜DSML｜invoke name="$TOOL_NAME2">',
  "...",
  "</｜DSML｜invoke>",
  "</｜DSML｜tool_calls>",
  "",
  'String parameters should be specified as is and set `string="true"`. For all other types (numbers, booleans, arrays, objects), pass the value in JSON format and set `string="false"`.',
  "",
  "If thinking_mode is enabled (triggered by <think>), you MUST output your complete reasoning inside <think>...</think> BEFORE any tool calls or final response.",
  "",
  "Otherwise, output directly after </think> with tool calls or final response.",
  "",
  "### Available Tool Schemas",
  "",
  "",
].join("\n");

const TOOLS_FOOTER =
  "\n\nYou MUST strictly follow the above defined tool name and parameter schemas to invoke tool calls.\n";

function writeTools(out: Rendering, tools: readonly ToolFunction[]): void {
  writeMarked(out, TOOLS_HEADER);
  out.text(schemaLines(tools)).text(TOOLS_FOOTER);
}
