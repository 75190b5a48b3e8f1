/** llama.cpp: `llama-server` on one machine, with routed experts in its memory where the devices are too small. */

import { ConfigError } from "../../../core/errors.ts";
import type { LocalInput, NodeProgram } from "../launch.ts";
import { planLocalLaunch } from "../prediction.ts";
import { expand, type Phrase } from "../shell.ts";

const PORT = 8080;

export function llamaCpp(input: LocalInput): NodeProgram {
  const { job, modelName, site } = input;
  if (site.nodes > 1)
    throw new ConfigError("llama.cpp nodes", "must be 1", site.nodes, "choose vllm or sglang for more");
  return {
    prepare: [],
    run: [
      ["llama-server"],
      ["--model", expand("$GGUF")],
      ["--alias", modelName],
      ["--host", "0.0.0.0"],
      ["--port", PORT],
      ["--n-gpu-layers", "all"],
      ...expertFlags(input),
      // The context is shared out among the slots.
      ["--ctx-size", job.contextTokens * job.maxSequences],
      ["--parallel", job.maxSequences],
      ["--flash-attn", "on"],
      ["--cache-type-k", "f16"],
    ],
    environment: {},
    defaults: {},
    required: { GGUF: "the .gguf file of the model, or the first of its parts" },
    files: [],
    notes: [
      `The service answers on port ${PORT}, in the manner of OpenAI's API.`,
      `The plan is for the mix ${job.mix}: llama-quantize model-bf16.gguf model.gguf ${job.mix}`,
      "Make model-bf16.gguf from a Hugging Face folder with convert_hf_to_gguf.py of llama.cpp.",
    ],
    port: PORT,
  };
}

function expertFlags({ job, model, margin }: LocalInput): Phrase[] {
  const { cpuMoeLayers, moeLayers, nCpuMoe } = planLocalLaunch(model, job, margin);
  if (cpuMoeLayers === 0) return [];
  return cpuMoeLayers === moeLayers ? [["--cpu-moe"]] : [["--n-cpu-moe", nCpuMoe]];
}
