/** LeaderWorkerSet v1 of Kubernetes: a group of pods that serves one copy of the model, and a service before it. */

import type { ClusterFiles, NodeProgram, Site } from "../launch.ts";
import { applyCommands, manifestFile, POD_NOTES, podEnvironment, podSpec } from "./pod.ts";

/** The set gives every pod its place in the group. */
const PLACE = 'export NODE_RANK="$LWS_WORKER_INDEX" MASTER_ADDR="$LWS_LEADER_ADDRESS"; ';

export function lws(site: Site, program: NodeProgram): ClusterFiles {
  const about = [
    `A group of ${site.nodes} pods with ${site.devicesPerNode} devices each; storage: the claim "workspace".`,
  ];
  const files = [manifestFile("lws.yaml", about, [leaderWorkerSet(site, program), service(site, program)])];
  return { files, start: applyCommands(site, "lws.yaml"), notes: POD_NOTES };
}

function leaderWorkerSet(site: Site, program: NodeProgram): Readonly<Record<string, unknown>> {
  const env = podEnvironment(program);
  const readinessProbe = { tcpSocket: { port: program.port }, initialDelaySeconds: 15, periodSeconds: 10 };
  return {
    apiVersion: "leaderworkerset.x-k8s.io/v1",
    kind: "LeaderWorkerSet",
    metadata: { name: site.name },
    spec: {
      replicas: 1,
      leaderWorkerTemplate: {
        size: site.nodes,
        restartPolicy: "RecreateGroupOnPodRestart",
        leaderTemplate: {
          metadata: { labels: { role: "leader" } },
          spec: podSpec(site, program, PLACE, { env, readinessProbe }),
        },
        workerTemplate: { spec: podSpec(site, program, PLACE, { env }) },
      },
    },
  };
}

function service(site: Site, program: NodeProgram): Readonly<Record<string, unknown>> {
  return {
    apiVersion: "v1",
    kind: "Service",
    metadata: { name: site.name },
    spec: {
      selector: { "leaderworkerset.sigs.k8s.io/name": site.name, role: "leader" },
      ports: [{ name: "http", protocol: "TCP", port: program.port, targetPort: program.port }],
    },
  };
}
