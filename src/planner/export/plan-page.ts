/** PLAN.md: what is launched, what is predicted, and how to start it. */

import type { ClusterFiles, LaunchFile, NodeProgram } from "./launch.ts";
import { oneLine } from "./shell.ts";

/** One predicted number with its unit, such as `["Step time", "12.3 s"]`. */
export type PredictionRow = readonly [name: string, value: string];

export interface PlanPage {
  readonly title: string;
  /** The facts of the job: model, engine, devices, layout. */
  readonly facts: readonly PredictionRow[];
  readonly prediction: readonly PredictionRow[];
  readonly program: NodeProgram;
  readonly cluster: ClusterFiles;
  readonly files: readonly LaunchFile[];
}

export function planPage(page: PlanPage): LaunchFile {
  const { program, cluster } = page;
  const notes = [...program.notes, ...cluster.notes];
  const settable: PredictionRow[] = [
    ...Object.entries(program.required).map(([name, what]): PredictionRow => [`\`${name}\``, `${what} (must be set)`]),
    ...Object.entries(program.defaults).map(([name, value]): PredictionRow => [
      `\`${name}\``,
      `default: ${typeof value === "object" ? value.expand : value}`,
    ]),
  ];
  const parts = [
    `# ${oneLine(page.title)}`,
    table(["", ""], page.facts),
    "## Prediction",
    table(["Quantity", "Value"], page.prediction),
    "## Start",
    ["```sh", ...cluster.start, "```"].join("\n"),
    ...(settable.length === 0 ? [] : ["Variables of the environment:", table(["Variable", "Meaning"], settable)]),
    ...(notes.length === 0 ? [] : ["## Notes", notes.map((note) => `- ${oneLine(note)}`).join("\n")]),
    "## Files",
    page.files.map(({ path }) => `- \`${path}\`: ${FILE_MEANINGS[path] ?? "for the engine"}`).join("\n"),
  ];
  return { path: "PLAN.md", text: `${parts.join("\n\n")}\n` };
}

const FILE_MEANINGS: Readonly<Record<string, string>> = {
  "launch.sh": "what every node runs",
  "config.json": "the model, as Hugging Face describes it",
  "job.sbatch": "the Slurm job",
  "jobset.yaml": "the JobSet of Kubernetes",
  "lws.yaml": "the LeaderWorkerSet of Kubernetes and its service",
  "ray-cluster.yaml": "the hosts, for Ray's cluster launcher",
  "launch-mpi.sh": "starts every node over MPI",
  "mpi-hostfile": "the hosts",
  hostfile: "the hosts and their devices",
};

function table(head: readonly [string, string], rows: readonly PredictionRow[]): string {
  const lines = [head, ["---", "---"], ...rows].map((cells) => `| ${cells.map(cell).join(" | ")} |`);
  return lines.join("\n");
}

function cell(text: string): string {
  return oneLine(text).replaceAll("|", String.raw`\|`);
}
