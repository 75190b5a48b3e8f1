/** What engines on PyTorch share: torchrun on every node, and what becomes of the learning-rate schedule. */

import type { TrainingConfig } from "../../config/index.ts";
import type { Site } from "./launch.ts";
import { expand, type Phrase } from "./shell.ts";

/** One process per device; NODE_RANK and MASTER_ADDR come from whoever starts the node. */
export function torchrun(site: Site, program: Phrase = []): Phrase[] {
  return [
    ["torchrun"],
    ["--nnodes", site.nodes],
    ["--nproc_per_node", site.devicesPerNode],
    ["--node_rank", expand("$NODE_RANK")],
    ["--master_addr", expand("$MASTER_ADDR")],
    ["--master_port", expand("$MASTER_PORT")],
    ...(program.length === 0 ? [] : [program]),
  ];
}

/** A rate without the last digits of a product: 0.000042, not 0.000042000000000000004. */
export function plainRate(rate: number): number {
  return Number(rate.toPrecision(12));
}

/** Lowest learning rate as a share of the highest, without the last digits of a division. */
export function minLrShare({ lr, minLr }: TrainingConfig): number {
  return plainRate(minLr / lr);
}

/** No engine has DeepSeek's stairs. */
export function warnSchedule({ schedule, minLr }: TrainingConfig): string[] {
  if (schedule !== "piecewise") return [];
  return [`The engine has no piecewise learning rate; a cosine down to ${plainRate(minLr)} takes its place.`];
}
