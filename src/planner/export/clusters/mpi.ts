/** Open MPI: one process per node, which starts the node's program. */

import type { ClusterFiles, NodeProgram, Site } from "../launch.ts";
import { command, script, type Phrase } from "../shell.ts";

export function mpi(site: Site, program: NodeProgram): ClusterFiles {
  const hosts = site.hosts.map((host) => `${host} slots=1\n`).join("");
  return {
    files: [
      { path: "mpi-hostfile", text: hosts },
      { path: "launch-mpi.sh", text: launchScript(site, program) },
    ],
    start: ["bash launch-mpi.sh"],
    notes: [
      "mpi-hostfile names the hosts; correct it for your site. The folder must lie at the same path on all of them.",
    ],
  };
}

function launchScript(site: Site, program: NodeProgram): string {
  const variables = [...Object.keys(program.required), ...Object.keys(program.defaults)];
  const run: Phrase[] = [
    ["mpirun", "-np", site.nodes],
    ["--hostfile", "mpi-hostfile"],
    ["--map-by", "ppr:1:node"],
    ["--bind-to", "none"],
    ["-x", "MASTER_ADDR"],
  ];
  return script({
    about: [
      `Starts launch.sh once on each of the ${site.nodes} hosts of mpi-hostfile; the folder lies at the same path there.`,
    ],
    required: program.required,
    body: [
      `[ -n "\${MASTER_ADDR:-}" ] || MASTER_ADDR="$(awk 'NR == 1 { print $1 }' mpi-hostfile)"\nexport MASTER_ADDR`,
      [
        "forward=()",
        `for name in ${[...variables, "MASTER_PORT"].join(" ")}; do`,
        '  if [ -n "${!name:-}" ]; then forward+=(-x "$name"); fi',
        "done",
      ].join("\n"),
      `${command(run)} \\\n  "\${forward[@]}" \\\n  bash -c 'NODE_RANK="$OMPI_COMM_WORLD_RANK" exec bash launch.sh'`,
    ],
  });
}
