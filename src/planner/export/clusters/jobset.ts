/** JobSet v1alpha2 of Kubernetes: one indexed job whose pods are the nodes of a training run. */

import type { ClusterFiles, NodeProgram, Site } from "../launch.ts";
import { applyCommands, manifestFile, POD_NOTES, podEnvironment, podSpec } from "./pod.ts";

const JOB = "node";
const MASTER_PORT = 29500;

export function jobset(site: Site, program: NodeProgram): ClusterFiles {
  const about = [`${site.nodes} pods with ${site.devicesPerNode} devices each; storage: the claim "workspace".`];
  const start = applyCommands(site, "jobset.yaml");
  return { files: [manifestFile("jobset.yaml", about, [manifest(site, program)])], start, notes: POD_NOTES };
}

function manifest(site: Site, program: NodeProgram): Readonly<Record<string, unknown>> {
  const pod = podSpec(site, program, "", { env: environment(site, program) });
  return {
    apiVersion: "jobset.x-k8s.io/v1alpha2",
    kind: "JobSet",
    metadata: { name: site.name },
    spec: {
      network: { enableDNSHostnames: true },
      replicatedJobs: [
        {
          name: JOB,
          replicas: 1,
          template: {
            spec: {
              parallelism: site.nodes,
              completions: site.nodes,
              completionMode: "Indexed",
              backoffLimit: 0,
              template: { spec: { restartPolicy: "Never", ...pod } },
            },
          },
        },
      ],
    },
  };
}

function environment(site: Site, program: NodeProgram): unknown[] {
  const index = "metadata.annotations['batch.kubernetes.io/job-completion-index']";
  return [
    { name: "MASTER_ADDR", value: `${site.name}-${JOB}-0-0.${site.name}` },
    { name: "MASTER_PORT", value: String(MASTER_PORT) },
    { name: "NODE_RANK", valueFrom: { fieldRef: { fieldPath: index } } },
    ...podEnvironment(program),
  ];
}
