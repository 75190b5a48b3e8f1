/** A conversation as data, and what a template makes of it. */

export interface ToolCall {
  readonly name: string;
  /** A JSON object, as text. */
  readonly arguments: string;
  /** Names the call in the answer of the tool. */
  readonly id?: string;
}

/** The function that a model may call, with its parameters as a JSON schema. */
export interface ToolFunction {
  readonly name: string;
  readonly description?: string;
  readonly parameters?: unknown;
}

/** What a message asks a V4 model for in place of an answer. */
export type Task = "action" | "query" | "authority" | "domain" | "title" | "read_url";

export type ChatMessage =
  | { readonly role: "system"; readonly content: string }
  | { readonly role: "latest_reminder"; readonly content: string }
  | { readonly role: "user"; readonly content: string; readonly task?: Task }
  | { readonly role: "developer"; readonly content: string; readonly task?: Task }
  | {
      readonly role: "assistant";
      readonly content: string;
      /** The thinking before the content, without `<think>` and `</think>`. */
      readonly reasoning?: string;
      readonly toolCalls?: readonly ToolCall[];
      /** The message is unfinished: no end-of-sentence token follows it. */
      readonly open?: boolean;
    }
  | { readonly role: "tool"; readonly content: string; readonly callId?: string };

export interface RenderOptions {
  readonly tools?: readonly ToolFunction[];
  /** Whether the model is to think before it answers, where it can do both. Default false. */
  readonly thinking?: boolean;
  /** Ends with the opening of the assistant's turn. Default true. */
  readonly addGenerationPrompt?: boolean;
  /** V4: leaves out the reasoning of earlier turns. Default true; tools make it false. */
  readonly dropThinking?: boolean;
  /** V4: `max` puts its paragraph in front. */
  readonly reasoningEffort?: "high" | "max";
  /** V4: a JSON schema that the answer must follow. */
  readonly responseFormat?: unknown;
}

/** A part of a rendered conversation: a special token, or text in which nothing is special. */
export interface Segment {
  readonly text: string;
  readonly special: boolean;
}

/** A conversation, a template's own text and its tokens, put together in order. */
export class Rendering {
  readonly #segments: Segment[] = [];

  /** Text in which nothing is special, whatever it says. Neighbouring texts become one, as the tokenizer must see them. */
  text(text: string): this {
    if (text === "") return this;
    const last = this.#segments.at(-1);
    if (last === undefined || last.special) this.#segments.push({ text, special: false });
    else this.#segments.splice(-1, 1, { text: last.text + text, special: false });
    return this;
  }

  /** A token of the vocabulary. */
  token(text: string): this {
    this.#segments.push({ text, special: true });
    return this;
  }

  segments(): readonly Segment[] {
    return this.#segments;
  }
}

/** The rendered conversation as one string. */
export function segmentText(segments: readonly Segment[]): string {
  return segments.map(({ text }) => text).join("");
}

/** The texts of all system messages, joined. */
export function systemText(messages: readonly ChatMessage[]): string {
  const systems = messages.filter(({ role }) => role === "system");
  return systems.map(({ content }) => content).join("\n\n");
}

/** The place of the last user's message, -1 without one. */
export function lastUserIndex(messages: readonly ChatMessage[]): number {
  return messages.findLastIndex(({ role }) => role === "user" || role === "developer");
}
