/**
 * The chat of V2.5, V3, R1 and V3.1: BOS, the system text, then `<｜User｜>` and `<｜Assistant｜>` turns. They differ in
 * what becomes of reasoning and in how a tool call is written. Blocks of tool calls and tool outputs are always closed.
 *
 * **Source:** the templates in their tokenizer_config.json.
 */
import {
  type ChatMessage,
  Rendering,
  type RenderOptions,
  type Segment,
  systemText,
  type ToolCall,
  type ToolFunction,
} from "./message.ts";
import { pythonJson } from "./python-json.ts";
import {
  ASSISTANT,
  BOS,
  CALL_BEGIN,
  CALL_END,
  CALLS_BEGIN,
  CALLS_END,
  END_THINK,
  EOS,
  OUTPUT_BEGIN,
  OUTPUT_END,
  OUTPUTS_BEGIN,
  OUTPUTS_END,
  SEP,
  THINK,
  USER,
} from "./tokens.ts";

interface TurnStyle {
  /** Writes what stands between `<｜Assistant｜>` and an answer of the history. */
  readonly openAnswer: (out: Rendering) => void;
  /** The same for the answer that is to come. */
  readonly openGeneration: (out: Rendering, thinking: boolean) => void;
  readonly writeTools: (out: Rendering, tools: readonly ToolFunction[]) => void;
  readonly writeCall: (out: Rendering, call: ToolCall) => void;
  /** Between two calls and between two outputs. */
  readonly separator: string;
  /** Whether outputs stand between tokens of their own. */
  readonly hasOutputsBlock: boolean;
  /** Whether another answer is opened after one. */
  readonly opensAfterAnswer: boolean;
}

const nothing = (): void => undefined;

/** V2.5 and V3: no thinking; tools are described by whoever writes the system text. */
const V3: TurnStyle = {
  openAnswer: nothing,
  openGeneration: nothing,
  writeTools: listTools,
  writeCall: (out, { name, arguments: args }) =>
    out.token(CALL_BEGIN).text("function").token(SEP).text(`${name}\n\`\`\`json\n${args}\n\`\`\``).token(CALL_END),
  separator: "\n",
  hasOutputsBlock: true,
  opensAfterAnswer: true,
};

/** R1 always thinks: its answer is begun for it. */
const R1: TurnStyle = { ...V3, openGeneration: (out) => out.token(THINK).text("\n") };

const V3_1: TurnStyle = {
  openAnswer: (out) => out.token(END_THINK),
  openGeneration: (out, thinking) => out.token(thinking ? THINK : END_THINK),
  writeTools: describeTools,
  writeCall: (out, { name, arguments: args }) => out.token(CALL_BEGIN).text(name).token(SEP).text(args).token(CALL_END),
  separator: "",
  hasOutputsBlock: false,
  opensAfterAnswer: false,
};

export type Render = (messages: readonly ChatMessage[], options: RenderOptions) => readonly Segment[];

export const renderV3: Render = (messages, options) => new TurnWriter(V3, options).render(messages);
export const renderR1: Render = (messages, options) => new TurnWriter(R1, options).render(messages);
export const renderV3_1: Render = (messages, options) => new TurnWriter(V3_1, options).render(messages);

class TurnWriter {
  readonly #style: TurnStyle;
  readonly #options: RenderOptions;
  readonly #out = new Rendering();

  constructor(style: TurnStyle, options: RenderOptions) {
    this.#style = style;
    this.#options = options;
  }

  render(messages: readonly ChatMessage[]): readonly Segment[] {
    const { tools = [] } = this.#options;
    const system = systemText(messages);
    this.#out.token(BOS).text(system);
    if (tools.length > 0) {
      if (system !== "") this.#out.text("\n\n");
      this.#style.writeTools(this.#out, tools);
    }
    messages.forEach((message, i) => this.#message(message, messages[i - 1]?.role, messages[i + 1]?.role));
    const last = messages.at(-1)?.role;
    // After outputs of tools the assistant's turn goes on.
    const isOpen = last === "tool" || (last === "assistant" && !this.#style.opensAfterAnswer);
    if ((this.#options.addGenerationPrompt ?? true) && !isOpen) {
      this.#out.token(ASSISTANT);
      this.#style.openGeneration(this.#out, this.#options.thinking ?? false);
    }
    return this.#out.segments();
  }

  #message(
    message: ChatMessage,
    previous: ChatMessage["role"] | undefined,
    next: ChatMessage["role"] | undefined,
  ): void {
    if (message.role === "user" || message.role === "developer") this.#out.token(USER).text(message.content);
    else if (message.role === "tool") this.#output(message.content, previous !== "tool", next !== "tool");
    else if (message.role === "assistant") this.#answer(message, previous === "tool");
  }

  #answer(message: Extract<ChatMessage, { role: "assistant" }>, afterTool: boolean): void {
    if (!afterTool) {
      this.#out.token(ASSISTANT);
      this.#style.openAnswer(this.#out);
    }
    this.#out.text(withoutReasoning(message.content));
    this.#calls(message.toolCalls ?? []);
    if (message.open !== true) this.#out.token(EOS);
  }

  #calls(calls: readonly ToolCall[]): void {
    if (calls.length === 0) return;
    this.#out.token(CALLS_BEGIN);
    calls.forEach((call, i) => {
      if (i > 0) this.#out.text(this.#style.separator);
      this.#style.writeCall(this.#out, call);
    });
    this.#out.token(CALLS_END);
  }

  #output(content: string, isFirst: boolean, isLast: boolean): void {
    const { hasOutputsBlock, separator } = this.#style;
    if (hasOutputsBlock && isFirst) this.#out.token(OUTPUTS_BEGIN);
    if (!isFirst) this.#out.text(separator);
    this.#out.token(OUTPUT_BEGIN).text(content).token(OUTPUT_END);
    if (hasOutputsBlock && isLast) this.#out.token(OUTPUTS_END);
  }
}

/** Text after `</think>`: earlier reasoning is not shown to the model again. */
function withoutReasoning(content: string): string {
  const at = content.lastIndexOf(END_THINK);
  return at < 0 ? content : content.slice(at + END_THINK.length);
}

/**
 * The templates of V2.5, V3 and R1 leave the description of tools to the system text.
 *
 * **Source:** model card of DeepSeek-V2.5, "Function calling".
 */
function listTools(out: Rendering, tools: readonly ToolFunction[]): void {
  const schemas = tools.map((tool) => `- \`${tool.name}\`:\n\`\`\`json\n${JSON.stringify(tool, null, 4)}\n\`\`\``);
  out.text(["## Tools", "### Function", "You have the following functions available:", ...schemas].join("\n\n"));
}

/** **Source:** model card of DeepSeek-V3.1, "ToolCall". */
function describeTools(out: Rendering, tools: readonly ToolFunction[]): void {
  out.text("## Tools\nYou have access to the following tools:\n");
  for (const { name, description = "", parameters = {} } of tools) {
    out.text(`\n### ${name}\nDescription: ${description}\n\nParameters: ${pythonJson(parameters)}\n`);
  }
  out.text("\nIMPORTANT: ALWAYS adhere to this exact format for tool use:\n");
  out.token(CALLS_BEGIN).token(CALL_BEGIN).text("tool_call_name").token(SEP).text("tool_call_arguments");
  out.token(CALL_END).text("{additional_tool_calls}").token(CALLS_END);
  out.text(
    [
      "\n\nWhere:",
      "- `tool_call_name` must be an exact match to one of the available tools",
      "- `tool_call_arguments` must be valid JSON that strictly follows the tool's Parameters Schema",
      "- For multiple tool calls, chain them directly without separators or spaces",
    ].join("\n"),
  );
}
