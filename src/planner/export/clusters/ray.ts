/** Ray on machines that are reached over SSH: the cluster launcher's file. The program runs once, on the head. */

import type { ClusterFiles, NodeProgram, Site } from "../launch.ts";
import { manifestFile } from "./pod.ts";

export const RAY_PORT = 6379;

export function ray(site: Site, program: NodeProgram): ClusterFiles {
  const about = [`${site.nodes} hosts with ${site.devicesPerNode} devices each.`];
  const variables = Object.keys(program.required).map((name) => `${name}=…`);
  const launch = [...variables, "bash", "~/launch/launch.sh"].join(" ");
  return {
    files: [manifestFile("ray-cluster.yaml", about, [launcherConfig(site)])],
    start: ["ray up --yes ray-cluster.yaml", `ray exec ray-cluster.yaml '${launch}'`],
    notes: ["ray-cluster.yaml names the hosts and the SSH user; correct them for your site."],
  };
}

function launcherConfig(site: Site): Readonly<Record<string, unknown>> {
  const [head, ...workers] = site.hosts;
  const start = `--num-gpus=${site.devicesPerNode}`;
  return {
    cluster_name: site.name,
    provider: { type: "local", head_ip: head, worker_ips: workers },
    auth: { ssh_user: "ubuntu" },
    min_workers: workers.length,
    max_workers: workers.length,
    file_mounts: { "~/launch": "." },
    head_start_ray_commands: ["ray stop", `ray start --head --port=${RAY_PORT} ${start}`],
    worker_start_ray_commands: ["ray stop", `ray start --address=$RAY_HEAD_IP:${RAY_PORT} ${start}`],
  };
}
