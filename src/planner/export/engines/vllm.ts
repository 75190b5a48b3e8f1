/** vLLM: `vllm serve` on every node, or once where Ray holds the nodes together. */

import { ConfigError } from "../../../core/errors.ts";
import { RAY_PORT } from "../clusters/ray.ts";
import type { NodeProgram, ServingInput } from "../launch.ts";
import { expand, type Phrase } from "../shell.ts";

const PORT = 8000;
const RPC_PORT = 13345;

/** Tokens of prompts and answers in one step. */
const TOKEN_BUDGET = 8192;

/** The block of FlashMLA. */
const CACHE_BLOCK = 64;

/** How the nodes work together: alone, copies of the attention side by side, or one copy across nodes. */
type Spread = "one node" | "copies" | "across";

export function vllm(input: ServingInput): NodeProgram {
  const spread = spreadOf(input);
  return {
    prepare: prepare(input, spread),
    run: [
      ["vllm", "serve", expand("$MODEL_DIR")],
      ...sizeFlags(input),
      ...spreadFlags(input, spread),
      ...memoryFlags(input),
    ],
    environment: input.model.dtype === "fp8" ? { VLLM_USE_DEEP_GEMM: 1 } : {},
    defaults: {},
    required: { MODEL_DIR: "folder of the model, or its name on the Hugging Face hub" },
    files: [],
    notes: notes(input, spread),
    port: PORT,
  };
}

/** @throws ConfigError for copies that do not fit into whole nodes. */
function spreadOf({ site, job }: ServingInput): Spread {
  const devices = job.tp * job.pp;
  if (site.nodes === 1) return "one node";
  if (devices <= site.devicesPerNode) {
    if (site.devicesPerNode % devices === 0) return "copies";
    throw new ConfigError("vllm tp", `tp·pp must divide the devices of a node (${site.devicesPerNode})`, devices);
  }
  if (job.dp === 1) return "across";
  const rule = `must be 1 where tp·pp (${devices}) is more than a node has (${site.devicesPerNode})`;
  throw new ConfigError("vllm dp", rule, job.dp, "lower tp or pp");
}

function sizeFlags({ job }: ServingInput): Phrase[] {
  return [
    ["--host", "0.0.0.0"],
    ["--port", PORT],
    ["--tensor-parallel-size", job.tp],
    ...(job.pp > 1 ? [["--pipeline-parallel-size", job.pp]] : []),
    ...(job.dp > 1 ? [["--data-parallel-size", job.dp]] : []),
    ...(job.expertParallel ? [["--enable-expert-parallel"]] : []),
  ];
}

function spreadFlags(input: ServingInput, spread: Spread): Phrase[] {
  const { site, job, cluster } = input;
  if (spread === "across") return [["--distributed-executor-backend", "ray"]];
  if (spread === "one node") return [];
  const local: Phrase[] = [
    ["--data-parallel-size-local", copiesPerNode(input)],
    ...(job.expertParallel && site.nodes > 1 ? [["--all2all-backend", "deepep_low_latency"]] : []),
  ];
  if (cluster === "ray") return [...local, ["--data-parallel-backend", "ray"]];
  return [
    ...local,
    ["--data-parallel-address", expand("$MASTER_ADDR")],
    ["--data-parallel-rpc-port", RPC_PORT],
    [{ expand: "${role[@]}" }],
  ];
}

function copiesPerNode({ site, job }: ServingInput): number {
  return site.devicesPerNode / (job.tp * job.pp);
}

/** `--max-num-seqs` counts for one data-parallel rank. */
function memoryFlags({ job }: ServingInput): Phrase[] {
  const speculation = JSON.stringify({ method: "mtp", num_speculative_tokens: job.draftTokens });
  return [
    ["--max-model-len", job.contextTokens],
    ["--max-num-seqs", Math.ceil(job.maxSequences / job.dp)],
    ["--max-num-batched-tokens", TOKEN_BUDGET],
    ["--kv-cache-dtype", job.kvCache === "fp8" ? "fp8" : "auto"],
    ["--block-size", CACHE_BLOCK],
    ...(job.draftTokens > 0 ? [["--speculative-config", speculation]] : []),
  ];
}

function prepare(input: ServingInput, spread: Spread): string[] {
  if (input.cluster === "ray" || spread === "one node") return [];
  return spread === "across" ? [startRay(input.site.nodes)] : [chooseRole(input)];
}

/** The first node answers requests; the others only compute. */
function chooseRole(input: ServingInput): string {
  return [
    "role=()",
    'if [ "$NODE_RANK" -gt 0 ]; then',
    `  role=(--headless --data-parallel-start-rank "$((NODE_RANK * ${copiesPerNode(input)}))")`,
    "fi",
  ].join("\n");
}

function startRay(nodes: number): string {
  return [
    'if [ "$NODE_RANK" -gt 0 ]; then',
    `  until ray status --address="$MASTER_ADDR:${RAY_PORT}" >/dev/null 2>&1; do sleep 2; done`,
    `  exec ray start --address="$MASTER_ADDR:${RAY_PORT}" --block`,
    "fi",
    `ray start --head --port=${RAY_PORT}`,
    "python3 -c '",
    "import ray, time",
    'ray.init(address="auto")',
    `while len(ray.nodes()) < ${nodes}:`,
    "    time.sleep(2)",
    "'",
  ].join("\n");
}

function notes({ job, site }: ServingInput, spread: Spread): string[] {
  return [
    `The service answers on port ${PORT} of the first node, in the manner of OpenAI's API.`,
    ...(job.expertParallel && spread === "copies"
      ? ["The deepep_low_latency backend needs DeepEP on every node."]
      : []),
    ...(spread === "across" ? [`One copy spans ${site.nodes} nodes: Ray starts its workers.`] : []),
  ];
}
