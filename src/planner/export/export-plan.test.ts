import { spawnSync } from "node:child_process";
import { parser as python } from "@lezer/python";
import { beforeAll, describe, expect, test } from "vitest";
import { parse, parseAllDocuments } from "yaml";
import {
  jobSetSchema,
  leaderWorkerSetSchema,
  rayClusterSchema,
  serviceSchema,
} from "../../../test/helpers/manifest-schemas.ts";
import { launchCases, type LaunchCase } from "../../../test/helpers/launch-cases.ts";
import { blueprint, countParameters } from "../../blueprint/index.ts";
import { fromHfConfig, resolveConfig } from "../../config/index.ts";
import type { Layout } from "../layout.ts";
import { engineRow } from "./engines.ts";
import { exportPlan, type ExportRequest } from "./export-plan.ts";
import { FORBIDDEN } from "./flag-rules.ts";

const CASES = launchCases();

function filesOf({ request }: LaunchCase): Map<string, string> {
  return new Map(exportPlan(request).map(({ path, text }) => [path, text]));
}

function caseOf(part: string): LaunchCase {
  const found = CASES.find(({ name }) => name.includes(part));
  if (found === undefined) throw new Error(`no case ${part}`);
  return found;
}

/** The long flags of a script, without those of Ray, MPI and Slurm, which are no part of the engine. */
function engineFlags(text: string): string[] {
  const lines = text.split("\n").filter((line) => !/^\s*(#|.*\bray (start|status)\b)/.test(line));
  return lines.flatMap((line) => [...line.matchAll(/(?:^|[\s(])(--[a-zA-Z][\w.-]*)/g)].map(([, flag]) => flag!));
}

function flagValue(text: string, flag: string): string | undefined {
  return new RegExp(`${flag} '?([^\\s'\\\\]+)`).exec(text)?.[1];
}

const numberOf = (text: string, flag: string): number => Number(flagValue(text, flag) ?? 1);

describe.each(CASES)("$name", (launch) => {
  const { request } = launch;
  let files: Map<string, string>;
  let script: string;
  beforeAll(() => {
    files = filesOf(launch);
    script = files.get("launch.sh")!;
  });

  test("has a script, the model and a page that lists every other file", () => {
    expect([...files.keys()]).toEqual(expect.arrayContaining(["launch.sh", "config.json", "PLAN.md"]));
    for (const path of files.keys()) if (path !== "PLAN.md") expect(files.get("PLAN.md")).toContain(`\`${path}\``);
    expect(files.get("PLAN.md")).toMatch(/\| (Memory|File|Not predicted)/);
  });

  test("has files that parse", () => {
    const errors = [...files].flatMap(([path, text]) => errorsOf(path, text).map((error) => `${path}: ${error}`));
    expect(errors).toEqual([]);
  });

  test("writes flags of the engine's list only, and none that is forbidden", () => {
    const { flags } = engineRow(request.engine);
    for (const flag of engineFlags(script)) expect(flags).toContain(flag);
    const all = [...files]
      .filter(([path]) => path !== "PLAN.md")
      .map(([, text]) => text)
      .join("\n");
    for (const name of Object.keys(FORBIDDEN)) expect(all).not.toContain(name);
  });

  test("has a config.json with exactly the model's parameters", () => {
    const read = resolveConfig({ model: fromHfConfig(files.get("config.json")!) }).model;
    const [written, meant] = [read, request.model].map((model) => countParameters(blueprint(model)));
    expect(written).toEqual(meant);
  });

  test("starts as many processes as the plan has devices", () => {
    const world = request.nodes * request.devicesPerNode;
    if (script.includes("torchrun"))
      expect(numberOf(script, "--nnodes") * numberOf(script, "--nproc_per_node")).toBe(world);
    expect(nodesOfManifest(request, files)).toEqual({ nodes: request.nodes, devices: request.devicesPerNode });
    expect(degreesOf(request, files)).toBe(world);
  });
});

/** What is wrong with a file, by the parser of its format. */
function errorsOf(path: string, text: string): string[] {
  const format = path.slice(path.lastIndexOf(".") + 1);
  switch (format) {
    case "json":
      return jsonErrors(text);
    case "yaml":
      return parseAllDocuments(text).flatMap(({ errors }) => errors.map(({ message }) => message));
    case "py":
      return pythonErrors(text);
    case "sh":
    case "sbatch":
      return bashErrors(text) === "" ? [] : [bashErrors(text)];
    default:
      return /^(md|hostfile|mpi-hostfile)$/.test(format) ? [] : ["an unknown format"];
  }
}

function jsonErrors(text: string): string[] {
  try {
    JSON.parse(text);
    return [];
  } catch (error) {
    return [String(error)];
  }
}

function pythonErrors(text: string): string[] {
  const errors: string[] = [];
  python.parse(text).iterate({
    enter: (node) => {
      if (node.type.isError) errors.push(`${node.from}: ${text.slice(node.from, node.from + 40)}`);
    },
  });
  return errors;
}

function bashErrors(text: string): string {
  return spawnSync("bash", ["-n"], { input: text, encoding: "utf8" }).stderr;
}

interface Pods {
  readonly nodes: number;
  readonly devices: number;
}

/** Nodes and devices as the cluster's own file has them. */
function nodesOfManifest({ cluster, engine, nodes, devicesPerNode }: ExportRequest, files: Map<string, string>): Pods {
  const launch = files.get("launch.sh")!;
  switch (cluster) {
    case undefined: {
      const hosts = files.get("hostfile")?.trim().split("\n");
      if (hosts === undefined) return { nodes, devices: devicesPerNode };
      expect(numberOf(launch, "--num_nodes")).toBe(nodes);
      return { nodes: hosts.length, devices: Number(hosts[0]!.split("slots=")[1]) };
    }
    case "slurm": {
      const text = files.get("job.sbatch")!;
      return { nodes: Number(/--nodes=(\d+)/.exec(text)![1]), devices: Number(/--gpus-per-node=(\d+)/.exec(text)![1]) };
    }
    case "jobset": {
      const { spec } = jobSetSchema.parse(parse(files.get("jobset.yaml")!));
      const job = spec.replicatedJobs[0]!.template.spec;
      expect(job.parallelism).toBe(job.completions);
      return { nodes: job.completions, devices: job.template.spec.containers[0]!.resources.limits["nvidia.com/gpu"] };
    }
    case "lws": {
      const [set, service] = parseAllDocuments(files.get("lws.yaml")!).map((document) => document.toJS() as unknown);
      const { size, leaderTemplate } = leaderWorkerSetSchema.parse(set).spec.leaderWorkerTemplate;
      const { ports } = serviceSchema.parse(service).spec;
      const container = leaderTemplate.spec.containers[0]!;
      expect(container.readinessProbe?.tcpSocket.port).toBe(ports[0]!.port);
      expect(numberOf(launch, "--port")).toBe(ports[0]!.port);
      return { nodes: size, devices: container.resources.limits["nvidia.com/gpu"] };
    }
    case "mpi": {
      const hosts = files.get("mpi-hostfile")!.trim().split("\n");
      expect(numberOf(files.get("launch-mpi.sh")!, "-np")).toBe(hosts.length);
      return { nodes: hosts.length, devices: numberOf(launch, "--nproc_per_node") };
    }
    case "ray": {
      const { provider, head_start_ray_commands } = rayClusterSchema.parse(parse(files.get("ray-cluster.yaml")!));
      const devices = Number(/--num-gpus=(\d+)/.exec(head_start_ray_commands.join(" "))![1]);
      return { nodes: 1 + provider.worker_ips.length, devices };
    }
    default:
      throw new Error(`no cluster ${String(cluster satisfies never)} for ${engine}`);
  }
}

/** The product of the parallel degrees as the engine's own files have them, after their divisibility was checked. */
function degreesOf(request: ExportRequest, files: Map<string, string>): number {
  const script = files.get("launch.sh")!;
  switch (request.engine) {
    case "megatron":
      return megatronDegrees(request, script);
    case "torchtitan":
      return torchtitanDegrees(request, files.get("fathom_plan.py")!);
    case "automodel":
      return automodelDegrees(request, parse(files.get("automodel.yaml")!) as never);
    case "deepspeed":
      return deepspeedDegrees(request, JSON.parse(files.get("ds_config.json")!) as never);
    case "vllm":
      return ["tensor", "pipeline", "data"].reduce((n, axis) => n * numberOf(script, `--${axis}-parallel-size`), 1);
    case "sglang":
      expect(numberOf(script, "--tensor-parallel-size") % numberOf(script, "--data-parallel-size")).toBe(0);
      return numberOf(script, "--tensor-parallel-size") * numberOf(script, "--pipeline-parallel-size");
    case "llama.cpp":
      return 1;
    case "deepseek-demo":
      expect(request.model.nRoutedExperts % (request.nodes * request.devicesPerNode)).toBe(0);
      return numberOf(script, "--nnodes") * numberOf(script, "--nproc_per_node");
    default:
      return request.engine satisfies never;
  }
}

function degreesMeant(job: ExportRequest["job"], names: readonly (keyof Layout)[]): Record<string, unknown> {
  return Object.fromEntries(names.map((name) => [name, job.kind === "train" ? job.layout[name] : 1]));
}

function megatronDegrees({ model, job, nodes, devicesPerNode }: ExportRequest, script: string): number {
  const degree = (axis: string): number => numberOf(script, `--${axis}-parallel-size`);
  const [tp, pp, cp, ep, etp] = [
    degree("tensor-model"),
    degree("pipeline-model"),
    degree("context"),
    degree("expert-model"),
    degree("expert-tensor"),
  ] as const;
  const dp = (nodes * devicesPerNode) / (tp * pp * cp);
  expect({ tp, pp, cp, ep, etp, dp }).toEqual(degreesMeant(job, ["tp", "pp", "cp", "ep", "etp", "dp"]));
  expect((nodes * devicesPerNode) % (ep * etp * pp)).toBe(0);
  expect(model.nRoutedExperts % ep).toBe(0);
  expect(numberOf(script, "--global-batch-size") % (numberOf(script, "--micro-batch-size") * dp)).toBe(0);
  expect(numberOf(script, "--make-vocab-size-divisible-by") * tp).toBe(model.vocabSize);
  const picture = flagValue(script, "--pipeline-model-parallel-layout");
  expect(picture === undefined).toBe(pp === 1);
  if (picture !== undefined && job.kind === "train") {
    const pieces = unfold(picture).split("|");
    expect(pieces).toHaveLength(pp * job.layout.vp);
    expect(pieces.join("").replaceAll(/[^t]/g, "")).toHaveLength(model.nLayers);
    expect(pieces[0]).toMatch(/^Et*$/);
    expect(pieces.at(-1)).toMatch(/^t*m*L$/);
  }
  return tp * pp * cp * dp;
}

/** `(tt|)*2L` → `tt|tt|L` */
function unfold(picture: string): string {
  return picture.replaceAll(/\(([^)]*)\)\*(\d+)/g, (_, piece: string, times: string) => piece.repeat(Number(times)));
}

function torchtitanDegrees({ job }: ExportRequest, module: string): number {
  const field = (name: string): number => Number(new RegExp(`config\\.${name} = (\\d+)`).exec(module)?.[1] ?? 1);
  const degree = (name: string): number => field(`parallelism\\.${name}_degree`);
  const shard = degree("data_parallel_shard");
  const ranks = shard * degree("context_parallel") * degree("tensor_parallel");
  const degrees = { tp: degree("tensor_parallel"), pp: degree("pipeline_parallel"), ep: degree("expert_parallel") };
  expect(degrees).toEqual(degreesMeant(job, ["tp", "pp", "ep"]));
  expect(ranks % degrees.ep).toBe(0);
  const perPass =
    field("training\\.num_tokens_per_microbatch_per_dp_rank") * field("parallelism\\.num_pp_microbatches");
  expect(field("training\\.num_tokens_per_train_step") % (perPass * shard)).toBe(0);
  return ranks * degree("pipeline_parallel");
}

interface AutomodelRecipe {
  readonly step_scheduler: { readonly global_batch_size: number; readonly local_batch_size: number };
  readonly distributed: Readonly<Record<"tp_size" | "cp_size" | "pp_size" | "dp_size" | "ep_size", number>> & {
    readonly pipeline?: { readonly pp_microbatch_size: number };
  };
}

function automodelDegrees({ job }: ExportRequest, { step_scheduler: steps, distributed }: AutomodelRecipe): number {
  const { tp_size: tp, cp_size: cp, pp_size: pp, dp_size: dp, ep_size: ep, pipeline } = distributed;
  expect(steps.global_batch_size % (steps.local_batch_size * dp)).toBe(0);
  expect({ tp, cp, pp, dp, ep }).toEqual(degreesMeant(job, ["tp", "cp", "pp", "dp", "ep"]));
  expect((dp * cp * tp) % ep).toBe(0);
  if (pipeline !== undefined) expect(steps.local_batch_size % pipeline.pp_microbatch_size).toBe(0);
  return tp * cp * pp * dp;
}

type DeepspeedConfig = Readonly<
  Record<"train_batch_size" | "train_micro_batch_size_per_gpu" | "gradient_accumulation_steps", number>
> & { readonly expert_parallel?: { readonly autoep_size: number } };

function deepspeedDegrees({ job }: ExportRequest, config: DeepspeedConfig): number {
  expect({ ep: config.expert_parallel?.autoep_size ?? 1 }).toEqual(degreesMeant(job, ["ep"]));
  return config.train_batch_size / (config.train_micro_batch_size_per_gpu * config.gradient_accumulation_steps);
}

/** The error as it prints, or "none". */
function refusalOf(request: ExportRequest): string {
  try {
    exportPlan(request);
    return "none";
  } catch (error) {
    return String(error);
  }
}

const lite = caseOf("megatron on no cluster: deepseek-v2-lite").request;

test("Megatron's picture of V3 in 32 pieces is the published one", () => {
  const script = filesOf(caseOf("megatron on slurm: deepseek-v3, 128")).get("launch.sh")!;
  expect(flagValue(script, "--pipeline-model-parallel-layout")).toBe("Et|(tt|)*30mL");
});

test("a model that trains is not announced as quantised, one that is served is", () => {
  const [trained, served] = ["megatron on slurm: deepseek-v3", "vllm on slurm: deepseek-v3"].map((name) =>
    filesOf(caseOf(name)).get("config.json"),
  );
  expect(trained).not.toContain("quantization_config");
  expect(served).toContain("quantization_config");
});

test("experts stay in the machine's memory where the device has no room for them", () => {
  expect(filesOf(caseOf("llama.cpp on no cluster: deepseek-v3")).get("launch.sh")).toMatch(/--cpu-moe|--n-cpu-moe \d+/);
  expect(filesOf(caseOf("llama.cpp on no cluster: deepseek-v2-lite")).get("launch.sh")).not.toContain("cpu-moe");
});

test("flags and variables of the user are added", () => {
  const request = { ...lite, flags: ["--log-interval 10"], environment: ["NCCL_DEBUG=INFO warn"] };
  const script = exportPlan(request).find(({ path }) => path === "launch.sh")!.text;
  expect(script).toContain("--log-interval 10");
  expect(script).toContain("export NCCL_DEBUG='INFO warn'");
});

test.each<[string, Partial<ExportRequest>, string]>([
  [
    "serving engine for training",
    { engine: "vllm" },
    "engine: vllm is made to serve from devices, not to train; choose one of megatron, torchtitan, automodel, deepspeed",
  ],
  [
    "demonstration for training",
    { engine: "deepseek-demo" },
    "engine: deepseek-demo is made to serve from devices, not to train; choose one of megatron, torchtitan, automodel, deepspeed",
  ],
  [
    "service cluster for training",
    { cluster: "lws" },
    'cluster: megatron runs on slurm, jobset, mpi, got "lws"; choose one of them, or leave it out and start the nodes by hand',
  ],
  [
    "Ray for training",
    { cluster: "ray" },
    'cluster: megatron runs on slurm, jobset, mpi, got "ray"; choose one of them, or leave it out and start the nodes by hand',
  ],
  [
    "no image",
    { cluster: "jobset", image: undefined as never },
    "image: must be given for megatron on jobset; give a container image that has the engine",
  ],
  [
    "hosts that are too few",
    { hosts: ["a"] },
    "hosts: must name each of the 2 nodes, got 1; give as many names as nodes",
  ],
  [
    "forbidden flag",
    { flags: ["--no-save-optim"] },
    "megatron --no-save-optim: must not be used; it makes checkpoints from which training cannot go on",
  ],
  [
    "benchmark routing",
    { flags: ["--moe-router-force-load-balancing"] },
    "megatron --moe-router-force-load-balancing: must not be used; it routes tokens at random, for benchmarks only",
  ],
  [
    "flags that rule each other out",
    { flags: ["--deterministic-mode"] },
    'megatron --deterministic-mode: cannot go with --cross-entropy-loss-fusion: the fused loss is not deterministic, got "--deterministic-mode"',
  ],
  [
    "misspelt flag",
    { flags: ["--log-intervall 10"] },
    'megatron flag: must be in the list of this engine\'s flags, got "--log-intervall"; did you mean --log-interval?',
  ],
  [
    "flag of the plan",
    { flags: ["--num-layers 3"] },
    'megatron --num-layers: must not be given twice, got "--num-layers 3"; the plan writes it',
  ],
  [
    "forbidden variable",
    { environment: ["CUDA_LAUNCH_BLOCKING=1"] },
    "megatron CUDA_LAUNCH_BLOCKING: must not be used; it waits for every kernel; it is for debugging",
  ],
  [
    "variable without value",
    { environment: ["NCCL_DEBUG"] },
    '--env: must be NAME=value, got "NCCL_DEBUG"; for example --env NCCL_DEBUG=INFO',
  ],
  [
    "dense model",
    { model: resolveConfig("llama2-7b").model, modelName: "llama2-7b" },
    'plan export: must be a mixture of experts with latent attention, as deepseek-v2 and deepseek-v3 are, got "llama2-7b"; fathom params counts it all the same',
  ],
  [
    "world",
    { nodes: 3 },
    'layout: identity "world": TP·CP·DP·PP = world (1·1·16·1 against 24), got "TP1 PP1 VP1 CP1 EP8 ETP1 DP16 ZeRO-1 1f1b recompute full MBS1"; change one of the numbers, or leave them out and let the search choose',
  ],
])("is refused with what is possible: %s", (_, change, message) => {
  expect(refusalOf({ ...lite, ...change })).toBe(`ConfigError: ${message}`);
});

test.each<[string, string, Partial<Layout>, string]>([
  [
    "torchtitan has no expert tensor parallelism",
    "torchtitan on slurm: deepseek-v2-lite",
    { etp: 2 },
    "torchtitan etp: must be 1, which is all this engine has, got 2",
  ],
  [
    "torchtitan shards",
    "torchtitan on slurm: deepseek-v2-lite",
    { zero: 1 },
    "torchtitan zero: must be one of 2, 3, got 1; choose one of them for torchtitan",
  ],
  [
    "DeepSpeed has no pipeline",
    "deepspeed on slurm: deepseek-v2-lite, 4",
    { pp: 2, dp: 16 },
    "deepspeed pp: must be 1, which is all this engine has, got 2",
  ],
  [
    "DeepSpeed has no virtual stages",
    "deepspeed on slurm: deepseek-v2-lite, 4",
    { pp: 2, vp: 2, dp: 16, schedule: "interleaved" },
    "deepspeed pp: must be 1, which is all this engine has, got 2",
  ],
  [
    "AutoEP goes to ZeRO 2",
    "deepspeed on slurm: deepseek-v2-lite, 4",
    { zero: 3 },
    "deepspeed zero: must be 0, 1 or 2 with expert parallelism, got 3; lower zero or set ep to 1",
  ],
  [
    "Automodel recomputes all or nothing",
    "automodel on slurm: deepseek-v2-lite",
    { recompute: "selective" },
    'automodel recompute: must be one of none, full, got "selective"; choose one of them for automodel',
  ],
  [
    "Megatron has no DualPipe",
    "megatron on slurm: deepseek-v3, 128",
    { vp: 1, schedule: "dualpipe" },
    'megatron schedule: must be one of 1f1b, interleaved, got "dualpipe"; choose one of them for megatron',
  ],
])("an engine that cannot do the layout says what it can: %s", (_, name, change, message) => {
  const { request } = caseOf(name);
  if (request.job.kind !== "train") throw new Error("a training case");
  const job = { ...request.job, layout: { ...request.job.layout, ...change } };
  expect(refusalOf({ ...request, job })).toBe(`ConfigError: ${message}`);
});

test("the utilisation of an fp8 plan is of the bf16 peak, as in every other report", () => {
  const page = filesOf(caseOf("megatron on slurm: deepseek-v3, 128")).get("PLAN.md")!;
  const [, share, rate] = /utilisation \| ([\d.]+) % of the bf16 peak, (\d+) TFLOP\/s a device/.exec(page)!;
  expect((Number(share) / 100) * 989).toBeCloseTo(Number(rate), 0);
});

test("a plan that does not fit is refused with both sizes", () => {
  const { request } = caseOf("vllm on slurm: deepseek-v3, 1 × 8 h200");
  expect(() => exportPlan({ ...request, margin: 0.1 })).toThrow(
    /^plan export: memory of one device: needs \d+ bytes \([\d.]+ GiB\) of 15139759718 bytes \(14\.1 GiB\) available; take more devices, fewer requests or a shorter context$/,
  );
});

test("names of any spelling become names that Kubernetes accepts", () => {
  const { request } = caseOf("vllm on lws: deepseek-v3, 4");
  const files = exportPlan({ ...request, modelName: "../Mödels/'$(rm -rf ~)' | x\n# y" });
  const [set] = parseAllDocuments(files.find(({ path }) => path === "lws.yaml")!.text);
  expect(leaderWorkerSetSchema.safeParse(set!.toJS()).success).toBe(true);
  expect(bashErrors(files.find(({ path }) => path === "launch.sh")!.text)).toBe("");
});
