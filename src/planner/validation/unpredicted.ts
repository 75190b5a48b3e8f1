/** Published results of which too much is missing for a plan, with what is missing. */

import { device } from "../devices.ts";
import { peakOf } from "../hardware.ts";

interface UnpredictedResult {
  readonly id: string;
  readonly run: string;
  readonly published: string;
  /** What a device reached, for the share of its bf16 peak. */
  readonly reached?: { readonly device: string; readonly tflops: number };
  readonly missing: string;
  readonly source: string;
}

export interface UnpredictedRow extends UnpredictedResult {
  /** Published FLOPs over the dense bf16 peak. */
  readonly mfu: number | undefined;
}

type Rate = readonly [id: string, run: string, device: string, tflops: number];

const rates = (missing: string, source: string, rows: readonly Rate[]): UnpredictedResult[] =>
  rows.map(([id, run, name, tflops]) => ({
    ...{ id, run, missing, source },
    published: `${tflops} TFLOP/s a device`,
    reached: { device: name, tflops },
  }));

const RESULTS: readonly UnpredictedResult[] = [
  ...rates("devices, layout, batch, sequence, precision, recomputation", "Megatron MoE report, arXiv 2603.07685", [
    ["G8", "DeepSeek-V3 685B, GB300", "gb300", 1233],
    ["G8", "DeepSeek-V3 685B, GB200", "gb200", 1048],
    ["G8", "Qwen3-235B, GB300", "gb300", 974],
    ["G8", "Qwen3-235B, GB200", "gb200", 919],
  ]),
  ...rates("micro-batch, virtual stages", "Narayanan et al. 2021, arXiv 2104.04473", [
    ["G12", "GPT 1.7B, 32 A100", "a100", 137],
    ["G12", "GPT 1T, 3,072 A100", "a100", 163],
  ]),
  ...rates("sequence, layout, batch, recomputation", "torchtitan issue 1789", [
    ["G16", "DeepSeek 16B, 8 H100: about 11,600 tokens/s a device, 73.3 GiB", "h100", 203],
  ]),
  ...rates("sequence, rank and targets of the adapters, batch, recomputation", "NeMo Automodel performance summary", [
    ["G18", "Llama 3 8B with LoRA, 1 H100: 12,473 tokens/s", "h100", 402],
    ["G18", "Llama 3 70B with LoRA, 8 H100: 1,092 tokens/s a device", "h100", 316],
  ]),
  {
    ...{ id: "G20", run: "DeepSeek-V3, course of its training", source: "DeepSeek-V3 report 4.2" },
    published:
      "rate level to 10 T tokens, a cosine to 14.3 T, 333 B at 2.2e-5, 167 B at 7.3e-6; batch from 3,072 over 469 B",
    missing: "a schedule of these parts and a growing batch: the preset holds a cosine and the full batch",
  },
  {
    ...{ id: "G19", run: "nanochat speedrun, 8 H100", published: "1.65 hours to a CORE score of 0.2565" },
    ...{ missing: "model, tokens, batch; a score is learned, not planned", source: "nanochat leaderboard" },
  },
  {
    ...{ id: "G25", run: "SGLang with MTP, 8 H200", published: "1.8 times the tokens/s at batch 1, 1.5 times at 32" },
    ...{ missing: "drafts of a step, how often they are right, context", source: "SGLang, MTP" },
  },
  {
    ...{ id: "G25", run: "SGLang with data-parallel attention", published: "1.9 times the tokens/s" },
    ...{ missing: "devices, batch, context, layout", source: "SGLang, MTP" },
  },
  {
    ...{ id: "G27", run: "TensorRT-LLM, Qwen3-32B in fp8, 32 H200", published: "684.8 tokens/s a device" },
    ...{ missing: "prompt and output lengths, devices of each half", source: "TensorRT-LLM and aiconfigurator" },
  },
  {
    ...{ id: "G27", run: "aiconfigurator's search", published: "+40 % dense, +50 % DeepSeek-V3 over defaults" },
    ...{ missing: "the default and the found configurations", source: "arXiv 2601.06288" },
  },
];

export function unpredictedRows(): UnpredictedRow[] {
  return RESULTS.map((result) => ({ ...result, mfu: shareOf(result) }));
}

function shareOf({ reached }: UnpredictedResult): number | undefined {
  return reached && (reached.tflops * 1e12) / peakOf(device(reached.device), "bf16");
}
