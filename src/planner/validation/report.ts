/** The validation table: accounting, memory, time, and what is calibration only, with the bar of each row. */

import { accountingRows, type CheckedRow } from "./accounting.ts";
import { memoryRows } from "./memory.ts";
import { servedRows, type ServedRow } from "./serving.ts";
import { unpredictedRows, type UnpredictedRow } from "./unpredicted.ts";
import { impliedRows, timeGroups, type ImpliedRow, type TimedGroup } from "./timing.ts";

/** Largest error of a held-out row by engine, and of their median. */
const TIME_BARS: readonly (readonly [engine: RegExp, bar: number])[] = [
  [/^megatron-2022/, 0.08],
  [/^meta-llama3/, 0.15],
  [/^torchtitan/, 0.1],
];
const MEDIAN_BAR = 0.15;

export interface ValidationReport {
  readonly accounting: readonly CheckedRow[];
  readonly memory: readonly CheckedRow[];
  readonly time: readonly (TimedGroup & { readonly bar: number })[];
  /** Median error of all rows that were not fitted. */
  readonly median: number;
  readonly notPredictable: readonly ImpliedRow[];
  readonly served: readonly ServedRow[];
  readonly unpredicted: readonly UnpredictedRow[];
  /** A sentence for each row over its bar. */
  readonly misses: readonly string[];
}

export function validationReport(): ValidationReport {
  const accounting = accountingRows();
  const memory = memoryRows();
  const time = timeGroups().map((group) => ({ ...group, bar: barOf(group.name) }));
  const median = medianOf(time.flatMap(heldOut).map(({ error }) => Math.abs(error)));
  return {
    accounting,
    memory,
    time,
    median,
    notPredictable: impliedRows(),
    served: servedRows(),
    unpredicted: unpredictedRows(),
    misses: [
      ...[...accounting, ...memory].filter((row) => Math.abs(errorOf(row)) > row.bar).map(checkedMiss),
      ...time.flatMap(timeMisses),
      ...(median > MEDIAN_BAR
        ? [`time: the median must be at most ${percent(MEDIAN_BAR)}, got ${percent(median)}`]
        : []),
    ],
  };
}

/** Signed, of the published value. */
export function errorOf({ published, predicted }: CheckedRow): number {
  return predicted / published - 1;
}

function barOf(name: string): number {
  return TIME_BARS.find(([engine]) => engine.test(name))?.[1] ?? MEDIAN_BAR;
}

function heldOut({ rows }: TimedGroup): TimedGroup["rows"] {
  return rows.filter(({ run }) => run.role === "predict");
}

function medianOf(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = sorted.length / 2;
  return (sorted[Math.floor(middle)]! + sorted[Math.ceil(middle) - 1]!) / 2;
}

function checkedMiss(row: CheckedRow): string {
  return `${row.id}, ${row.what}: must be within ${percent(row.bar)}, got ${percent(errorOf(row))}`;
}

function timeMisses(group: TimedGroup & { readonly bar: number }): string[] {
  return heldOut(group)
    .filter(({ error }) => Math.abs(error) > group.bar)
    .map(({ run, error }) => `${run.id}: must be within ${percent(group.bar)}, got ${percent(error)}`);
}

function percent(share: number): string {
  return `${(share * 100).toFixed(2)} %`;
}

/** The report in Markdown, as `docs` shows it. */
export function validationText(report: ValidationReport): string {
  const { accounting, memory, time, median, notPredictable, served, unpredicted, misses } = report;
  return [
    "# The planner against published numbers",
    "## Accounting",
    checkedTable(accounting),
    "## Memory",
    checkedTable(memory),
    "## Time",
    "Two coefficients for each engine, device, precision and family, fitted on the rows marked fit.",
    ...time.map(timeTable),
    `Median error of the rows that were not fitted: ${percent(median)} (at most ${percent(MEDIAN_BAR)}).`,
    "## Not predictable",
    "Runs that leave out an input. The implied share of the bf16 peak is calibration, not a claim.",
    notPredictableTable(notPredictable),
    servedTable(served),
    unpredictedTable(unpredicted),
    "## Over the bar",
    misses.length === 0 ? "None." : misses.map((miss) => `- ${miss}`).join("\n"),
    "",
  ].join("\n\n");
}

function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  return [head, head.map(() => "---"), ...rows].map((cells) => `| ${cells.join(" | ")} |`).join("\n");
}

function checkedTable(rows: readonly CheckedRow[]): string {
  return table(
    ["row", "what", "published", "planner", "error", "bar", "inputs", "source"],
    rows.map((row) => [
      ...[row.id, row.what, `${figure(row.published)} ${row.unit}`.trim(), figure(row.predicted)],
      ...[percent(errorOf(row)), percent(row.bar), row.inputs, row.source],
    ]),
  );
}

function timeTable({ name, bar, coefficients, rows }: TimedGroup & { readonly bar: number }): string {
  const { computeShare, memoryShare } = coefficients;
  const shares = `products at ${percent(computeShare)} of the peak, other operations at ${percent(memoryShare)} of the memory's rate`;
  const cells = rows.map(({ run, published, predicted, error, leaveOneOut }) => [
    ...[run.id, run.role, `${figure(published)} ${UNITS[run.measured.metric]}`, figure(predicted), percent(error)],
    leaveOneOut === undefined ? "" : percent(leaveOneOut),
    [run.source, run.assumed].filter(Boolean).join("; assumed: "),
  ]);
  const head = ["row", "role", "published", "planner", "error", "leave one out", "source"];
  return `### ${name}\n\nBar ${percent(bar)}; ${shares}.\n\n${table(head, cells)}`;
}

const UNITS = { step: "s", tflops: "TFLOP/s", tokens: "tokens/s" } as const;

function notPredictableTable(rows: readonly ImpliedRow[]): string {
  return table(
    ["row", "run", "missing", "implied MFU", "source"],
    rows.map(({ run, mfu }) => [
      ...[run.id, `${run.model}, ${run.count} ${run.device}, ${run.engine}, ${run.precision}`],
      ...[run.missing.join(", "), percent(mfu), run.source],
    ]),
  );
}

function servedTable(rows: readonly ServedRow[]): string {
  return table(
    ["row", "run", "missing", "published", "bound", "implied share", "source"],
    rows.map(({ id, model, device, missing, published, bound, implied, source }) => [
      ...[id, `${model}, ${device}`, missing, `${figure(published)} tokens/s a device`],
      ...[bound === undefined ? "" : figure(bound), implied === undefined ? "" : percent(implied), source],
    ]),
  );
}

function unpredictedTable(rows: readonly UnpredictedRow[]): string {
  return table(
    ["row", "run", "missing", "published", "implied MFU", "source"],
    rows.map(({ id, run, missing, published, mfu, source }) => [
      ...[id, run, missing, published, mfu === undefined ? "" : percent(mfu), source],
    ]),
  );
}

function figure(value: number): string {
  return Number.isInteger(value) ? value.toLocaleString("en-US") : String(Number(value.toPrecision(5)));
}
