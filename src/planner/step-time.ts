/**
 * Time of a step: each layer's products at a share of the peak, its other tensors at memory speed, what is sent on its
 * link, then the pipeline, its bubble, data parallelism and the optimizer.
 *
 * **Source:** roofline model (Williams et al. 2009) by layer; bubble as in schedules.ts.
 */

import { ASSUMED } from "./assumptions.ts";
import { formulaRow, type FormulaRow } from "./formula.ts";
import type { LayerKind, ModelShape } from "./shape.ts";
import { holders } from "./states.ts";
import { hasIndexer } from "./work.ts";

const seconds = (name: string, formula: string, meaning: string, source?: string): FormulaRow => ({
  name,
  formula,
  unit: "s",
  meaning,
  ...(source === undefined ? {} : { source }),
});

/** Forward, backward and recomputation of one layer of each kind for one micro-batch. */
export function layerTimeRows(shape: ModelShape): FormulaRow[] {
  return [
    {
      name: "rate.products",
      formula: "peak * compute_share",
      unit: "FLOP/s",
      meaning: "products in the recipe's format",
    },
    {
      name: "rate.bf16",
      formula: "peak.bf16 * compute_share",
      unit: "FLOP/s",
      meaning: "attention's core and the head",
    },
    {
      // Schedules of one direction have no other work beside all-to-all: at most the usual share of it is hidden.
      name: "hidden.sent",
      formula: `if(two_way, hidden_share, min(hidden_share, ${ASSUMED.hiddenShare}))`,
      unit: "",
      meaning: "share of expert, context and pipeline communication that runs behind computation (an assumption)",
      source: "DeepSeek-V3 report 3.2.1: DualPipe hides it behind the other direction; elsewhere at most half",
    },
    { name: "rate.memory", formula: "memory_rate * memory_share", unit: "bytes/s", meaning: "memory" },
    ...shape.kinds.flatMap(kindRows),
  ];
}

function kindRows(kind: LayerKind): FormulaRow[] {
  const k = kind.name;
  const isMoe = kind.ffn.kind === "moe";
  const indexed = hasIndexer(kind);
  const products = (flops: string, weights: string): string =>
    `max(${k}.flops.${flops} * tokens / tp / rate.products, weight_bytes * ${k}.${weights} / rate.memory)`;
  return [
    seconds(`${k}.time.dense`, products("dense", "params"), "forward, dense products, or their weights from memory"),
    ...(isMoe
      ? [
          seconds(
            `${k}.time.experts`,
            products("experts", "expert_params"),
            "forward, routed experts, or their weights",
          ),
        ]
      : []),
    seconds(`${k}.time.core`, `${k}.flops.core * tokens / tp / rate.bf16`, "forward, attention's core"),
    ...(indexed
      ? [
          seconds(
            `${k}.time.index`,
            `${k}.flops.index * tokens.sequence / rate.products`,
            "forward, scores of the indexer, each rank those of its part of the sequence",
          ),
          seconds(
            `${k}.time.index_backward`,
            `${k}.flops.index_backward * tokens.sequence / rate.products`,
            "backward of them",
          ),
        ]
      : []),
    seconds(
      `${k}.time.other`,
      `2 * ${k}.act.made / rate.memory`,
      "forward: each of the layer's tensors written once and read once",
    ),
    seconds(
      `${k}.time.forward`,
      `${k}.time.dense${isMoe ? ` + ${k}.time.experts` : ""} + ${k}.time.core${indexed ? ` + ${k}.time.index` : ""} + ${k}.time.other`,
      `forward of a ${k} layer`,
    ),
    seconds(
      `${k}.time.weight`,
      `${k}.flops.weight * tokens / tp / rate.products`,
      "backward, gradients of the weights",
    ),
    seconds(
      `${k}.time.backward`,
      `${k}.time.forward + ${k}.time.weight + ${k}.time.core + 0.5 * ${k}.time.other` +
        (indexed ? ` + ${k}.time.index_backward - ${k}.time.index` : ""),
      "backward: activations' gradients as forward, the core's twice; tensors read, their gradients written and read",
    ),
    seconds(
      `${k}.time.recompute`,
      `recompute.full * ${k}.time.forward + (1 - recompute.full) * recompute.selective * ` +
        `(${k}.flops.cheap * tokens / tp / rate.products + 2 * ${k}.act.made_again / rate.memory)`,
      "forward work that backward repeats",
    ),
    seconds(
      `${k}.sent.forward`,
      `${k}.cp.time${isMoe ? ` + ${k}.ep.time` : ""}`,
      "forward: context and expert parallelism, which may run behind other work",
    ),
    seconds(
      `${k}.sent.backward`,
      `(1 + recompute.full) * ${k}.sent.forward + ${k}.cp.time`,
      "backward: as forward, keys and values with their gradients; whole-layer recomputation sends again",
    ),
    seconds(
      `${k}.cp.exposed`,
      `${k}.cp.time - min(hidden.sent * ${k}.cp.time, ${k}.time.core)`,
      "context parallelism that is not hidden: at most behind attention's core",
      "Liu et al. 2023: the ring overlaps blockwise attention",
    ),
    seconds(
      `${k}.exposed.forward`,
      `${k}.cp.exposed${isMoe ? ` + (1 - hidden.sent) * ${k}.ep.time` : ""}`,
      "forward, communication that is not hidden",
    ),
    seconds(
      `${k}.exposed.backward`,
      `(1 + recompute.full) * ${k}.exposed.forward + ${k}.cp.exposed`,
      "backward, likewise",
    ),
  ];
}

/** Forward, backward, weight part of one micro-batch on the stage; then the step. */
export function stageTimeRows(shape: ModelShape): FormulaRow[] {
  const over = (of: string): string => shape.kinds.map(({ name }) => `${name}.worked * ${name}.${of}`).join(" + ");
  const mtpHeads = shape.nMtpLayers === 0 ? "" : " + mtp.layers";
  const head = `back.worked * (1${mtpHeads})`;
  return [
    seconds(
      "head.time",
      "(2 * d * vocab * tokens / tp) / rate.bf16 + 2 * (4 + activation_bytes) * tokens * vocab / tp / rate.memory",
      "head and loss, forward: products, then logits written and read",
    ),
    seconds(
      "work.forward",
      `${over("time.forward")} + ${over("tp.time")} + ${head} * head.time`,
      "forward of one micro-batch: computation, and tensor parallelism, which nothing can run behind",
    ),
    seconds(
      "work.backward",
      `${over("time.backward")} + ${over("time.recompute")} + (1 + recompute.full) * (${over("tp.time")}) + ` +
        `2 * ${head} * head.time`,
      "backward of one micro-batch, recomputation included",
    ),
    seconds("sent.forward", `${over("sent.forward")} + pp.time`, "forward, communication that may be hidden"),
    seconds("sent.backward", `${over("sent.backward")} + pp.time`, "backward, communication that may be hidden"),
    seconds(
      "exposed.forward",
      `${over("exposed.forward")} + (1 - hidden.sent) * pp.time`,
      "forward, communication that is not hidden",
    ),
    seconds(
      "exposed.backward",
      `${over("exposed.backward")} + (1 - hidden.sent) * pp.time`,
      "backward, communication that is not hidden",
    ),
    seconds(
      "stage.forward",
      exposed("forward"),
      "F: forward of one micro-batch, with communication that is not hidden",
    ),
    seconds("stage.backward", exposed("backward"), "B: backward of one micro-batch, likewise"),
    seconds("stage.weight", over("time.weight"), "W: the part of B for gradients of the weights"),
    seconds(
      "time.bubble",
      "bubble.steps * max(0, stage.forward + bubble.backward * stage.backward - bubble.weight * stage.weight)",
      "pipeline bubble of a step",
      "schedules.ts",
    ),
    seconds("time.work", "micros * (stage.forward + stage.backward)", "all micro-batches of a step"),
    seconds(
      "time.data_parallel",
      "max(0, dp.time - hidden_share * if(ge(zero, 2), time.work, stage.forward + stage.backward))",
      "data parallelism that is not hidden: behind one micro-batch, with ZeRO-2 and 3 behind all",
    ),
    seconds(
      "time.optimizer",
      "(grad_bytes + weight_bytes + 2 * (master_bytes + moment_bytes + second_moment_bytes)) * " +
        "(params / shards.optimizer.dense + expert_params / shards.optimizer.expert) / rate.memory",
      "optimizer: gradients read, states read and written, weights written",
    ),
    seconds(
      "time.step",
      "time.work + time.bubble + time.data_parallel + time.optimizer",
      "one optimizer step on the slowest rank",
    ),
  ];
}

/** What a step means for the whole run. */
export function runRows(): FormulaRow[] {
  return [
    formulaRow("run.devices", "tp * cp * dp * pp", "devices", "devices of the layout"),
    formulaRow("run.tokens", "micros * micro_batch * dp * seq", "tokens", "tokens of a step"),
    formulaRow("run.rate", "run.tokens / time.step", "tokens/s", "tokens of all devices"),
    formulaRow("run.device_rate", "run.rate / run.devices", "tokens/s", "tokens of one device"),
    formulaRow("run.tokens_per_day", "86400 * run.rate", "tokens", "tokens in 24 hours"),
    formulaRow("run.device_hours", "1e12 / run.device_rate / 3600", "device-hours", "device-hours for 10¹² tokens"),
    formulaRow(
      "run.mfu",
      "flops.training * run.device_rate / peak.bf16",
      "",
      "model FLOPs, causal, over the dense peak",
    ),
    formulaRow(
      "run.hfu",
      "(flops.training + flops.recompute) * run.device_rate / peak.bf16",
      "",
      "the same with recomputation",
    ),
    formulaRow("run.bubble_share", "time.bubble / time.step", "", "share of the step in which the pipeline waits"),
  ];
}

/** Some of what is sent waits, and no more can be hidden than there is work. */
function exposed(direction: "forward" | "backward"): string {
  const [work, sent] = [`work.${direction}`, `sent.${direction}`];
  return `max(${work} + exposed.${direction}, ${sent})`;
}

/** Memory besides the states, and the rank's total. */
export function stageMemoryRows(shape: ModelShape): FormulaRow[] {
  const kinds = shape.kinds.map(({ name }) => name);
  const bytes = (name: string, formula: string, meaning: string): FormulaRow => ({
    name,
    formula,
    unit: "bytes",
    meaning,
  });
  const working = kinds
    .map((k) => `if(${k}.held, ${k}.act.working, 0)`)
    .reduce((largest, one) => `max(${largest}, ${one})`);
  return [
    bytes(
      "memory.activations",
      [
        ...kinds.map((k) => `${k}.live * ${k}.act.kept`),
        "front.live * 8 * tokens",
        "back.live * 2 * activation_bytes * tokens.sequence * d",
      ].join(" + "),
      "activations of the micro-batches in flight; token ids at the embedding; inputs of the final norm and the head",
    ),
    bytes("memory.recompute", working, "one layer's recomputed activations while it runs backward"),
    bytes(
      "memory.logits",
      "back.held * (4 + activation_bytes) * tokens * vocab / tp / loss_chunks",
      "logits in float32 and their gradient, one micro-batch at a time",
    ),
    bytes(
      "memory.total",
      ["weights", "gradients", "master", "moments", "gathered", "activations", "recompute", "logits"]
        .map((part) => `memory.${part}`)
        .join(" + "),
      "all on the fullest rank",
    ),
    bytes("memory.limit", "device.memory * margin", "that may be planned of a device"),
    bytes("memory.over", "max(0, memory.total - memory.limit)", "beyond what may be planned"),
  ];
}

/** How many of each holder a stage holds, works on and keeps: inputs that `Stage` fills. */
export function stageInputNames(shape: ModelShape): { name: string; unit: string; meaning: string; source: string }[] {
  const source = "pipeline partition and schedule";
  return holders(shape).flatMap(({ name }) => [
    { name: `${name}.held`, unit: "", meaning: `how many ${name} the rank holds`, source },
    { name: `${name}.worked`, unit: "", meaning: `how many ${name} a micro-batch passes on the rank`, source },
    { name: `${name}.live`, unit: "", meaning: `how many ${name} are kept, micro-batches in flight counted`, source },
  ]);
}
