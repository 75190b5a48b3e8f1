/**
 * Bytes that a rank sends, and the time they take on the link that its group spans. Ranks of a group stand in the
 * order TP, CP, EP, DP, PP, as Megatron places them: a group that fits a node uses the fast link.
 *
 * **Source:** ring collectives move (n − 1)/n of the payload per reduce-scatter or all-gather; Megatron-Core for what
 * is sent when; DeepSeek-V3 report 3.2 for node-limited dispatch; Liu et al. 2023 for ring attention.
 */

import type { FormulaRow } from "./formula.ts";
import type { LayerKind, ModelShape } from "./shape.ts";

const seconds = (name: string, formula: string, meaning: string): FormulaRow => ({
  name,
  formula,
  unit: "s",
  meaning,
});
const bytes = (name: string, formula: string, meaning: string): FormulaRow => ({
  name,
  formula,
  unit: "bytes",
  meaning,
});

/** Rate of the link that each kind of group spans. */
export function linkRows(): FormulaRow[] {
  const link = (group: string, ranks: string): FormulaRow => ({
    name: `link.${group}`,
    formula: `if(ge(node, ${ranks}), link.intra, link.inter)`,
    unit: "bytes/s",
    meaning: `rate of the link within a ${group} group`,
    source: "Megatron-Core rank order tp-cp-ep-dp-pp",
  });
  return [
    link("tp", "tp"),
    link("cp", "tp * cp"),
    link("dp", "tp * cp * dp"),
    link("etp", "etp"),
    link("edp", "tp * cp * dp"),
    link("pp", "tp * cp * dp * pp"),
    {
      name: "ep.nodes",
      formula: "max(1, ep * etp / node)",
      unit: "nodes",
      meaning: "nodes that an expert-parallel group spans",
    },
  ];
}

/** What one layer of each kind sends forward for one micro-batch, and how long that takes. */
export function layerCommunicationRows(shape: ModelShape): FormulaRow[] {
  return shape.kinds.flatMap((kind) => [
    ...tensorParallelRows(kind),
    ...contextParallelRows(kind),
    ...expertParallelRows(kind),
  ]);
}

function tensorParallelRows({ name: k, ffn }: LayerKind): FormulaRow[] {
  const blocks = ffn.kind === "moe" && ffn.sharedWidth === 0 ? 1 : 2;
  return [
    bytes(
      `${k}.tp.bytes`,
      `${blocks} * 2 * (tp - 1) / tp * tokens * d * activation_bytes`,
      `tensor parallelism, forward: all-gather and reduce-scatter (or all-reduce) of ${blocks} blocks`,
    ),
    seconds(
      `${k}.tp.time`,
      `${k}.tp.bytes / link.tp + if(ge(tp, 2), ${2 * blocks} * latency, 0)`,
      "tensor parallelism, forward",
    ),
  ];
}

function contextParallelRows({ name: k, attention }: LayerKind): FormulaRow[] {
  const width =
    attention.kind === "mla"
      ? `${k}.heads * (${k}.nope + ${k}.rope + ${k}.v_dim)`
      : `2 * ${k}.kv_heads * ${k}.head_dim`;
  return [
    bytes(
      `${k}.cp.bytes`,
      `(cp - 1) * tokens * ${width} / tp * activation_bytes`,
      "context parallelism, forward: keys and values once around the ring",
    ),
    seconds(`${k}.cp.time`, `${k}.cp.bytes / link.cp + (cp - 1) * latency`, "context parallelism, forward"),
  ];
}

function expertParallelRows({ name: k, ffn }: LayerKind): FormulaRow[] {
  if (ffn.kind !== "moe") return [];
  const spread = `ep.nodes * (1 - pow(1 - 1 / ep.nodes, ${k}.active))`;
  return [
    {
      name: `${k}.ep.copies`,
      formula: ffn.nGroups === 1 ? spread : `min(${ffn.limitedGroups} * max(1, ep.nodes / ${ffn.nGroups}), ${spread})`,
      unit: "nodes",
      meaning:
        "nodes that a token's experts are on, when they fall evenly: those of the groups it may choose from, of which " +
        "each is on one node or spread over more",
      source: "DeepSeek-V3 report 2.1.2: node-limited routing",
    },
    bytes(
      `${k}.ep.copy`,
      "d * (dispatch_bytes + activation_bytes)",
      "expert parallelism: one token to one expert and back",
    ),
    bytes(
      `${k}.ep.network`,
      `tokens.sequence * ${k}.ep.copies * (ep.nodes - 1) / ep.nodes * ${k}.ep.copy`,
      "expert parallelism, forward: between nodes, one copy for each node",
    ),
    bytes(
      `${k}.ep.fast`,
      `tokens.sequence * ${k}.active * (ep - 1) / ep * ${k}.ep.copy`,
      "expert parallelism, forward: over the fast link, one copy for each expert",
    ),
    bytes(
      `${k}.etp.bytes`,
      `2 * (etp - 1) * tokens.sequence * ${k}.active * d * activation_bytes`,
      "expert tensor parallelism, forward: all-gather and reduce-scatter of the routed tokens",
    ),
    seconds(
      `${k}.ep.time`,
      `max(${k}.ep.network / link.inter, ${k}.ep.fast / link.intra) + ${k}.etp.bytes / link.etp + ` +
        "if(ge(ep, 2), 2 * latency, 0)",
      "expert parallelism, forward: network and fast link at once",
    ),
  ];
}

/** Pipeline and data-parallel traffic of a stage. */
export function stageCommunicationRows(): FormulaRow[] {
  const moved = (ranks: string): string => `(${ranks} - 1) / ${ranks}`;
  const traffic = (prefix: string): string => {
    const grads = `grad_bytes * ${prefix}params`;
    const weights = `weight_bytes * ${prefix}params`;
    return (
      `if(ge(zero, 3), micros * (${grads} + 2 * ${weights}), ` +
      `if(ge(zero, 2), micros * ${grads} + ${weights}, if(ge(zero, 1), ${grads} + ${weights}, 2 * ${grads})))`
    );
  };
  return [
    {
      ...bytes(
        "pp.bytes",
        "if(ge(pp, 2), pp.hops * tokens / tp * d * activation_bytes, 0)",
        "pipeline, forward: one micro-batch, each tensor-parallel rank its part",
      ),
      source: "Narayanan et al. 2021, 4.1: scatter and gather",
    },
    seconds(
      "pp.time",
      "pp.bytes / link.pp + if(ge(pp, 2), pp.hops * latency, 0)",
      "pipeline, forward: one micro-batch",
    ),
    bytes(
      "dp.dense.bytes",
      `${moved("ranks.dense")} * ${traffic("")}`,
      "data parallelism of a step: gradients reduced, weights gathered; ZeRO-2 and 3 for each micro-batch",
    ),
    bytes("dp.expert.bytes", `${moved("ranks.expert")} * ${traffic("expert_")}`, "the same for experts"),
    seconds("dp.time", "dp.dense.bytes / link.dp + dp.expert.bytes / link.edp", "data parallelism of a step"),
  ];
}
