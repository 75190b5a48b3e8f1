/** What `chat` and `generate` share: a conversation with a model by its chat template. */

import type { GenerationConfig } from "../config/index.ts";
import { ConfigError, nearest, UnsupportedError } from "../core/errors.ts";
import type { Engine, GenerationEnd } from "../infer/index.ts";
import {
  type AnswerPart,
  beginsThinking,
  CHAT_TEMPLATES,
  type ChatMessage,
  type ChatTemplate,
  defaultChatTemplate,
  encodeSegments,
  renderChat,
  renderJinja,
  segmentText,
  ThinkingSplitter,
  type Tokenizer,
} from "../tokenizer/index.ts";
import { resolveModelFolder } from "../model/node.ts";
import { readCheckpointChat } from "../tokenizer/node.ts";
import { collectAnswer } from "./answer.ts";

const CHECKPOINT = "checkpoint";
/** What goes on with a conversation that fills the context. */
export const WAYS_ON = "/drop leaves out the oldest turn, --drop-oldest as many as need be";

interface ConversationOptions {
  readonly engine: Engine;
  readonly tokenizer: Tokenizer;
  /** A run folder, a checkpoint, a Hugging Face model folder, or a .gguf file. */
  readonly folder: string;
  /** A name, or `checkpoint` for the model's own Jinja; by default that of the model's family. */
  readonly template: string | undefined;
  readonly system: string | undefined;
  readonly thinking: boolean;
  /** Leaves out the oldest turns when question and answer would not fit the context with them. Default false. */
  readonly dropOldest?: boolean;
}

export interface Answer {
  readonly content: string;
  readonly reasoning: string;
  readonly end: GenerationEnd;
  /** Turns that were left out for this answer, and for those that follow. */
  readonly droppedTurns: number;
}

/** A rendered conversation. */
interface Prompt {
  readonly ids: ArrayLike<number>;
  readonly beginsThinking: boolean;
}

type Render = (messages: readonly ChatMessage[]) => Prompt;

type Turn = readonly [question: ChatMessage, answer: ChatMessage];

/** A conversation that grows by a question and its answer at a time. */
export class Conversation {
  /** The template's name, or `checkpoint`. */
  readonly template: string;
  readonly #engine: Engine;
  readonly #bosId: number;
  readonly #render: Render;
  readonly #system: readonly ChatMessage[];
  readonly #turns: Turn[] = [];
  readonly #dropOldest: boolean;

  private constructor(options: ConversationOptions, template: string, render: Render) {
    this.template = template;
    this.#engine = options.engine;
    this.#bosId = options.tokenizer.bosId;
    this.#render = render;
    this.#system = options.system === undefined ? [] : [{ role: "system", content: options.system }];
    this.#dropOldest = options.dropOldest === true;
  }

  /** Questions with their answers that the next question will follow. */
  get turns(): number {
    return this.#turns.length;
  }

  /** Leaves out up to `count` of the oldest turns; how many there were to leave out. */
  drop(count: number): number {
    return this.#turns.splice(0, count).length;
  }

  /** @throws ConfigError for an unknown template, UnsupportedError when the checkpoint has none of its own. */
  static async open(options: ConversationOptions): Promise<Conversation> {
    const { thinking, tokenizer } = options;
    const path = await resolveModelFolder(options.folder);
    const { family, jinja } = await readCheckpointChat(path);
    if (options.template === CHECKPOINT) {
      if (jinja === undefined) {
        const cure = "leave --chat-template out for the one of the family";
        throw new UnsupportedError("--chat-template", "needs a template in the checkpoint", path, CHAT_TEMPLATES, cure);
      }
      const own = jinjaOf(jinja, tokenizer);
      return new Conversation(options, CHECKPOINT, (messages) => {
        const text = renderJinja(own, messages, { thinking });
        return { ids: tokenizer.encode(text), beginsThinking: beginsThinking(text) };
      });
    }
    const template = namedTemplate(options.template) ?? defaultChatTemplate({ family, tokenizer, jinja: jinja?.text });
    // What the template cannot do is said before the first question.
    renderChat(template, [], { thinking });
    return new Conversation(options, template, (messages) => {
      const segments = renderChat(template, messages, { thinking });
      return { ids: encodeSegments(tokenizer, segments), beginsThinking: beginsThinking(segmentText(segments)) };
    });
  }

  /**
   * Puts a question and hands on the answer as it comes. Only its text is kept for the turns that follow.
   * @throws ConfigError when the conversation does not fit the context, or what the engine throws; it is then as before.
   */
  async ask(text: string, settings: GenerationConfig, onPart: (part: AnswerPart) => void): Promise<Answer> {
    const question: ChatMessage = { role: "user", content: text };
    const dropped = this.#dropOldest ? this.#surplusTurns(question, settings.maxTokens) : 0;
    const prompt = this.#promptFor(question, dropped);
    this.#checkFits(prompt, dropped);
    const splitter = new ThinkingSplitter(prompt.beginsThinking);
    const texts = { thinking: "", answer: "" };
    const take = (parts: readonly AnswerPart[]): void => {
      for (const part of parts) {
        texts[part.kind] += part.text;
        onPart(part);
      }
    };
    const { end } = await collectAnswer(this.#engine, prompt.ids, settings, (text) => take(splitter.push(text)));
    take(splitter.flush());
    this.drop(dropped);
    this.#turns.push([question, { role: "assistant", content: texts.answer, reasoning: texts.thinking }]);
    return { content: texts.answer, reasoning: texts.thinking, end, droppedTurns: dropped };
  }

  #promptFor(question: ChatMessage, dropped: number): Prompt {
    return this.#render([...this.#system, ...this.#turns.slice(dropped).flat(), question]);
  }

  /** BOS included, which the engine adds where the template does not. */
  #lengthOf({ ids }: Prompt): number {
    return ids[0] === this.#bosId ? ids.length : ids.length + 1;
  }

  /** How many turns must go so that the longest answer fits, for which at most half of the context is kept. */
  #surplusTurns(question: ChatMessage, maxTokens: number): number {
    const { maxSeqLen } = this.#engine.config;
    const room = maxSeqLen - Math.min(maxTokens, Math.floor(maxSeqLen / 2));
    let dropped = 0;
    while (dropped < this.turns && this.#lengthOf(this.#promptFor(question, dropped)) > room) dropped++;
    return dropped;
  }

  #checkFits(prompt: Prompt, dropped: number): void {
    const { maxSeqLen } = this.#engine.config;
    const length = this.#lengthOf(prompt);
    if (length < maxSeqLen) return;
    const cure = this.turns > dropped ? WAYS_ON : "shorten the question or the system text";
    throw new ConfigError("conversation", `must be shorter than the context of ${maxSeqLen} tokens`, length, cure);
  }
}

function jinjaOf(own: { text: string; file: string }, tokenizer: Tokenizer): Parameters<typeof renderJinja>[0] {
  const textOf = (id: number): string => tokenizer.decode([id]);
  return { ...own, bosToken: textOf(tokenizer.bosId), eosToken: textOf(tokenizer.eosId) };
}

function namedTemplate(name: string | undefined): ChatTemplate | undefined {
  if (name === undefined) return undefined;
  const known = CHAT_TEMPLATES.find((template) => template === name);
  if (known !== undefined) return known;
  const names = [...CHAT_TEMPLATES, CHECKPOINT];
  const close = nearest(name, names);
  const cure = close === undefined ? undefined : `did you mean ${close}?`;
  throw new ConfigError("--chat-template", `must be one of ${names.join(", ")}`, name, cure);
}

interface Printer {
  readonly show: (part: AnswerPart) => void;
  readonly end: () => void;
}

/** Shows an answer on a terminal: reasoning dim, or between `thinking:` and a blank line where there are no colours. */
export function createPrinter(stream: NodeJS.WriteStream): Printer {
  const [dim, plain] = stream.isTTY ? ["\u001B[2m", "\u001B[0m"] : ["", ""];
  let kind: AnswerPart["kind"] | undefined;
  return {
    show: (part) => {
      if (part.kind !== kind && part.kind === "thinking") stream.write(`${dim}thinking:\n`);
      if (part.kind !== kind && kind === "thinking") stream.write(`${plain}\n\n`);
      kind = part.kind;
      stream.write(part.text);
    },
    end: () => {
      stream.write(`${kind === "thinking" ? plain : ""}\n`);
      kind = undefined;
    },
  };
}
