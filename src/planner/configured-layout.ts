/** The layout that a run configuration asks for. */

import type { RunConfig } from "../config/index.ts";
import type { Layout, Recompute, ZeroStage } from "./layout.ts";

export function configuredLayout({ training, parallel }: Pick<RunConfig, "training" | "parallel">): Layout {
  const { tp, pp, vp, cp, ep, etp, dp } = parallel;
  return {
    ...{ tp, pp, vp, cp, ep, etp, dp },
    zero: parallel.zero as ZeroStage,
    recompute: configuredRecompute(parallel),
    schedule: parallel.pipelineSchedule,
    sequenceParallel: parallel.sequenceParallel,
    microBatchSize: training.microBatchSize,
    globalBatchSize: training.batchSize,
    seqLen: training.seqLen,
  };
}

function configuredRecompute({ recompute, recomputeFraction }: RunConfig["parallel"]): Recompute {
  if (recompute !== "full" || recomputeFraction === 1) return recompute;
  return `first-${recomputeFraction * 100}`;
}
