/** Runs a training job with its progress on stderr and, when asked, its events as JSON lines on stdout. */

import { existsSync } from "node:fs";
import { join } from "node:path";
import type { ResolvedConfig } from "../config/index.ts";
import { countParameters, blueprint } from "../blueprint/index.ts";
import { ConfigError } from "../core/errors.ts";
import { findCorpus } from "../data/index.ts";
import { openCorpus, openFiles, type Source } from "../data/node.ts";
import type { NativeBackend } from "../kernels/node.ts";
import { Trainer, trainLoop, type EvalReport, type StepReport } from "../train/index.ts";
import {
  CheckpointFolder,
  keepYoungGenerationSmall,
  lockRun,
  prepareText,
  type DataReference,
  type SavedRun,
} from "../train/node.ts";
import { cacheDir, openBackend } from "./options.ts";
import { ProgressLine, printJson, short } from "./output.ts";
import { StepLine, dataProgress } from "./progress.ts";
import { peakFlops } from "./roof.ts";
import { measureStep, stepsWithin } from "./trial.ts";

export interface TrainingJob {
  readonly config: ResolvedConfig;
  /** The same configuration for another number of steps. */
  readonly withSteps: (steps: number) => ResolvedConfig;
  readonly data: DataReference;
  /** The run folder. */
  readonly out: string;
  /** Go on from this checkpoint. */
  readonly resume?: SavedRun;
  readonly json: boolean;
  /** Measures for some seconds, then fixes the steps so that the run takes about so long. */
  readonly minutes?: number;
}

export interface TrainingResult {
  readonly checkpoint: string;
  readonly steps: number;
  readonly evaluations: readonly EvalReport[];
  /** Steps that a signal left to be taken; undefined when no signal ended the run. */
  readonly stepsLeft?: number;
}

/** What a run that a signal ended says of itself. */
export function stoppedText({ steps, stepsLeft }: TrainingResult, out: string): string {
  return stepsLeft === 0
    ? `stopped after the last step; write with: npx fathom generate --model ${out}`
    : `stopped after step ${steps}; go on with: npx fathom train --resume ${out}`;
}

/** @throws ConfigError when the folder holds a run already. */
export function checkHoldsNoRun(out: string): void {
  if (!existsSync(join(out, "latest"))) return;
  const cure = `go on with it by fathom train --resume ${out}, or give another folder`;
  throw new ConfigError("--out", "must not hold a run yet", out, cure);
}

const now = (): number => performance.now();

async function openSource(data: DataReference, line: ProgressLine): Promise<Source> {
  if (data.kind === "files") return openFiles(data.patterns, data.cwd);
  return openCorpus(findCorpus(data.name), { cacheDir: cacheDir(), onProgress: dataProgress(line) });
}

export async function runTraining(job: TrainingJob): Promise<TrainingResult> {
  const line = new ProgressLine(process.stderr, now);
  const source = await openSource(job.data, line);
  line.update(`preparing ${source.name}`);
  const text = await prepareText({
    source,
    vocabSize: job.config.model.vocabSize,
    valFraction: job.config.training.valFraction,
    cacheDir: cacheDir(),
    onProgress: dataProgress(line),
    ...(job.resume === undefined ? {} : { tokenizer: await job.resume.tokenizer() }),
  });
  using dataset = text.dataset;
  job.resume?.checkData(dataset.id);
  const folder = new CheckpointFolder(job.out, job.config.training.keepLast);
  await folder.create();
  using _ = lockRun(job.out);
  // Another process may have trained here while the text was prepared.
  if (job.resume === undefined) checkHoldsNoRun(job.out);
  keepYoungGenerationSmall();
  using backend = openBackend(job.config.runtime);
  const create = (config: ResolvedConfig): Trainer =>
    new Trainer({
      backend,
      config,
      train: dataset.train,
      validation: dataset.validation,
      tokenBytes: text.tokenBytes,
      now,
    });
  const config = job.minutes === undefined ? job.config : await fixSteps(create, job, job.minutes, line);
  using trainer = create(config);
  if (job.resume !== undefined) await job.resume.restore(trainer);
  line.say(describe(job, config, backend, dataset.train.length));
  const run = { config, data: job.data, dataset: dataset.id, tokenizer: text.tokenizer };
  const events = new EventPrinter(
    line,
    job.json,
    new StepLine({ steps: config.training.steps, peakFlops: peakFlops(backend) }),
  );
  using stop = stopSignal();
  let checkpoint = job.resume?.path ?? "";
  const evaluations: EvalReport[] = [];
  const save = (): Promise<string> => folder.save(trainer, run);
  for await (const event of trainLoop({ trainer, steps: config.training.steps, save, signal: stop.signal })) {
    if (event.kind === "step") events.step(event.report);
    else if (event.kind === "evaluation") {
      evaluations.push(event.report);
      events.evaluation(event.report);
    } else {
      checkpoint = event.path;
      events.checkpoint(event.path, event.step);
    }
  }
  line.clear();
  const { step } = trainer.state;
  const result = { checkpoint, steps: step, evaluations };
  return stop.signal.aborted ? { ...result, stepsLeft: config.training.steps - step } : result;
}

function describe(
  { out, resume }: TrainingJob,
  config: ResolvedConfig,
  backend: NativeBackend,
  tokens: number,
): string {
  const counts = countParameters(blueprint(config.model));
  const { steps, batchSize, seqLen, precision } = config.training;
  return [
    `model: ${short(counts.total)} parameters, ${short(counts.activated)} activated per token, ${short(counts.mtp)} more for MTP`,
    `data: ${short(tokens)} training tokens; ${steps} steps of ${batchSize} × ${seqLen} tokens`,
    `machine: ${backend.threads} threads, ${backend.isa}, ${precision}`,
    `run: ${out}${resume === undefined ? "" : `, resumed from step ${resume.state.step}`}`,
  ].join("\n");
}

/** The configuration with as many steps as fit into the minutes, by the speed of a trial that is thrown away. */
async function fixSteps(
  create: (config: ResolvedConfig) => Trainer,
  job: TrainingJob,
  minutes: number,
  line: ProgressLine,
): Promise<ResolvedConfig> {
  line.update("measuring the speed");
  using trainer = create(job.config);
  const msPerStep = await measureStep(() => trainer.step(), now);
  const steps = stepsWithin(minutes, msPerStep);
  line.say(`${(msPerStep / 1000).toFixed(2)} s a step: ${steps} steps take about ${minutes} min`);
  return job.withSteps(steps);
}

/** Aborted by the first SIGINT or SIGTERM; a second one ends the process at once. */
function stopSignal(): { signal: AbortSignal } & Disposable {
  const controller = new AbortController();
  const onSignal = (name: NodeJS.Signals): void => {
    if (controller.signal.aborted) process.exit(name === "SIGINT" ? 130 : 143);
    process.stderr.write("\nstopping after this step; the run will be saved\n");
    controller.abort();
  };
  process.on("SIGINT", onSignal).on("SIGTERM", onSignal);
  const dispose = (): void => void process.off("SIGINT", onSignal).off("SIGTERM", onSignal);
  return { signal: controller.signal, [Symbol.dispose]: dispose };
}

class EventPrinter {
  readonly #line: ProgressLine;
  readonly #json: boolean;
  readonly #steps: StepLine;

  constructor(line: ProgressLine, json: boolean, steps: StepLine) {
    this.#line = line;
    this.#json = json;
    this.#steps = steps;
  }

  step(report: StepReport): void {
    this.#line.update(this.#steps.next(report));
    if (this.#json) {
      printJson({
        step: report.step,
        loss: report.loss,
        mtp_loss: report.mtpLoss,
        balance_loss: report.balanceLoss,
        lr: report.lr,
        grad_norm: report.gradNorm,
        tokens: report.tokens,
        tokens_per_sec: report.tokensPerSec,
      });
    }
  }

  evaluation(report: EvalReport): void {
    const worst = Math.max(0, ...report.routing.map(({ maxLoad }) => maxLoad));
    const dead = report.routing.reduce((sum, { deadExperts }) => sum + deadExperts, 0);
    this.#line.say(
      `step ${report.step}: validation loss ${report.valLoss.toFixed(4)}, ${report.bitsPerByte.toFixed(3)} bits/byte; ` +
        `experts: busiest ${worst.toFixed(2)} × mean, ${dead} unused`,
    );
    if (this.#json) {
      printJson({
        step: report.step,
        val_loss: report.valLoss,
        bits_per_byte: report.bitsPerByte,
        val_tokens: report.tokens,
        routing: report.routing.map(({ counts, maxLoad, deadExperts, entropy }) => ({
          counts,
          max_load: maxLoad,
          dead_experts: deadExperts,
          entropy,
        })),
      });
    }
  }

  checkpoint(path: string, step: number): void {
    if (this.#json) printJson({ step, checkpoint: path });
  }
}

/** Where a run goes when nobody says: runs/NAME in the working folder. */
export function defaultOut(name: string): string {
  return join("runs", name);
}
