/** The part of Kubernetes manifests that both kinds share: a pod that runs the folder on all devices of a node. */

import { stringify } from "yaml";
import type { LaunchFile, NodeProgram, Site } from "../launch.ts";

/** Where the folder and the shared storage appear in the container. */
const LAUNCH_PATH = "/launch";
const WORKSPACE_PATH = "/workspace";

export const POD_NOTES: readonly string[] = [
  `The claim "workspace" holds data, models and results; the manifest sets the variables to paths below ${WORKSPACE_PATH}.`,
];

/** NCCL and data loaders of eight processes need more shared memory than a container's 64 MiB. */
const SHARED_MEMORY = "64Gi";

type Manifest = Readonly<Record<string, unknown>>;

/**
 * @param start - bash that sets NODE_RANK and MASTER_ADDR, where the manifest cannot.
 * @param more - fields of the container that differ, such as `env` and probes.
 */
export function podSpec(site: Site, program: NodeProgram, start: string, more: Manifest): Manifest {
  return {
    containers: [
      {
        name: "node",
        image: site.image,
        command: ["bash", "-c", `${start}exec bash ${LAUNCH_PATH}/launch.sh`],
        ...more,
        ...(program.port === undefined ? {} : { ports: [{ containerPort: program.port }] }),
        resources: { limits: { "nvidia.com/gpu": site.devicesPerNode } },
        volumeMounts: [
          { name: "launch", mountPath: LAUNCH_PATH },
          { name: "workspace", mountPath: WORKSPACE_PATH },
          { name: "shared-memory", mountPath: "/dev/shm" },
        ],
      },
    ],
    volumes: [
      { name: "launch", configMap: { name: site.name } },
      { name: "workspace", persistentVolumeClaim: { claimName: "workspace" } },
      { name: "shared-memory", emptyDir: { medium: "Memory", sizeLimit: SHARED_MEMORY } },
    ],
  };
}

/** Variables of the program as the container sees them: paths lie in the shared storage. */
export function podEnvironment(program: NodeProgram): { name: string; value: string }[] {
  const names = [...Object.keys(program.required), ...Object.keys(program.defaults)];
  return names
    .filter((name) => STORED_NAMES.has(name))
    .map((name) => ({ name, value: `${WORKSPACE_PATH}/${name.toLowerCase().replaceAll("_", "-")}` }));
}

const STORED_NAMES = new Set(["DATA", "OUT", "MODEL_DIR", "GGUF", "CHECKPOINT"]);

export function manifestFile(path: string, about: readonly string[], documents: readonly Manifest[]): LaunchFile {
  const comments = about.map((line) => `# ${line}\n`).join("");
  const texts = documents.map((document) => stringify(document, { lineWidth: 0, aliasDuplicateObjects: false }));
  return { path, text: comments + texts.join("---\n") };
}

/** The commands that bring the folder into the cluster and start it. */
export function applyCommands(site: Site, manifest: string): string[] {
  return [
    `kubectl create configmap ${site.name} --from-file=. --dry-run=client -o yaml | kubectl apply -f -`,
    `kubectl apply -f ${manifest}`,
  ];
}
