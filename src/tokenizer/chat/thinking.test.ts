import fc from "fast-check";
import { expect, test } from "vitest";
import { type AnswerPart, beginsThinking, renderChat, segmentText, ThinkingSplitter } from "../index.ts";

function split(pieces: readonly string[], beginsThinking: boolean): Record<AnswerPart["kind"], string> {
  const splitter = new ThinkingSplitter(beginsThinking);
  const out = { thinking: "", answer: "" };
  for (const { kind, text } of [...pieces.flatMap((piece) => splitter.push(piece)), ...splitter.flush()])
    out[kind] += text;
  return out;
}

test("text up to </think> is reasoning when the answer begins inside it", () => {
  expect(split(["\nTwo and two.\n</think>\n\nFour."], true)).toEqual({ thinking: "Two and two.\n", answer: "Four." });
});

test("an answer may open its reasoning itself, and may never close it", () => {
  expect(split(["<think>hm</think>4"], false)).toEqual({ thinking: "hm", answer: "4" });
  expect(split(["<think>hm"], false)).toEqual({ thinking: "hm", answer: "" });
  expect(split(["a < b <thin"], false)).toEqual({ thinking: "", answer: "a < b <thin" });
});

test("where the stream is cut makes no difference", () => {
  const text = "<think>a </thin k</think>b<think>";
  fc.assert(
    fc.property(fc.array(fc.integer({ min: 0, max: text.length })), (cuts) => {
      const at = [0, ...cuts.toSorted((a, b) => a - b), text.length];
      expect(
        split(
          at.slice(1).map((end, i) => text.slice(at[i], end)),
          false,
        ),
      ).toEqual(split([text], false));
    }),
    { seed: 5 },
  );
});

test("an answer begins inside its reasoning when the conversation ends with <think>", () => {
  const begins = (template: "deepseek-r1" | "deepseek-v3.1", thinking: boolean): boolean =>
    beginsThinking(segmentText(renderChat(template, [{ role: "user", content: "<think>" }], { thinking })));
  expect([begins("deepseek-r1", false), begins("deepseek-v3.1", true), begins("deepseek-v3.1", false)]).toEqual([
    true,
    true,
    false,
  ]);
});
