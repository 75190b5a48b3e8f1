/** Tells reasoning from answer in a stream of generated text. */
import { END_THINK, THINK } from "./tokens.ts";

/** Whether the answer to a rendered conversation begins inside its reasoning. */
export function beginsThinking(rendered: string): boolean {
  return rendered.trimEnd().endsWith(THINK);
}

export interface AnswerPart {
  readonly kind: "thinking" | "answer";
  readonly text: string;
}

/** Cuts at `<think>` and `</think>`, which are not part of either; text that may be half of one waits. */
export class ThinkingSplitter {
  #kind: AnswerPart["kind"];
  #waiting = "";
  /** Whitespace right behind a cut is not shown. */
  #isTrimming: boolean;

  constructor(beginsThinking: boolean) {
    this.#kind = beginsThinking ? "thinking" : "answer";
    this.#isTrimming = beginsThinking;
  }

  push(text: string): AnswerPart[] {
    this.#waiting += text;
    const parts: AnswerPart[] = [];
    for (let at = this.#waiting.indexOf(this.#mark()); at >= 0; at = this.#waiting.indexOf(this.#mark())) {
      this.#emit(parts, this.#waiting.slice(0, at));
      this.#waiting = this.#waiting.slice(at + this.#mark().length);
      this.#kind = this.#kind === "thinking" ? "answer" : "thinking";
      this.#isTrimming = true;
    }
    const kept = overlap(this.#waiting, this.#mark());
    this.#emit(parts, this.#waiting.slice(0, this.#waiting.length - kept));
    this.#waiting = this.#waiting.slice(this.#waiting.length - kept);
    return parts;
  }

  /** What still waits when the answer ends. */
  flush(): AnswerPart[] {
    const parts: AnswerPart[] = [];
    this.#emit(parts, this.#waiting);
    this.#waiting = "";
    return parts;
  }

  /** What ends the present part. */
  #mark(): string {
    return this.#kind === "thinking" ? END_THINK : THINK;
  }

  #emit(parts: AnswerPart[], text: string): void {
    const shown = this.#isTrimming ? text.trimStart() : text;
    if (shown === "") return;
    this.#isTrimming = false;
    parts.push({ kind: this.#kind, text: shown });
  }
}

/** Length of the longest end of `text` that `mark` begins with, short of the whole. */
function overlap(text: string, mark: string): number {
  for (let length = Math.min(text.length, mark.length - 1); length > 0; length--) {
    if (text.endsWith(mark.slice(0, length))) return length;
  }
  return 0;
}
