/** `fathom plan calibrate`: measures this machine and adds it to the hardware file. */

import { cpus, totalmem } from "node:os";
import { Command } from "commander";
import { ConfigError } from "../core/errors.ts";
import { measureRoof } from "../kernels/node.ts";
import { device, DEVICES, type DeviceRow } from "../planner/index.ts";
import { hardwareFile, saveRow } from "./hardware-file.ts";
import { checkThreads, integer } from "./options.ts";
import { print, printJson } from "./output.ts";

interface CalibrateOptions {
  readonly name: string;
  readonly out?: string;
  readonly threads?: number;
  readonly json?: boolean;
}

export function calibrateCommand(): Command {
  return new Command("calibrate")
    .description("measure this machine and add it to the hardware table")
    .option("--name <name>", "name of its row", "this-machine")
    .option("--out <file>", "hardware file (default: hardware.json in the cache folder)")
    .option("--threads <n>", "threads (default: the cores)", integer("--threads", 1))
    .option("--json", "the row as one JSON object on stdout")
    .action(calibrate);
}

async function calibrate({ name, out = hardwareFile(), threads, json = false }: CalibrateOptions): Promise<void> {
  if (threads !== undefined) checkThreads(threads);
  if (DEVICES.some((row) => row.name === name)) {
    throw new ConfigError("--name", "must not be a device of the table", name, "choose another, or leave it out");
  }
  const row = measuredRow(name, measureRoof(threads));
  await saveRow(row, out);
  if (json) return printJson({ file: out, row });
  const { title, memoryBytesPerSec, peaks, matmulShare = 0 } = device(name, [row]);
  print(`${name}: ${title}`);
  print(`memory     ${row.memory_gib.toFixed(1)} GiB at ${(memoryBytesPerSec / 1e9).toFixed(1)} GB/s`);
  for (const [format, peak] of Object.entries(peaks)) print(`${format.padEnd(10)} ${(peak / 1e12).toFixed(3)} TFLOP/s`);
  print(`products   ${(matmulShare * 100).toFixed(0)} % of the bf16 peak`);
  print(`added to   ${out}`);
}

interface Measured {
  readonly name: string;
  readonly value: number;
}

const TO_TERA = 1e-3;

/** The row of a machine from the speeds that `fathom bench` measures, in GB/s and GFLOP/s. */
export function measuredRow(name: string, roof: readonly Measured[]): DeviceRow {
  const best = (pattern: RegExp): number =>
    Math.max(0, ...roof.filter((row) => pattern.test(row.name)).map(({ value }) => value));
  const [fp32, bf16, int8] = [best(/^f32 multiply-add$/), best(/^bf16 (dot|tiles)$/), best(/^int8 dot$/)];
  const peaks = { fp32, bf16: Math.max(bf16, fp32), int8 };
  const reached = Math.max(best(/^bf16 .* x /), best(/^f32 .* x /));
  return {
    name,
    title: `${cpus()[0]?.model.trim() ?? "unknown"}, ${cpus().length} cores`,
    kind: "cpu",
    memory_gib: totalmem() / 2 ** 30,
    memory_gb_per_s: best(/^memory read$/),
    peak_tflops: Object.fromEntries(
      Object.entries(peaks)
        .filter(([, giga]) => giga > 0)
        .map(([format, giga]) => [format, giga * TO_TERA]),
    ),
    matmul_share: Math.min(1, reached / peaks.bf16),
    confidence: { default: "measured" },
    source: "fathom plan calibrate",
  };
}
