/** The search for layouts that a command line asks for: what it gives is fixed, the rest is searched. */

import { ConfigError } from "../core/errors.ts";
import {
  brokenIdentity,
  checkLayout,
  completeLayout,
  IDENTITIES,
  SEARCH_GRID,
  searchLayouts,
  type SearchGrid,
  type SearchResult,
} from "../planner/index.ts";
import type { JobOptions, PlanJob } from "./plan-job.ts";

/** The search over what is not given. */
export function searchJob(job: PlanJob, options: JobOptions & { top?: number; exhaustive?: boolean }): SearchResult {
  const { world, globalBatchSize, seqLen, evaluator } = job;
  checkVirtual(options);
  return searchLayouts(evaluator, {
    ...{ world, globalBatchSize, seqLen, grid: gridOf(options) },
    ...{ keep: options.top ?? 1, prune: options.exhaustive !== true },
    ...(options.schedule === undefined ? {} : { schedule: options.schedule }),
    ...(options.dp === undefined ? {} : { dp: options.dp }),
  });
}

/** @throws ConfigError for virtual stages in a schedule without them. */
function checkVirtual({ vp = 1, schedule = "interleaved" }: JobOptions): void {
  if (vp === 1 || schedule === "interleaved" || schedule === "1f1b") return;
  const cure = "leave one of them out: virtual stages are interleaved";
  throw new ConfigError("--vp", `must be 1 with --schedule ${schedule}`, vp, cure);
}

function gridOf({ tp, pp, vp, cp, ep, etp, zero, recompute, microBatch }: JobOptions): SearchGrid {
  const given = { tp, pp, vp, cp, ep, etp, zero, recompute, microBatchSize: microBatch };
  return Object.fromEntries(
    Object.entries(SEARCH_GRID).map(([key, values]: [string, readonly unknown[]]) => {
      const value = given[key as keyof typeof given];
      return [key, value === undefined ? values : [value]];
    }),
  ) as unknown as SearchGrid;
}

/** The identity that the given numbers break, or those that fail all over the grid. */
export function nothingLegal(job: PlanJob, options: JobOptions, { counts }: SearchResult): ConfigError {
  const { tp = 1, pp = 1, vp = 1, cp = 1, ep = 1, etp = 1, microBatch = 1, dp, schedule } = options;
  const { world, globalBatchSize, seqLen, evaluator } = job;
  const given = { ...{ tp, pp, vp, cp, ep, etp }, microBatchSize: microBatch, globalBatchSize, seqLen };
  const degrees = { ...given, ...(dp === undefined ? {} : { dp }), ...(schedule === undefined ? {} : { schedule }) };
  const layout = completeLayout(degrees, world);
  const broken = IDENTITIES[brokenIdentity(layout, evaluator.job.shape, world)];
  if (broken?.name === "batch" && options.globalBatch === undefined) {
    const replicas = layout.microBatchSize * layout.dp;
    const rule = `the default, ${globalBatchSize} sequences, must be a multiple of micro-batch·DP (${layout.microBatchSize}·${layout.dp})`;
    const cure = `give one, for example --global-batch ${replicas * Math.ceil(globalBatchSize / replicas)}`;
    return new ConfigError("--global-batch", rule, undefined, cure);
  }
  checkLayout(layout, evaluator.job.shape, world);
  const failing = Object.keys(counts.illegal).join(", ");
  return new ConfigError("layout", `some layout must be legal; these identities fail: ${failing}`, options.gpus);
}
