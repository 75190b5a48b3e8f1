/** SGLang: `sglang.launch_server` on every node. */

import type { NodeProgram, ServingInput } from "../launch.ts";
import { expand, type Phrase } from "../shell.ts";

const PORT = 30000;
const INIT_PORT = 20000;

/** Share of the memory for weights and cache; the rest is for activations and graphs. */
const MEMORY_SHARE = 0.85;

/** Tokens of a long prompt that are read in one step. */
const PREFILL_CHUNK = 8192;

export function sglang(input: ServingInput): NodeProgram {
  return {
    prepare: [],
    run: [
      ["python3", "-m", "sglang.launch_server"],
      ["--model-path", expand("$MODEL_DIR")],
      ["--host", "0.0.0.0"],
      ["--port", PORT],
      ...sizeFlags(input),
      ...nodeFlags(input),
      ...memoryFlags(input),
    ],
    environment: {},
    defaults: {},
    required: { MODEL_DIR: "folder of the model, or its name on the Hugging Face hub" },
    files: [],
    notes: notes(input),
    port: PORT,
  };
}

/** SGLang's tensor-parallel size counts all devices of a stage; attention uses them in dp groups. */
function sizeFlags({ job, site }: ServingInput): Phrase[] {
  const devices = job.tp * job.dp;
  return [
    ["--tensor-parallel-size", devices],
    ...(job.pp > 1 ? [["--pipeline-parallel-size", job.pp]] : []),
    ...(job.dp > 1 ? [["--data-parallel-size", job.dp], ["--enable-dp-attention"]] : []),
    ...(job.expertParallel ? [["--expert-parallel-size", devices]] : []),
    ...(usesDeepEp({ job, site })
      ? [
          ["--moe-a2a-backend", "deepep"],
          ["--deepep-mode", "auto"],
        ]
      : []),
  ];
}

function usesDeepEp({ job, site }: Pick<ServingInput, "job" | "site">): boolean {
  return job.expertParallel && site.nodes > 1;
}

function nodeFlags({ site }: ServingInput): Phrase[] {
  if (site.nodes === 1) return [];
  return [
    ["--nnodes", site.nodes],
    ["--node-rank", expand("$NODE_RANK")],
    ["--dist-init-addr", expand(`$MASTER_ADDR:${INIT_PORT}`)],
  ];
}

function memoryFlags({ job }: ServingInput): Phrase[] {
  return [
    ["--context-length", job.contextTokens],
    ["--max-running-requests", job.maxSequences],
    ["--kv-cache-dtype", job.kvCache === "fp8" ? "fp8_e4m3" : "auto"],
    ["--mem-fraction-static", MEMORY_SHARE],
    ["--chunked-prefill-size", PREFILL_CHUNK],
    ...(job.draftTokens > 0 ? speculationFlags(job.draftTokens) : []),
  ];
}

function speculationFlags(draftTokens: number): Phrase[] {
  return [
    ["--speculative-algorithm", "EAGLE"],
    ["--speculative-num-steps", draftTokens],
    ["--speculative-eagle-topk", 1],
    ["--speculative-num-draft-tokens", draftTokens + 1],
  ];
}

function notes({ job, site, model }: ServingInput): string[] {
  return [
    `The service answers on port ${PORT} of the first node, in the manner of OpenAI's API.`,
    ...(model.dtype === "fp8"
      ? ["Compile DeepGEMM's kernels beforehand: python3 -m sglang.compile_deep_gemm with the same flags."]
      : []),
    ...(usesDeepEp({ job, site }) ? ["The deepep backend needs DeepEP on every node."] : []),
  ];
}
