/** `fathom convert`: a checkpoint from one format or type to another. */

import { Command } from "commander";
import {
  GGUF_DTYPES,
  ggufFirstPart,
  HF_DTYPES,
  planConversion,
  verifyConversion,
  type CheckResult,
  type Conversion,
  type ConversionProgress,
  type Verified,
} from "../convert/node.ts";
import { ConfigError } from "../core/errors.ts";
import { openTexts } from "../data/node.ts";
import { checkRunnable } from "../model/index.ts";
import { firstLoss, type FirstLoss } from "./first-loss.ts";
import { checkPartners } from "./options.ts";
import { bytes, duration, print, printJson, ProgressLine } from "./output.ts";

interface ConvertCliOptions {
  readonly dtype: string;
  readonly maxShardSize?: number;
  readonly fusedExperts?: boolean;
  readonly adapter?: string;
  readonly config?: string;
  readonly dryRun?: boolean;
  readonly verify?: boolean;
  readonly text?: string;
  readonly json?: boolean;
}

export function convertCommand(): Command {
  return new Command("convert")
    .description("write a checkpoint in another format or type; a second start goes on where a first one ended")
    .argument("<source>", "a checkpoint folder or a .gguf file")
    .argument("<target>", "a folder that does not exist yet, or a .gguf file")
    .requiredOption("--dtype <type>", `${HF_DTYPES.join(", ")}; for .gguf ${GGUF_DTYPES.join(", ")}`)
    .option("--max-shard-size <size>", "bytes of tensors in one file, such as 5GB or 500MB", size)
    .option("--fused-experts", "experts of a layer as two tensors, as transformers 5 holds them")
    .option("--adapter <dir>", "merge this PEFT adapter into the weights")
    .option("--config <model>", "a preset or config.json, for a folder model{rank}-mp{world}.safetensors of the demo")
    .option("--dry-run", "only say what would be written, and whether the disk has room")
    .option("--verify", "read the result back: names, shapes, checksums, no NaN")
    .option("--text <file>", "with --verify: the loss on the beginning of this text must be far under ln V")
    .option("--json", "one JSON document on stdout")
    .action(convert);
}

const UNITS: Readonly<Record<string, number>> = {
  "": 1,
  KB: 1e3,
  MB: 1e6,
  GB: 1e9,
  TB: 1e12,
  KIB: 2 ** 10,
  MIB: 2 ** 20,
  GIB: 2 ** 30,
  TIB: 2 ** 40,
};

function size(text: string): number {
  const [, number, unit = ""] = /^(\d+(?:\.\d+)?)\s*([a-z]*)$/i.exec(text.trim()) ?? [];
  const factor = UNITS[unit.toUpperCase()];
  const value = Math.floor(Number(number) * (factor ?? Number.NaN));
  if (value >= 1) return value;
  throw new ConfigError("--max-shard-size", "must be bytes, KB, MB, GB, KiB, MiB or GiB", text, "for example 5GB");
}

async function convert(source: string, path: string, options: ConvertCliOptions, command: Command): Promise<void> {
  checkPartners(command, { text: "verify" });
  const target = path.replace(/(?<=.)[/\\]+$/, "");
  const { dtype, maxShardSize, fusedExperts = false, adapter, config, json = false } = options;
  const conversion = await planConversion({
    source,
    target,
    dtype,
    fusedExperts,
    ...(adapter === undefined ? {} : { adapter }),
    ...(config === undefined ? {} : { config }),
    ...(maxShardSize === undefined ? {} : { maxShardBytes: maxShardSize }),
  });
  try {
    if (options.text !== undefined) await checkText(conversion, options.text);
    if (!json) printPlan(conversion);
    if (options.dryRun === true) {
      if (json) printJson(planJson(conversion));
      else print(`free on the disk: ${bytes(conversion.freeBytes)}`);
      return;
    }
    let verified: VerifiedModel | undefined;
    const check: CheckResult = async (written, digests) => {
      verified = await verify(written, digests, options.text);
    };
    const progress = conversionProgress(new ProgressLine(process.stderr, Date.now), Date.now);
    const digests = await conversion.run(progress, options.verify === true ? check : undefined);
    if (json) printJson({ ...planJson(conversion), sha256: Object.fromEntries(digests), verified: verified ?? null });
    else printResult(ggufFirstPart(target, digests.keys()), verified);
  } finally {
    await conversion.close();
  }
}

/** Before anything is written. */
async function checkText({ model }: Conversion, text: string): Promise<void> {
  checkRunnable(model);
  const { documents } = await openTexts([text], process.cwd());
  for await (const pieces of documents()) for await (const piece of pieces) if (piece.trim() !== "") return;
  throw new ConfigError("--text", "must hold text to score", text, "give a longer text");
}

type VerifiedModel = Omit<Verified, "path"> & { readonly loss?: FirstLoss };

async function verify(
  written: string,
  digests: ReadonlyMap<string, string>,
  text: string | undefined,
): Promise<VerifiedModel> {
  try {
    const { path, ...verified } = await verifyConversion(written, digests);
    return text === undefined ? verified : { ...verified, loss: await firstLoss(path, text) };
  } catch (error) {
    process.stderr.write(`what was written did not pass, and has not got its name: it stays as ${written}\n`);
    throw error;
  }
}

/** Shorter conversions show no progress. */
const QUIET_MS = 1000;

/** @param now - clock in milliseconds. */
export function conversionProgress(line: ProgressLine, now: () => number): (progress: ConversionProgress) => void {
  const start = now();
  return ({ file, doneBytes, totalBytes }) => {
    const ms = now() - start;
    if (ms < QUIET_MS) return;
    const left = Math.max(0, totalBytes - doneBytes);
    const eta = duration(((ms / doneBytes) * left) / 1000);
    if (left === 0) line.clear();
    else line.update(`${file}: ${bytes(doneBytes)} of ${bytes(totalBytes)}  ETA ${eta}`);
  };
}

function printPlan({ plan, bytes: total, doneBytes }: Conversion): void {
  const count = plan.files.length;
  const done = doneBytes > 0 ? `, ${bytes(doneBytes)} of it written before` : "";
  print(`${plan.tensors} tensors in ${count} file${count === 1 ? "" : "s"}: ${bytes(total)}${done}`);
  for (const notice of plan.notices) print(`note: ${notice}`);
}

function printResult(target: string, verified: VerifiedModel | undefined): void {
  if (verified !== undefined) {
    const { tensors, values, files, loss } = verified;
    print(`verified: ${tensors} tensors, ${values} finite values, ${files} checksum${files === 1 ? "" : "s"}`);
    if (loss !== undefined) print(`loss of ${loss.tokens} tokens: ${lossText(loss)}`);
  }
  print(`written: ${target}`);
}

function lossText({ nats, chance }: FirstLoss): string {
  return `${nats.toFixed(2)} nats a token, by chance ${chance.toFixed(2)}`;
}

function planJson({ plan, bytes: total, doneBytes, freeBytes }: Conversion): object {
  return {
    tensors: plan.tensors,
    bytes: total,
    done_bytes: doneBytes,
    free_bytes: freeBytes,
    files: plan.files.map((file) => ({ name: file.name, bytes: file.bytes })),
    notices: plan.notices,
  };
}
