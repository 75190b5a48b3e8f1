/** Samples of regulated verse, scored for form: 4 or 8 lines of exactly 5 or 7 characters. */

import { verseForm } from "../data/index.ts";
import type { Engine } from "../infer/index.ts";
import { collectAnswer } from "./answer.ts";

const SAMPLES = 20;
const SHOWN = 3;

/** Writes poems from nothing until Ctrl-C, shows the first of them, and says how many keep the form. */
export async function writePoems(engine: Engine, say: (text: string) => void): Promise<object> {
  const poems: string[] = [];
  for (let seed = 0; seed < SAMPLES; seed++) {
    const settings = { ...engine.settings.generation, maxTokens: 120, temperature: 0.8, topP: 0.95, seed };
    const { text, end } = await collectAnswer(engine, "", settings, () => undefined);
    if (end.reason === "aborted") break;
    poems.push(text.trim());
    if (seed < SHOWN) say(`\n${text.trim()}\n`);
  }
  const inForm = poems.filter((poem) => verseForm(poem) !== undefined).length;
  say(`\nin form: 4 or 8 lines of exactly 5 or 7 characters each\nverse form ${inForm} of ${poems.length}\n`);
  return { samples: poems, in_verse_form: inForm };
}
