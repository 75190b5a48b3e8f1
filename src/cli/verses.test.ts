import { expect, test } from "vitest";
import { resolveConfig } from "../config/index.ts";
import type { Engine, Piece } from "../infer/index.ts";
import { writePoems } from "./verses.ts";

const QUATRAIN = "白日依山盡，黃河入海流。\n欲窮千里目，更上一層樓。";

/** Writes in turns a quatrain, one that lacks its last mark, and prose. */
function poet(stopsAfter: number): { engine: Engine; seeds: number[] } {
  const texts = [QUATRAIN, QUATRAIN.slice(0, -1), "no verse"];
  const seeds: number[] = [];
  async function* generate(_: string, { seed }: { seed: number }): AsyncGenerator<Piece> {
    seeds.push(seed);
    const reason = seeds.length > stopsAfter ? "aborted" : "eos";
    yield { text: texts[seed % texts.length]!, end: { reason, tokens: 24, tokensPerSec: 100, promptTokens: 1 } };
  }
  return { engine: { settings: resolveConfig("tiny"), generate } as unknown as Engine, seeds };
}

test("twenty poems of twenty seeds are scored for form, and three shown", async () => {
  const { engine, seeds } = poet(20);
  let said = "";
  const result = await writePoems(engine, (text) => (said += text));
  expect(seeds).toEqual(Array.from({ length: 20 }, (_, i) => i));
  expect(result).toMatchObject({ in_verse_form: 7, samples: { length: 20 } });
  expect(said.split(QUATRAIN.slice(0, -1))).toHaveLength(3);
  expect(said).toContain("\nverse form 7 of 20\n");
});

test("Ctrl-C ends the poems, and those that are whole are scored", async () => {
  const { engine } = poet(4);
  let said = "";
  expect(await writePoems(engine, (text) => (said += text))).toMatchObject({
    in_verse_form: 2,
    samples: { length: 4 },
  });
  expect(said).toContain("verse form 2 of 4\n");
});
