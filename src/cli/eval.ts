/** `fathom eval`: measuring models on texts. */

import { Command } from "commander";
import { openTexts } from "../data/node.ts";
import {
  evaluateDivergence,
  evaluatePerplexity,
  resolveWindows,
  scoredShare,
  type Divergence,
  type EvaluationProgress,
  type EvaluationText,
  type Perplexity,
  type WindowOptions,
  type WindowRule,
} from "../evaluate/index.ts";
import { openScorer } from "../evaluate/node.ts";
import type { GemmImpl } from "../infer/index.ts";
import { availableBytes } from "../kernels/node.ts";
import { integer, openBackend } from "./options.ts";
import { parseBytes } from "./plan-local.ts";
import { settingOption } from "./setting-option.ts";
import { ProgressLine, duration, print, printJson, short } from "./output.ts";

interface EvalOptions extends WindowOptions {
  readonly data: string[];
  readonly threads?: number;
  readonly memoryLimit?: number;
  readonly gemmImpl?: GemmImpl;
  readonly json?: boolean;
}

interface PerplexityOptions extends EvalOptions {
  readonly model: string;
}

/** The exit code of a program that SIGINT ended. */
const INTERRUPTED = 130;

export function evalCommand(): Command {
  const verb = new Command("eval").description("measure models on texts");
  evalOptions(verb.command("perplexity"))
    .description("how well a model foretells a text: nats per token, bits per byte, perplexity")
    .requiredOption("--model <path>", "a run folder, a checkpoint, a Hugging Face model folder, or a GGUF file")
    .action(perplexity);
  evalOptions(verb.command("kld"))
    .description("how far the distributions of model B are from those of model A on a text")
    .argument("<a>", "the model that is taken for true")
    .argument("<b>", "the model that is compared with it, of the same vocabulary")
    .action(kld);
  return verb;
}

function evalOptions(command: Command): Command {
  return command
    .requiredOption("--data <glob...>", "text files; a .jsonl file is a document a line, any other is one document")
    .option("--context <n>", "tokens of a window (default: the model's, at most 2048)", integer("--context", 1))
    .option("--stride <n>", "tokens from window to window (default: half the context)", integer("--stride", 1))
    .option("--chunks <name>", "llama.cpp: its chunks of 512 tokens, the second half scored, in place of windows")
    .option("--threads <n>", "threads (default: the cores)", integer("--threads", 1))
    .addOption(settingOption("--gemm-impl <type>", "runtime.gemm_impl"))
    .option(
      "--memory-limit <size>",
      "most that weights, as they are stored, and activations may take (default: what is available)",
      (text) => parseBytes("--memory-limit", text),
    )
    .option("--json", "one JSON document on stdout");
}

async function perplexity(options: PerplexityOptions): Promise<void> {
  using backend = openBackend(options);
  using scorer = await openScorer(options.model, backend, options);
  const windows = resolveWindows(options, scorer.config.maxSeqLen);
  const { result, stopped } = await measure(options, windows, (text) => evaluatePerplexity(scorer, text));
  if (result.tokens === 0) return;
  if (options.json === true) return printJson({ ...perplexityFields(result), ...windowFields(windows), stopped });
  print(`perplexity ${withError(result.perplexity, result.perplexityError)}`);
  print(`${withError(result.nats, result.natsError)} nats per token`);
  print(`${withError(result.bitsPerByte, result.bitsPerByteError)} bits per byte`);
  print(`${result.tokens} tokens (${result.bytes} bytes) ${windowText(result.windows, windows)}`);
}

async function kld(a: string, b: string, options: EvalOptions): Promise<void> {
  using backend = openBackend(options);
  const { memoryLimit = availableBytes() } = options;
  using modelA = await openScorer(a, backend, { ...options, memoryLimit });
  const left = Math.max(0, memoryLimit - modelA.weightBytes);
  using modelB = await openScorer(b, backend, { ...options, memoryLimit: left });
  const windows = resolveWindows(options, Math.min(modelA.config.maxSeqLen, modelB.config.maxSeqLen));
  const { result, stopped } = await measure(options, windows, (text) => evaluateDivergence(modelA, modelB, text));
  if (result.tokens === 0) return;
  if (options.json === true) return printJson({ ...divergenceFields(result), ...windowFields(windows), stopped });
  print(`KL(A‖B) ${withError(result.mean, result.meanError)} nats per token`);
  const { percentile50, percentile90, percentile99, max } = result;
  print(
    `50 %: ${digits(percentile50)}  90 %: ${digits(percentile90)}  99 %: ${digits(percentile99)}  max: ${digits(max)}`,
  );
  print(`same likeliest token: ${(100 * result.topOneAgreement).toFixed(2)} %`);
  print(`${result.tokens} tokens ${windowText(result.windows, windows)}`);
}

/**
 * Runs an evaluation with its progress on stderr. The first Ctrl-C ends it with what it has, which can be no token at all;
 * a second one ends the process.
 */
async function measure<T extends { tokens: number }>(
  { data }: EvalOptions,
  windows: WindowRule,
  evaluate: (text: EvaluationText) => Promise<T>,
): Promise<{ result: T; stopped: boolean }> {
  const { sizeBytes, documents } = await openTexts(data, process.cwd());
  await readThrough(documents());
  const line = new ProgressLine(process.stderr, () => performance.now());
  const { signal, dispose } = interruption();
  const start = performance.now();
  const bytesToScore = sizeBytes * scoredShare(windows);
  const onProgress = (progress: EvaluationProgress): void =>
    line.update(progressText(progress, bytesToScore, (performance.now() - start) / 1000));
  try {
    const result = await evaluate({ documents: documents(), windows, signal, onProgress });
    if (signal.aborted) {
      line.say(`stopped: this is of the first ${result.tokens} scored tokens`);
      process.exitCode = INTERRUPTED;
    }
    return { result, stopped: signal.aborted };
  } finally {
    line.clear();
    dispose();
  }
}

/** Scoring takes far longer than reading: a file that is not text is found before it begins. */
async function readThrough(documents: AsyncIterable<AsyncIterable<string>>): Promise<void> {
  for await (const pieces of documents) for await (const _ of pieces);
}

function interruption(): { signal: AbortSignal; dispose: () => void } {
  const controller = new AbortController();
  const abort = (): void => controller.abort();
  process.once("SIGINT", abort);
  return { signal: controller.signal, dispose: () => void process.off("SIGINT", abort) };
}

function progressText({ tokens, bytes, mean }: EvaluationProgress, bytesToScore: number, seconds: number): string {
  const rest = Math.max(0, bytesToScore - bytes);
  return [
    `${short(tokens)} tokens, ${Math.min(100, (100 * bytes) / Math.max(1, bytesToScore)).toFixed(1)} %`,
    `${mean.toFixed(4)} nats`,
    `${short(tokens / seconds)} tokens/s`,
    `ETA ${duration((seconds * rest) / Math.max(1, bytes))}`,
  ].join("  ");
}

function perplexityFields(result: Perplexity): Record<string, number> {
  return {
    nats_per_token: result.nats,
    nats_per_token_error: result.natsError,
    bits_per_byte: result.bitsPerByte,
    bits_per_byte_error: result.bitsPerByteError,
    perplexity: result.perplexity,
    perplexity_error: result.perplexityError,
    tokens: result.tokens,
    bytes: result.bytes,
    windows: result.windows,
  };
}

function divergenceFields(result: Divergence): Record<string, number> {
  return {
    mean: result.mean,
    mean_error: result.meanError,
    percentile_50: result.percentile50,
    percentile_90: result.percentile90,
    percentile_99: result.percentile99,
    max: result.max,
    top_1_agreement: result.topOneAgreement,
    tokens: result.tokens,
    windows: result.windows,
  };
}

function windowFields(rule: WindowRule): Record<string, number | string> {
  const { context } = rule;
  return rule.kind === "sliding" ? { context, stride: rule.stride } : { context, chunks: rule.kind };
}

function windowText(count: number, rule: WindowRule): string {
  if (rule.kind === "llama.cpp")
    return `in ${count} llama.cpp chunks of ${rule.context}, the second half of each scored`;
  return `in ${count} windows of at most ${rule.context}, ${rule.stride} apart`;
}

function withError(value: number, error: number): string {
  return `${digits(value)} ± ${digits(error)}`;
}

/** Small divergences keep their digits. */
function digits(value: number): string {
  return value !== 0 && Math.abs(value) < 0.01 ? value.toExponential(3) : value.toFixed(4);
}
