/** `fathom plan fit MODEL --vram … --ram …`: which GGUF mixes run on one machine, and how fast at best. */

import type { Blueprint } from "../blueprint/index.ts";
import { ConfigError } from "../core/errors.ts";
import {
  ASSUMED,
  explainLocal,
  ggufMix,
  LOCAL_NAMES,
  planLocal,
  planLocalMixes,
  type GgufMix,
  type LocalPlan,
} from "../planner/index.ts";
import { userDevice } from "./hardware-file.ts";
import { print, printJson, size, snake } from "./output.ts";
import { numberNamed, type Labels } from "./plan-numbers.ts";
import { printQuantity } from "./plan-report.ts";
import { formatTable } from "./table.ts";

export interface LocalOptions {
  /** Sizes as written: `24GiB`. */
  readonly vram: string;
  readonly ram: string;
  readonly gpu?: string;
  readonly cpu?: string;
  /** GB/s of the RAM, where no CPU is named. */
  readonly ramBandwidth?: number;
  readonly context?: number;
  readonly quant?: string;
  readonly margin?: number;
  readonly imatrix?: boolean;
  /** A number whose derivation is asked for; it needs `quant`. */
  readonly why?: string;
  readonly hardware?: string;
  readonly json?: boolean;
}

/** Two channels of DDR5-5600, as in a usual desktop. */
const DESKTOP_RAM_GB_PER_S = 89.6;
const USUAL_GPU = "rtx-4090";
/** What scripts see when nothing fits. */
const NOTHING_FITS = 3;

/** Prints the plan; the exit code is 3 when no mix fits. */
export async function planLocalFit(name: string, model: Blueprint, options: LocalOptions): Promise<void> {
  const { context = 4096, margin = ASSUMED.memoryMargin, imatrix = true, json = false } = options;
  const gpu = await userDevice(options.gpu ?? USUAL_GPU, options.hardware);
  const cpu = options.cpu === undefined ? undefined : await userDevice(options.cpu, options.hardware);
  const machine = {
    vramBytes: parseBytes("--vram", options.vram),
    ramBytes: parseBytes("--ram", options.ram),
    vramBytesPerSec: gpu.memoryBytesPerSec,
    ramBytesPerSec: cpu?.memoryBytesPerSec ?? (options.ramBandwidth ?? DESKTOP_RAM_GB_PER_S) * 1e9,
  };
  const settings = { context, memoryShare: margin, imatrix };
  if (options.why !== undefined) {
    const number = numberNamed(LOCAL_NAMES, LOCAL_LABELS, options.why);
    const quantity = explainLocal(number, model, neededMix(options.quant), machine, settings);
    return json ? printJson(quantity) : printQuantity(quantity);
  }
  const plans =
    options.quant === undefined
      ? planLocalMixes(model, machine, settings)
      : [planLocal(model, ggufMix(options.quant), machine, settings)];
  if (!plans.some(({ fits }) => fits)) process.exitCode = NOTHING_FITS;
  if (json) return printJson(snake({ model: name, machine, margin, context, mixes: plans }));
  const ram = cpu?.title ?? (options.ramBandwidth === undefined ? "two channels of DDR5-5600" : "as given");
  print(`${name} on ${gpu.title}, RAM at ${(machine.ramBytesPerSec / 1e9).toFixed(1)} GB/s (${ram})`);
  print(
    `${context} tokens of context; ${margin} of ${size(machine.vramBytes)} and of ${size(machine.ramBytes)} may be used`,
  );
  print(localTable(plans));
  print("tokens/s is a bound: bytes of the chosen experts, the rest and the cache over the memories' bandwidths");
}

/** Rows by the heads of their columns. */
const LOCAL_LABELS: Labels = {
  file: "file.bytes",
  GPU: "gpu.total",
  RAM: "ram.weights",
  "--n-cpu-moe": "cpu_moe.flag",
  "n-cpu-moe": "cpu_moe.flag",
  limit: "gpu.limit",
  "tokens/s": "bound.rate",
  "tokens/s at most": "bound.rate",
};

function neededMix(quant: string | undefined): GgufMix {
  if (quant !== undefined) return ggufMix(quant);
  throw new ConfigError("--why", "must stand with --quant, whose numbers it explains");
}

function localTable(plans: readonly LocalPlan[]): string {
  return formatTable(
    {
      head: ["mix", "file", "GPU", "RAM", "--n-cpu-moe", "tokens/s at most", "fits"],
      rows: plans.map((plan) => [
        plan.mix,
        size(plan.fileBytes),
        size(plan.gpu.totalBytes),
        size(plan.ram.totalBytes),
        String(plan.nCpuMoe),
        plan.boundTokensPerSec.toFixed(1),
        plan.fits ? "yes" : "no",
      ]),
    },
    "text",
  );
}

const UNITS: Readonly<Record<string, number>> = {
  ...{ kb: 1e3, mb: 1e6, gb: 1e9, tb: 1e12 },
  ...{ kib: 2 ** 10, mib: 2 ** 20, gib: 2 ** 30, tib: 2 ** 40 },
};

/** `24GiB` or `24GB`. @throws ConfigError for a number without unit, or not above 0. */
export function parseBytes(option: string, text: string): number {
  const match = /^\s*(\d+(?:\.\d+)?)\s*([kmgt]i?b)\s*$/i.exec(text);
  const value = match === null ? 0 : Number(match[1]) * UNITS[match[2]!.toLowerCase()]!;
  if (value > 0 && Number.isFinite(value)) return value;
  throw new ConfigError(option, "must be a size above 0 with its unit", text, "for example 24GiB or 24GB");
}
