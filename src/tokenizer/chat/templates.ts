/** The built-in chat templates by name, and which one a checkpoint was trained with. */
import { ConfigError } from "../../core/errors.ts";
import type { Tokenizer } from "../tokenizer.ts";
import type { ChatMessage, RenderOptions, Segment } from "./message.ts";
import { renderPlain } from "./plain.ts";
import { DSML, LATEST_REMINDER, THINK, USER } from "./tokens.ts";
import { type Render, renderR1, renderV3, renderV3_1 } from "./turns.ts";
import { renderV3_2 } from "./v3-2.ts";
import { renderV4 } from "./v4.ts";

export const CHAT_TEMPLATES = [
  "deepseek-llm",
  "deepseek-v2.5",
  "deepseek-v3",
  "deepseek-r1",
  "deepseek-v3.1",
  "deepseek-v3.2",
  "deepseek-v4",
] as const;

export type ChatTemplate = (typeof CHAT_TEMPLATES)[number];

const RENDER: Readonly<Record<ChatTemplate, Render>> = {
  "deepseek-llm": renderPlain,
  "deepseek-v2.5": renderV3,
  "deepseek-v3": renderV3,
  "deepseek-r1": renderR1,
  "deepseek-v3.1": renderV3_1,
  "deepseek-v3.2": renderV3_2,
  "deepseek-v4": renderV4,
};

/** The templates whose models can think; R1 always does. */
const THINKING: readonly ChatTemplate[] = ["deepseek-r1", "deepseek-v3.1", "deepseek-v3.2", "deepseek-v4"];

/**
 * The conversation as the model was trained to see it, BOS included. Text of the messages stays text, whatever it says.
 *
 *     const segments = renderChat("deepseek-v3", [{ role: "user", content: "Hello" }]);
 *     const ids = encodeSegments(tokenizer, segments);
 *
 * @throws ConfigError when thinking is asked of a template without it, or arguments of a tool call are not a JSON object.
 * @throws UnsupportedError for tools with `deepseek-llm`.
 */
export function renderChat(
  template: ChatTemplate,
  messages: readonly ChatMessage[],
  options: RenderOptions = {},
): readonly Segment[] {
  if (options.thinking === true && !THINKING.includes(template)) {
    const names = THINKING.join(", ");
    throw new ConfigError("thinking", `needs one of the templates ${names}`, template, "leave it out");
  }
  return RENDER[template](messages, options);
}

export interface CheckpointTraits {
  /** `model_type` of config.json, or `general.architecture` of GGUF. */
  readonly family?: string | undefined;
  readonly tokenizer: Pick<Tokenizer, "tokenToId" | "preTokenizer">;
  /** The checkpoint's own chat template in Jinja, where it has one. */
  readonly jinja?: string | undefined;
}

/**
 * The template of a checkpoint. Where one architecture has carried several (V2 and V2.5; V3, R1 and V3.1), their tokens and
 * their own template tell them apart; a vocabulary without `<｜User｜>` can only follow `deepseek-llm`. GGUF has one name for
 * the architecture of V2.5 and V3, but their numbers are split in different ways.
 */
export function defaultChatTemplate({ family = "", tokenizer, jinja = "" }: CheckpointTraits): ChatTemplate {
  const has = (token: string): boolean => tokenizer.tokenToId(token) !== undefined;
  const exact = BY_FAMILY[family];
  if (exact !== undefined) return exact;
  if (!has(USER)) return "deepseek-llm";
  if (has(DSML)) return has(LATEST_REMINDER) ? "deepseek-v4" : "deepseek-v3.2";
  if (has(THINK)) return has("<｜search▁begin｜>") || jinja.includes("thinking") ? "deepseek-v3.1" : "deepseek-r1";
  return tokenizer.preTokenizer === "deepseek-v3" ? "deepseek-v3" : "deepseek-v2.5";
}

const BY_FAMILY: Readonly<Record<string, ChatTemplate | undefined>> = {
  deepseek: "deepseek-llm",
  deepseek_v32: "deepseek-v3.2",
  deepseek32: "deepseek-v3.2",
  deepseek_v4: "deepseek-v4",
  deepseek4: "deepseek-v4",
};

/**
 * The ids of rendered segments: only special segments become special tokens. A token that the vocabulary does not have is
 * text, as `<think>` is for V3.
 */
export function encodeSegments(tokenizer: Tokenizer, segments: readonly Segment[]): Int32Array {
  const ids: number[] = [];
  let text = "";
  const flush = (): void => {
    if (text !== "") for (const id of tokenizer.encode(text, { allowSpecial: false })) ids.push(id);
    text = "";
  };
  for (const segment of segments) {
    const id = segment.special ? tokenizer.tokenToId(segment.text) : undefined;
    if (id === undefined) {
      text += segment.text;
      continue;
    }
    flush();
    ids.push(id);
  }
  flush();
  return Int32Array.from(ids);
}
