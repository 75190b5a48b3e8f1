/** A checkpoint's own chat template, rendered as `apply_chat_template` of Hugging Face `transformers` does. */
import { Template } from "@huggingface/jinja";
import { ConfigError, FormatError } from "../../core/errors.ts";
import type { ChatMessage, RenderOptions } from "./message.ts";

export interface JinjaTemplate {
  readonly text: string;
  /** Named by errors. */
  readonly file: string;
  readonly bosToken: string;
  readonly eosToken: string;
}

/**
 * The conversation as one string, in which special tokens that a message spells are special, as the template leaves them.
 * Nothing is repaired: the template of V3 does not close a single tool call.
 * @throws FormatError when the template is malformed, ConfigError when it refuses the conversation.
 */
export function renderJinja(template: JinjaTemplate, messages: readonly ChatMessage[], options: RenderOptions): string {
  const compiled = compile(template);
  const { tools, thinking, addGenerationPrompt = true } = options;
  const variables = {
    messages: messages.map(hfMessage),
    bos_token: template.bosToken,
    eos_token: template.eosToken,
    add_generation_prompt: addGenerationPrompt,
    ...(tools === undefined ? {} : { tools: tools.map((tool) => ({ type: "function", function: tool })) }),
    ...(thinking === undefined ? {} : { thinking }),
  };
  try {
    return compiled.render(variables);
  } catch (error) {
    throw new ConfigError("chat template of the checkpoint", "must take this conversation", (error as Error).message);
  }
}

function compile({ text, file }: JinjaTemplate): Template {
  try {
    return new Template(text);
  } catch (error) {
    throw new FormatError(file, "chat_template must be Jinja", { got: (error as Error).message });
  }
}

/** The message as transformers hands it to a template; an answer that only calls tools has no content. */
function hfMessage(message: ChatMessage): Record<string, unknown> {
  const { role, content } = message;
  if (message.role === "tool")
    return { role, content, ...(message.callId === undefined ? {} : { tool_call_id: message.callId }) };
  if (message.role !== "assistant") return { role, content };
  const { toolCalls, reasoning } = message;
  return {
    role,
    content: content === "" && toolCalls !== undefined ? null : content,
    ...(reasoning === undefined ? {} : { reasoning_content: reasoning }),
    ...(toolCalls === undefined ? {} : { tool_calls: toolCalls.map(hfToolCall) }),
  };
}

function hfToolCall({
  id,
  name,
  arguments: args,
}: NonNullable<Extract<ChatMessage, { role: "assistant" }>["toolCalls"]>[number]): Record<string, unknown> {
  return { type: "function", ...(id === undefined ? {} : { id }), function: { name, arguments: args } };
}
