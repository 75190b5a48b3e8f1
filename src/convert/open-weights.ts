/** The parameters of a checkpoint in any format, each as rows of f32. */

import type { Blueprint } from "../blueprint/index.ts";
import type { OpenedModel } from "../blueprint/node.ts";
import { ConfigError } from "../core/errors.ts";
import { openGguf, openSafetensors } from "../formats/node.ts";
import { ggufWeights } from "./gguf-weights.ts";
import { hfWeights } from "./hf-weights.ts";
import type { ModelWeights } from "./model-weights.ts";

/** @throws ConfigError when the model is a preset or a configuration, which has no weights. */
export async function openWeights({ name, blueprint, source }: OpenedModel): Promise<ModelWeights> {
  switch (source.kind) {
    case "folder":
      return openHfWeights(source.path, blueprint);
    case "gguf": {
      const open = await openGguf(source.path);
      return { of: ggufWeights(open, blueprint), close: () => open.close() };
    }
    case "preset":
    case "config":
      throw new ConfigError("source", "must be a checkpoint with weights", name, "give its folder or .gguf file");
    default:
      return source satisfies never;
  }
}

async function openHfWeights(path: string, blueprint: Blueprint): Promise<ModelWeights> {
  const open = await openSafetensors(path);
  return { of: hfWeights(open, blueprint), close: () => open.close() };
}
