/** A plan as a folder of launch files, as data: a browser can make it as well as the command line. */

import { hfConfigText, type ModelConfig } from "../../config/index.ts";
import { ConfigError } from "../../core/errors.ts";
import type { Device } from "../hardware.ts";
import { checkLayout, layoutText } from "../layout.ts";
import { modelShape } from "../shape.ts";
import { jobset } from "./clusters/jobset.ts";
import { lws } from "./clusters/lws.ts";
import { mpi } from "./clusters/mpi.ts";
import { ray } from "./clusters/ray.ts";
import { slurm } from "./clusters/slurm.ts";
import type { EngineName } from "./engine-names.ts";
import { checkCluster, engineProgram, engineRow } from "./engines.ts";
import { checkListed, extraEnvironment, extraFlags, flagNames } from "./flag-rules.ts";
import type { ClusterFiles, ClusterName, Launch, LaunchFile, NodeProgram, Site } from "./launch.ts";
import { planPage, type Fact } from "./plan-page.ts";
import { predict } from "./prediction.ts";
import { command, script, type Script, type Word } from "./shell.ts";

export interface ExportRequest {
  readonly engine: EngineName;
  readonly cluster?: ClusterName;
  readonly model: ModelConfig;
  /** As the user named the model. */
  readonly modelName: string;
  /** Words that name the model, and the user's hardware file, to `fathom plan`; without them the model's name. */
  readonly planArguments?: readonly string[];
  readonly device: Device;
  readonly nodes: number;
  readonly devicesPerNode: number;
  readonly job: Launch;
  /** Share of a device's memory that may be planned; 0.85. */
  readonly margin?: number;
  /** Begin and end of a text in the model's tokenizer; without them those of the released vocabularies. */
  readonly tokens?: { readonly bos: number; readonly eos: number };
  /** Container image; without it the engine's own, where it publishes one. */
  readonly image?: string;
  /** Host names; without them placeholders. */
  readonly hosts?: readonly string[];
  /** Flags for the engine beyond those of the plan: `--name value`. */
  readonly flags?: readonly string[];
  /** Variables of the environment beyond those of the plan: `NAME=value`. */
  readonly environment?: readonly string[];
}

/**
 * The files of the folder: launch script, engine configuration, config.json, cluster manifest, PLAN.md.
 *
 * @throws ConfigError for an engine, cluster, model and layout that do not go together, and for flags that the engine
 * does not take. @throws MemoryError when the plan does not fit the devices.
 */
export function exportPlan(request: ExportRequest): LaunchFile[] {
  checkFamily(request);
  checkCluster(request.engine, request.cluster);
  checkWorld(request);
  const site = siteOf(request);
  const planned = engineProgram(request.engine, { ...request, cluster: request.cluster, margin: request.margin, site });
  const prediction = predict({ ...request, model: trainedModel(request) });
  const program = withExtras(request, planned);
  const launch: LaunchFile = { path: "launch.sh", text: script(launchScript(request, site, program)) };
  const wrapped = wrap(request.cluster, site, program);
  const files = [launch, ...program.files, configFile(request), ...wrapped.files];
  const page = planPage({
    title: `${request.modelName} on ${site.nodes * site.devicesPerNode} × ${request.device.title}`,
    facts: facts(request, site),
    prediction,
    program,
    cluster: wrapped,
    files,
  });
  return [...files, page];
}

/** The model without what the engine does not train, so that it is not planned either. */
export function trainedModel({
  engine,
  model,
  job,
}: Pick<ExportRequest, "engine" | "model"> & { readonly job: Pick<Launch, "kind"> }): ModelConfig {
  return job.kind === "train" && engineRow(engine).trainsMtp !== true ? { ...model, nMtpLayers: 0 } : model;
}

/** Launch templates exist for the decoders with latent attention, which every engine knows. */
function checkFamily({ model, modelName }: ExportRequest): void {
  const isKnown =
    model.architecture === "decoder" && model.attention === "mla" && model.indexNHeads === 0 && model.vision === null;
  if (isKnown && model.nRoutedExperts > 0) return;
  const rule = "must be a mixture of experts with latent attention, as deepseek-v2 and deepseek-v3 are";
  throw new ConfigError("plan export", rule, modelName, "fathom params counts it all the same");
}

/** @throws ConfigError when devices, nodes and the job's degrees disagree. */
function checkWorld({ model, nodes, devicesPerNode, job }: ExportRequest): void {
  const world = nodes * devicesPerNode;
  if (job.kind === "train") checkLayout(job.layout, modelShape(model), world);
  if (job.kind !== "serve") return;
  const { tp, pp, dp, expertParallel } = job;
  if (tp * pp * dp !== world) {
    throw new ConfigError("plan export", `tp·pp·dp must be the devices (${world})`, `${tp}·${pp}·${dp}`);
  }
  if (model.nHeads % tp !== 0) throw new ConfigError("tp", `must divide the attention heads (${model.nHeads})`, tp);
  if (pp > model.nLayers) throw new ConfigError("pp", `must be at most the layers (${model.nLayers})`, pp);
  if (expertParallel && model.nRoutedExperts % (tp * dp) !== 0) {
    throw new ConfigError("plan export", `tp·dp must divide the routed experts (${model.nRoutedExperts})`, tp * dp);
  }
}

/** Longest name that leaves room for what Kubernetes appends. */
const MAX_NAME = 40;

function siteOf({ engine, cluster, modelName, nodes, devicesPerNode, image, hosts }: ExportRequest): Site {
  if (hosts !== undefined && hosts.length !== nodes) {
    throw new ConfigError("hosts", `must name each of the ${nodes} nodes`, hosts.length, "give as many names as nodes");
  }
  const used = image ?? engineRow(engine).image;
  if (used === undefined && (cluster === "jobset" || cluster === "lws")) {
    throw new ConfigError(
      "image",
      `must be given for ${engine} on ${cluster}`,
      undefined,
      "give a container image that has the engine",
    );
  }
  return {
    name: slug(`${modelName}-${engine}`),
    nodes,
    devicesPerNode,
    image: used,
    hosts: hosts ?? Array.from({ length: nodes }, (_, i) => `node-${i}`),
  };
}

/** A DNS label: lower-case letters, digits and single hyphens, a letter first. */
function slug(text: string): string {
  const plain = text.toLowerCase().replaceAll(/[^a-z0-9]+/g, "-");
  return `m-${plain}`
    .replace(/^m-(?=[a-z])/, "")
    .slice(0, MAX_NAME)
    .replace(/-+$/, "");
}

function withExtras({ engine, flags = [], environment = [] }: ExportRequest, program: NodeProgram): NodeProgram {
  checkListed(engine, flagNames(program.run), engineRow(engine).flags);
  const extra = extraFlags(engine, engineRow(engine).flags, flags, program.run);
  return {
    ...program,
    run: [...program.run, ...extra],
    environment: { ...program.environment, ...extraEnvironment(engine, environment) },
  };
}

const MASTER_PORT = 29500;

function launchScript({ engine, modelName }: ExportRequest, site: Site, program: NodeProgram): Script {
  const run = `exec ${command(program.run)}`;
  const used = [...program.prepare, run].join("\n");
  const places: Record<string, [Word, string]> = {
    NODE_RANK: [0, `place of this node, 0 to ${site.nodes - 1}`],
    MASTER_ADDR: ["127.0.0.1", "address of the first node"],
  };
  const needed = Object.entries(places).filter(([name]) => used.includes(`$${name}`));
  const one = site.nodes === 1;
  return {
    about: [
      `${modelName} with ${engineRow(engine).version}; every node runs this script. See PLAN.md.`,
      `Nodes: ${site.nodes}, devices on each: ${site.devicesPerNode}.`,
    ],
    defaults: {
      ...(one ? Object.fromEntries(needed.map(([name, [value]]) => [name, value])) : {}),
      ...(used.includes("$MASTER_PORT") ? { MASTER_PORT } : {}),
      ...program.defaults,
    },
    required: {
      ...(one ? {} : Object.fromEntries(needed.map(([name, [, what]]) => [name, what]))),
      ...program.required,
    },
    environment: program.environment,
    body: [...program.prepare, run],
  };
}

function wrap(cluster: ClusterName | undefined, site: Site, program: NodeProgram): ClusterFiles {
  switch (cluster) {
    case undefined:
      return { files: [], start: startByHand(site, program), notes: [] };
    case "slurm":
      return slurm(site, program);
    case "jobset":
      return jobset(site, program);
    case "lws":
      return lws(site, program);
    case "mpi":
      return mpi(site, program);
    case "ray":
      return ray(site, program);
    default:
      return cluster satisfies never;
  }
}

function startByHand(site: Site, program: NodeProgram): string[] {
  const variables = Object.keys(program.required).map((name) => `${name}=…`);
  const isOnce = site.nodes === 1 || program.run[0]?.[0] === "deepspeed";
  if (isOnce) return [[...variables, "bash launch.sh"].join(" ")];
  return [
    "# on every node, with its own NODE_RANK",
    ["NODE_RANK=0", `MASTER_ADDR=${site.hosts[0]!}`, ...variables, "bash launch.sh"].join(" "),
  ];
}

/** Begin and end of text by the size of the vocabulary. **Source:** config.json of DeepSeek-V2 and DeepSeek-V3. */
const TOKENS: Readonly<Record<number, { bos: number; eos: number }>> = {
  102400: { bos: 100000, eos: 100001 },
  129280: { bos: 0, eos: 1 },
};

/** Engines that train build their weights from config.json, so it must not announce quantised ones. */
function configFile({ model, job, tokens }: ExportRequest): LaunchFile {
  const dtype = job.kind === "train" && job.precision.name === "fp32" ? "f32" : "bf16";
  const written: ModelConfig = job.kind === "train" ? { ...model, dtype, scaleFmt: null } : model;
  return { path: "config.json", text: hfConfigText(written, tokens ?? TOKENS[model.vocabSize] ?? { bos: 0, eos: 1 }) };
}

function facts({ engine, cluster, modelName, device, job }: ExportRequest, site: Site): Fact[] {
  return [
    ["Model", modelName],
    ["Engine", engineRow(engine).version],
    ["Devices", `${site.nodes} ${site.nodes === 1 ? "node" : "nodes"} × ${site.devicesPerNode} × ${device.title}`],
    ["Started by", cluster ?? "hand"],
    ...jobFacts(job),
  ];
}

function jobFacts(job: Launch): Fact[] {
  switch (job.kind) {
    case "train": {
      const { layout, precision, training } = job;
      return [
        ["Layout", layoutText(layout)],
        ["Batch", `${layout.globalBatchSize} sequences of ${layout.seqLen} tokens`],
        ["Precision", precision.name],
        ["Steps", `${training.steps}, the setting training.steps; change it with --set steps=N`],
      ];
    }
    case "serve":
      return [
        ["Layout", `TP${job.tp} PP${job.pp} DP${job.dp}${job.expertParallel ? ` EP${job.tp * job.dp}` : ""}`],
        ["Context", `${job.contextTokens} tokens, ${job.maxSequences} requests at once`],
        ["Cache", job.kvCache],
      ];
    case "local":
      return [
        ["Mix", job.mix],
        ["Context", `${job.contextTokens} tokens, ${job.maxSequences} requests at once`],
      ];
    default:
      return job satisfies never;
  }
}
