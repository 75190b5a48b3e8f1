/**
 * What a JobSet, a LeaderWorkerSet and a Ray cluster file must look like; unknown keys are mistakes.
 *
 * **Source:** kubernetes-sigs/jobset api/jobset/v1alpha2; kubernetes-sigs/lws api/leaderworkerset/v1; core/v1 of
 * Kubernetes; Ray's cluster launcher, local provider.
 */

import { z } from "zod";

const label = z.string().regex(/^[a-z]([a-z0-9-]{0,61}[a-z0-9])?$/);
const port = z.number().int().min(1).max(65535);
const count = z.number().int().min(1);

const environment = z.array(
  z.union([
    z.strictObject({ name: z.string().regex(/^[A-Z_]+$/), value: z.string() }),
    z.strictObject({
      name: z.string(),
      valueFrom: z.strictObject({ fieldRef: z.strictObject({ fieldPath: z.string() }) }),
    }),
  ]),
);

const container = z.strictObject({
  name: label,
  image: z.string().min(1),
  command: z.tuple([z.literal("bash"), z.literal("-c"), z.string()]),
  env: environment,
  ports: z.array(z.strictObject({ containerPort: port })).optional(),
  readinessProbe: z
    .strictObject({ tcpSocket: z.strictObject({ port }), initialDelaySeconds: count, periodSeconds: count })
    .optional(),
  resources: z.strictObject({ limits: z.strictObject({ "nvidia.com/gpu": count }) }),
  volumeMounts: z.array(z.strictObject({ name: label, mountPath: z.string().startsWith("/") })),
});

const volume = z.union([
  z.strictObject({ name: label, configMap: z.strictObject({ name: label }) }),
  z.strictObject({ name: label, persistentVolumeClaim: z.strictObject({ claimName: label }) }),
  z.strictObject({ name: label, emptyDir: z.strictObject({ medium: z.literal("Memory"), sizeLimit: z.string() }) }),
]);

const pod = z.strictObject({
  restartPolicy: z.literal("Never").optional(),
  containers: z.array(container).length(1),
  volumes: z.array(volume),
});

export const jobSetSchema = z.strictObject({
  apiVersion: z.literal("jobset.x-k8s.io/v1alpha2"),
  kind: z.literal("JobSet"),
  metadata: z.strictObject({ name: label }),
  spec: z.strictObject({
    network: z.strictObject({ enableDNSHostnames: z.literal(true) }),
    replicatedJobs: z
      .array(
        z.strictObject({
          name: label,
          replicas: count,
          template: z.strictObject({
            spec: z.strictObject({
              parallelism: count,
              completions: count,
              completionMode: z.literal("Indexed"),
              backoffLimit: z.literal(0),
              template: z.strictObject({ spec: pod.required({ restartPolicy: true }) }),
            }),
          }),
        }),
      )
      .length(1),
  }),
});

export const leaderWorkerSetSchema = z.strictObject({
  apiVersion: z.literal("leaderworkerset.x-k8s.io/v1"),
  kind: z.literal("LeaderWorkerSet"),
  metadata: z.strictObject({ name: label }),
  spec: z.strictObject({
    replicas: count,
    leaderWorkerTemplate: z.strictObject({
      size: count,
      restartPolicy: z.literal("RecreateGroupOnPodRestart"),
      leaderTemplate: z.strictObject({
        metadata: z.strictObject({ labels: z.strictObject({ role: z.literal("leader") }) }),
        spec: pod,
      }),
      workerTemplate: z.strictObject({ spec: pod }),
    }),
  }),
});

export const serviceSchema = z.strictObject({
  apiVersion: z.literal("v1"),
  kind: z.literal("Service"),
  metadata: z.strictObject({ name: label }),
  spec: z.strictObject({
    selector: z.strictObject({ "leaderworkerset.sigs.k8s.io/name": label, role: z.literal("leader") }),
    ports: z.array(z.strictObject({ name: z.string(), protocol: z.literal("TCP"), port, targetPort: port })),
  }),
});

export const rayClusterSchema = z.strictObject({
  cluster_name: label,
  provider: z.strictObject({
    type: z.literal("local"),
    head_ip: z.string().min(1),
    worker_ips: z.array(z.string().min(1)),
  }),
  auth: z.strictObject({ ssh_user: z.string() }),
  min_workers: z.number().int().min(0),
  max_workers: z.number().int().min(0),
  file_mounts: z.record(z.string(), z.string()),
  head_start_ray_commands: z.array(z.string()),
  worker_start_ray_commands: z.array(z.string()),
});
