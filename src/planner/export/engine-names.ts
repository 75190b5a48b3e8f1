/** The engines by name and what each is made to do; how each is written down stands in engines.ts. */

import { ConfigError, nearest } from "../../core/errors.ts";
import type { Launch } from "./launch.ts";

export const ENGINE_TASKS = {
  megatron: "train",
  torchtitan: "train",
  automodel: "train",
  deepspeed: "train",
  vllm: "serve",
  sglang: "serve",
  "llama.cpp": "local",
  "deepseek-demo": "serve",
} as const satisfies Record<string, Launch["kind"]>;

export type EngineName = keyof typeof ENGINE_TASKS;

/** @throws ConfigError with the nearest name. */
export function findEngine(name: string): EngineName {
  if (Object.hasOwn(ENGINE_TASKS, name)) return name as EngineName;
  const names = Object.keys(ENGINE_TASKS);
  const near = nearest(name, names);
  throw new ConfigError("engine", `must be one of ${names.join(", ")}`, name, near && `did you mean ${near}?`);
}
