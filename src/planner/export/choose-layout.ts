/** The fastest layout that fits and that an engine can be told, with some of its numbers pinned. */

import { ConfigError, MemoryError } from "../../core/errors.ts";
import { ASSUMED } from "../assumptions.ts";
import { engineEvaluator } from "../engine-evaluator.ts";
import type { Schedule } from "../layout.ts";
import { SEARCH_GRID, searchLayouts, type SearchGrid, type SearchResult } from "../search.ts";
import { modelShape } from "../shape.ts";
import { ENGINE_TASKS } from "./engine-names.ts";
import { engineRow } from "./engines.ts";
import { exportPlan, trainedModel, type ExportRequest } from "./export-plan.ts";
import type { LaunchFile, TrainingLaunch } from "./launch.ts";
import { limitGrid } from "./limits.ts";

/** Numbers that are given; the others are searched. */
export type PinnedLayout = { readonly [K in keyof SearchGrid]?: SearchGrid[K][number] | undefined };

export interface SearchedRequest extends Omit<ExportRequest, "job"> {
  readonly job: Omit<TrainingLaunch, "layout">;
  readonly globalBatchSize: number;
  readonly seqLen: number;
  readonly pinned: PinnedLayout;
  /** Data-parallel replicas, and the schedule of pipelines without virtual stages, where they are given. */
  readonly dp?: number | undefined;
  readonly schedule?: Schedule | undefined;
}

/** Layouts that are tried in an engine, from the fastest: its own rules are stricter than the identities. */
const CANDIDATES = 500;

/**
 * The folder for the fastest layout that the engine takes.
 *
 * @throws MemoryError when no layout fits. @throws ConfigError when the engine takes none, or none is legal.
 */
export function exportFastest(request: SearchedRequest): LaunchFile[] {
  const { best, nearest, counts } = search(request);
  let refusal: ConfigError | undefined;
  for (const { layout } of best) {
    try {
      return exportPlan({ ...request, job: { ...request.job, layout } });
    } catch (error) {
      if (!(error instanceof ConfigError)) throw error;
      refusal = error;
    }
  }
  if (refusal !== undefined) throw refusal;
  if (nearest !== undefined) {
    const available = request.device.memoryBytes * (request.margin ?? ASSUMED.memoryMargin);
    throw new MemoryError(
      "plan export",
      Math.ceil(nearest.memoryBytes),
      Math.floor(available),
      "take more devices or pin fewer numbers",
    );
  }
  const broken = Object.keys(counts.illegal).join(", ");
  throw new ConfigError("plan export", `some layout must be legal; these identities fail: ${broken}`, request.pinned);
}

function search(request: SearchedRequest): SearchResult {
  const {
    engine,
    device,
    nodes,
    devicesPerNode,
    job,
    margin = ASSUMED.memoryMargin,
    globalBatchSize,
    seqLen,
  } = request;
  const model = trainedModel(request);
  const cluster = { device, count: nodes * devicesPerNode };
  const shape = modelShape(model);
  const evaluator = engineEvaluator({ shape, recipe: job.precision, cluster, engine, margin });
  return searchLayouts(evaluator, {
    world: cluster.count,
    globalBatchSize,
    seqLen,
    grid: gridOf(request),
    ...(request.dp === undefined ? {} : { dp: request.dp }),
    ...(request.schedule === undefined ? {} : { schedule: request.schedule }),
    keep: CANDIDATES,
  });
}

/** @throws ConfigError for an engine that does not train. */
function gridOf({ engine, model, pinned }: SearchedRequest): SearchGrid {
  const { limits } = engineRow(engine);
  if (limits === undefined)
    throw new ConfigError("engine", "must be one that trains", engine, `it is made to ${ENGINE_TASKS[engine]}`);
  const given = Object.entries(pinned).filter(([, value]) => value !== undefined);
  return {
    ...limitGrid(limits(model), SEARCH_GRID),
    ...Object.fromEntries(given.map(([key, value]) => [key, [value]])),
  };
}
