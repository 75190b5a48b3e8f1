/** Settings of generation for scenes of use, with where they come from and where that is doubtful. */

import { ConfigError, nearest } from "../core/errors.ts";
import type { Changes } from "./action.ts";

export interface Scene {
  readonly name: string;
  readonly settings: Changes;
  readonly source: string;
  /** What is said against it, or against what is often advised. */
  readonly warning?: string;
}

const API = "DeepSeek API documentation, The Temperature Parameter";
const REMAPPED =
  "these temperatures are meant for DeepSeek's API, which maps them to lower ones; with local weights begin at 0.3 (V3) or 0.6 (R1)";
const ARTICLE = "articles about tuning DeepSeek-V2.5";

export const SCENES: readonly Scene[] = [
  {
    name: "efficient-inference",
    settings: { "generation.temperature": 0.3, "generation.max_tokens": 512, "serving.max_sequences": 32 },
    source: ARTICLE,
    warning:
      "articles promise this in 8 GB: that holds for models of 2 to 3 billion parameters in int8 or int4, see fathom plan fit",
  },
  {
    name: "high-quality",
    settings: { "generation.temperature": 0.8, "generation.top_p": 0.95, "generation.repetition_penalty": 1.1 },
    source: ARTICLE,
    warning:
      "the same articles say 1.2 in one place and 1.0 to 1.1 in another; 1.2 hurts code. It is not 30 % slower: sampling costs next to nothing",
  },
  {
    name: "structured-output",
    settings: { "generation.temperature": 0.3, "generation.top_p": 0.9, "generation.repetition_penalty": 1 },
    source: ARTICLE,
    warning: "formats repeat their own marks, so no repetition penalty",
  },
  {
    name: "creative",
    settings: { "generation.temperature": 0.9, "generation.top_p": 0.95 },
    source: ARTICLE,
    warning: "above 1.2 the text falls apart",
  },
  {
    name: "balanced",
    settings: { "generation.temperature": 0.7, "generation.top_p": 0.92 },
    source: ARTICLE,
  },
  { name: "code-and-math", settings: { "generation.temperature": 0, "generation.repetition_penalty": 1 }, source: API },
  { name: "data-analysis", settings: { "generation.temperature": 1 }, source: API, warning: REMAPPED },
  { name: "conversation", settings: { "generation.temperature": 1.3 }, source: API, warning: REMAPPED },
  { name: "translation", settings: { "generation.temperature": 1.3 }, source: API, warning: REMAPPED },
  { name: "poetry", settings: { "generation.temperature": 1.5 }, source: API, warning: REMAPPED },
  {
    name: "reasoning",
    settings: { "generation.temperature": 0.6, "generation.top_p": 0.95 },
    source: "DeepSeek-R1 README, usage recommendations",
    warning: "R1 wants no system prompt and an answer that begins with <think>",
  },
];

/** @throws ConfigError with the nearest name. */
export function findScene(name: string): Scene {
  const scene = SCENES.find((known) => known.name === name);
  if (scene !== undefined) return scene;
  const names = SCENES.map((known) => known.name);
  const near = nearest(name, names);
  throw new ConfigError("--scene", `must be one of ${names.join(", ")}`, name, near && `did you mean ${near}?`);
}
