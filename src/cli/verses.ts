/** Samples of regulated verse, scored for form: 4 or 8 lines of exactly 5 or 7 characters. */

import { verseForm } from "../data/index.ts";
import type { Engine } from "../infer/index.ts";
import { collectAnswer } from "./generate.ts";

const SAMPLES = 20;
const SHOWN = 3;

/** Writes poems from nothing and says how many keep the form. */
export async function scoreVerses(engine: Engine): Promise<string> {
  const poems: string[] = [];
  for (let seed = 0; seed < SAMPLES; seed++) {
    const settings = { ...engine.settings.generation, maxTokens: 120, temperature: 0.8, topP: 0.95, seed };
    poems.push((await collectAnswer(engine, "", settings, () => undefined)).text.trim());
  }
  const inForm = poems.filter((poem) => verseForm(poem) !== undefined);
  const shown = [...inForm, ...poems].slice(0, SHOWN);
  return ["", ...shown.map((poem) => `${poem}\n`), `verse form ${inForm.length} of ${SAMPLES}`].join("\n");
}
