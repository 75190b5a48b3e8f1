/** The chat of DeepSeek LLM, MoE-16B, V2 and Coder-V2: roles are words, and only BOS and EOS are tokens. */
import { UnsupportedError } from "../../core/errors.ts";
import { type ChatMessage, Rendering, type RenderOptions, type Segment, systemText } from "./message.ts";
import { BOS, EOS } from "./tokens.ts";

export function renderPlain(messages: readonly ChatMessage[], options: RenderOptions): readonly Segment[] {
  const out = new Rendering().token(BOS);
  const system = systemText(messages);
  if (system !== "") out.text(`${system}\n\n`);
  refuseTools(messages, options);
  for (const message of messages) {
    if (message.role === "user" || message.role === "developer") out.text(`User: ${message.content}\n\n`);
    if (message.role !== "assistant") continue;
    // An answer that was generated behind `Assistant:` brings the space along.
    out.text(`Assistant: ${message.content.trimStart()}`);
    if (message.open !== true) out.token(EOS);
  }
  if (options.addGenerationPrompt ?? true) out.text("Assistant:");
  return out.segments();
}

function refuseTools(messages: readonly ChatMessage[], { tools = [] }: RenderOptions): void {
  const used = messages.some(
    (message) => message.role === "tool" || (message.role === "assistant" && message.toolCalls),
  );
  if (!used && tools.length === 0) return;
  const available = ["deepseek-v2.5", "deepseek-v3", "deepseek-r1", "deepseek-v3.1", "deepseek-v3.2", "deepseek-v4"];
  throw new UnsupportedError("chat.tools", "need a template with tools", "deepseek-llm", available);
}
