/** PLAN.md: what is launched, what is predicted, and how to start it. */

import type { ClusterFiles, LaunchFile, NodeProgram } from "./launch.ts";
import { oneLine, quote, type Phrase } from "./shell.ts";

/** A fact of the job, such as `["Engine", "vLLM 0.20.1"]`. */
export type Fact = readonly [name: string, value: string];

/** One predicted number with its unit and the name under which the planner explains it. */
export type PredictionRow = readonly [name: string, value: string, why: string];

/** What is predicted, and the words after `fathom` of the command that explains it; without one, why it is not predicted. */
export type Prediction =
  | { readonly rows: readonly PredictionRow[]; readonly command: Phrase }
  | { readonly rows: readonly Fact[]; readonly command?: undefined };

export interface PlanPage {
  readonly title: string;
  /** The facts of the job: model, engine, devices, layout. */
  readonly facts: readonly Fact[];
  readonly prediction: Prediction;
  readonly program: NodeProgram;
  readonly cluster: ClusterFiles;
  readonly files: readonly LaunchFile[];
}

export function planPage(page: PlanPage): LaunchFile {
  const { program, cluster } = page;
  const notes = [...program.notes, ...cluster.notes];
  const settable: Fact[] = [
    ...Object.entries(program.required).map(([name, what]): Fact => [`\`${name}\``, `${what} (must be set)`]),
    ...Object.entries(program.defaults).map(([name, value]): Fact => [
      `\`${name}\``,
      `default: ${typeof value === "object" ? value.expand : value}`,
    ]),
  ];
  const parts = [
    `# ${oneLine(page.title)}`,
    table(["", ""], page.facts),
    "## Prediction",
    ...predictionParts(page.prediction),
    "## Start",
    ["```sh", ...cluster.start, "```"].join("\n"),
    ...(settable.length === 0 ? [] : ["Variables of the environment:", table(["Variable", "Meaning"], settable)]),
    ...(notes.length === 0 ? [] : ["## Notes", notes.map((note) => `- ${oneLine(note)}`).join("\n")]),
    "## Files",
    page.files.map(({ path }) => `- \`${path}\`: ${FILE_MEANINGS[path] ?? "for the engine"}`).join("\n"),
  ];
  return { path: "PLAN.md", text: `${parts.join("\n\n")}\n` };
}

function predictionParts({ rows, command }: Prediction): string[] {
  if (command === undefined) return [table(["Quantity", "Value"], rows)];
  return [
    table(
      ["Quantity", "Value", "NAME"],
      rows.map(([name, value, why]) => [name, value, `\`${why}\``]),
    ),
    "Where a number comes from is printed by this command with its NAME:",
    ["```sh", `${["fathom", ...command].map(quote).join(" ")} --why NAME`, "```"].join("\n"),
  ];
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

function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const lines = [head, head.map(() => "---"), ...rows].map((cells) => `| ${cells.map(cell).join(" | ")} |`);
  return lines.join("\n");
}

function cell(text: string): string {
  return oneLine(text).replaceAll("|", String.raw`\|`);
}
