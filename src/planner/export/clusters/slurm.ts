/** Slurm: one task per node, which starts the node's program. */

import type { ClusterFiles, NodeProgram, Site } from "../launch.ts";
import { script } from "../shell.ts";

export function slurm(site: Site, program: NodeProgram): ClusterFiles {
  return {
    files: [{ path: "job.sbatch", text: batchScript(site, program) }],
    start: ["sbatch job.sbatch"],
    notes: ["Add the partition, account and time of your site to job.sbatch."],
  };
}

function batchScript(site: Site, program: NodeProgram): string {
  return script({
    directives: [
      `#SBATCH --job-name=${site.name}`,
      `#SBATCH --nodes=${site.nodes}`,
      "#SBATCH --ntasks-per-node=1",
      `#SBATCH --gpus-per-node=${site.devicesPerNode}`,
      "#SBATCH --exclusive",
      "#SBATCH --output=%x-%j.log",
    ],
    about: [`Submit with: sbatch job.sbatch. Starts launch.sh once on every node, ${site.nodes} in all.`],
    required: program.required,
    body: [
      'MASTER_ADDR="$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)"\nexport MASTER_ADDR',
      // Slurm runs a copy of the script elsewhere; the folder is where it was submitted.
      'cd "$SLURM_SUBMIT_DIR"',
      `srun --label bash -c 'NODE_RANK="$SLURM_NODEID" exec bash launch.sh'`,
    ],
  });
}
