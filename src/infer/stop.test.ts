import fc from "fast-check";
import { expect, test } from "vitest";
import { StopWatch } from "./stop.ts";

/** What a reader sees of pieces, the rest at the end included. */
function read(stops: readonly string[], pieces: readonly string[]): { text: string; stopped: boolean } {
  const watch = new StopWatch(stops);
  let text = "";
  for (const piece of pieces) {
    const { shown, stopped } = watch.push(piece);
    text += shown;
    if (stopped) return { text, stopped };
  }
  return { text: text + watch.flush(), stopped: false };
}

test("a stop string ends the text before it, even in the middle of a piece", () => {
  expect(read(["END"], ["one END two"])).toEqual({ text: "one ", stopped: true });
  expect(read(["END"], ["one EN", "D two"])).toEqual({ text: "one ", stopped: true });
  expect(read(["END"], ["one", " ", "E", "N", "D"])).toEqual({ text: "one ", stopped: true });
});

test("the earliest of several stop strings counts", () => {
  expect(read(["cd", "b"], ["abcd"])).toEqual({ text: "a", stopped: true });
});

test("text that could begin a stop string waits, and is shown when it does not", () => {
  const watch = new StopWatch(["</s>"]);
  expect(watch.push("a<")).toEqual({ shown: "a", stopped: false });
  expect(watch.push("/")).toEqual({ shown: "", stopped: false });
  expect(watch.push("b>")).toEqual({ shown: "</b>", stopped: false });
  expect(watch.push("<")).toEqual({ shown: "", stopped: false });
  expect(watch.flush()).toBe("<");
  expect(watch.flush()).toBe("");
});

test("a stop string that overlaps itself is found", () => {
  expect(read(["aab"], ["a", "a", "a", "b"])).toEqual({ text: "a", stopped: true });
});

test("without stop strings everything is shown at once, and an empty one is none", () => {
  expect(new StopWatch([]).push("abc")).toEqual({ shown: "abc", stopped: false });
  expect(new StopWatch([""]).push("abc")).toEqual({ shown: "abc", stopped: false });
});

test("however the text is cut, it reads as the text up to the first stop string", () => {
  const letters = fc.string({ unit: fc.constantFrom("a", "b", "c"), maxLength: 30 });
  const stops = fc.array(fc.string({ unit: fc.constantFrom("a", "b", "c"), minLength: 1, maxLength: 4 }), {
    maxLength: 3,
  });
  fc.assert(
    fc.property(letters, stops, fc.infiniteStream(fc.integer({ min: 1, max: 3 })), (text, stops, cuts) => {
      const pieces: string[] = [];
      for (let at = 0; at < text.length; at += pieces.at(-1)!.length) {
        pieces.push(text.slice(at, at + cuts.next().value));
      }
      const found = stops
        .map((stop) => ({ at: text.indexOf(stop), end: text.indexOf(stop) + stop.length }))
        .filter(({ at }) => at >= 0);
      const { text: shown, stopped } = read(stops, pieces);
      expect(stopped).toBe(found.length > 0);
      if (found.length === 0) expect(shown).toBe(text);
      else {
        // A stop string that is complete earlier ends the text, though a longer one may have begun before it.
        const firstEnd = Math.min(...found.map(({ end }) => end));
        const possible = found.filter(({ at }) => at < firstEnd).map(({ at }) => text.slice(0, at));
        expect(possible).toContain(shown);
      }
    }),
    { seed: 3, numRuns: 500 },
  );
});
