/**
 * Published throughput of served models against the planner's bound, every peak reached. None of these runs states all
 * its inputs, so what they imply is calibration, not a claim.
 */

import { device } from "../devices.ts";
import { BOUND, planInference, type InferenceSettings } from "../inference.ts";
import { publishedShape } from "./models.ts";

interface ServedRun {
  readonly id: string;
  readonly what: "decode" | "prefill";
  readonly model: string;
  readonly device: string;
  /** Tokens per second of one device. */
  readonly published: number;
  /** Undefined when too much is missing for a bound. */
  readonly settings?: InferenceSettings;
  readonly missing: string;
  readonly source: string;
}

export interface ServedRow extends ServedRun {
  /** Tokens per second of one device at every peak, and the share of it that was reached. */
  readonly bound: number | undefined;
  readonly implied: number | undefined;
}

const OII = "open-infra-index, day 6";
const SGLANG = "SGLang, large-scale expert parallelism on 96 H100";

const RUNS: readonly ServedRun[] = [
  {
    ...{ id: "G21 decode", what: "decode", model: "deepseek-v3", device: "h800", published: 14_800 / 8, source: OII },
    settings: { devices: 144, batch: 144 * 88, context: 4989, overlap: true },
    missing: "sequences of a device (88 follow from 1,850 tokens/s at 21 for each user)",
  },
  {
    ...{ id: "G21 prefill", what: "prefill", model: "deepseek-v3", device: "h800", published: 73_700 / 8, source: OII },
    missing: "prompt lengths",
  },
  {
    ...{
      id: "G22 prefill",
      what: "prefill",
      model: "deepseek-v3",
      device: "h100",
      published: 52_300 / 8,
      source: SGLANG,
    },
    settings: { devices: 32, batch: 32, context: 2000, prompt: 2000, overlap: true },
    missing: "tokens of one pass (a prompt here)",
  },
  {
    ...{
      id: "G22 decode",
      what: "decode",
      model: "deepseek-v3",
      device: "h100",
      published: 22_300 / 8,
      source: SGLANG,
    },
    missing: "sequences of a device, output length",
  },
  {
    ...{ id: "G23 decode", what: "decode", model: "deepseek-v3", device: "gb200", published: 7583 },
    ...{ missing: "sequences of a device, context", source: "SGLang on GB200 NVL72, part 1" },
  },
  {
    ...{ id: "G24 decode", what: "decode", model: "deepseek-v3", device: "h200", published: 2200 },
    ...{ missing: "devices, sequences of a device, context", source: "vLLM, wide expert parallelism on H200" },
  },
  {
    ...{ id: "G28 prefill", what: "prefill", model: "deepseek-v3.2", device: "gb300", published: 7360 },
    ...{ missing: "prompt lengths, devices", source: "vLLM, V3.2 in fp4 on GB300" },
  },
];

export function servedRows(): ServedRow[] {
  return RUNS.map((run) => {
    const bound = boundOf(run);
    return { ...run, bound, implied: bound === undefined ? undefined : run.published / bound };
  });
}

function boundOf({ settings, what, model, device: name }: ServedRun): number | undefined {
  if (settings === undefined) return undefined;
  return planInference(publishedShape(model), device(name), { ...settings, ...BOUND })[what].tokensPerSecPerDevice;
}
