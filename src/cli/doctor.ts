/** `fathom doctor`: what this machine is and whether everything is in its place. */

import { cpus, totalmem } from "node:os";
import { Command } from "commander";
import { CORPORA } from "../data/index.ts";
import { isFetched } from "../data/node.ts";
import { nativeIsas } from "../kernels/node.ts";
import { cacheDir, openBackend } from "./options.ts";
import { bytes, print, printJson } from "./output.ts";

export function doctorCommand(): Command {
  return new Command("doctor")
    .description("show the machine, the kernels in use and the cache")
    .option("--json", "one JSON object on stdout")
    .action(doctor);
}

function doctor({ json = false }: { json?: boolean }): void {
  using backend = openBackend({});
  const report = {
    node: process.version,
    platform: `${process.platform}-${process.arch}`,
    cpu: cpus()[0]?.model.trim() ?? "unknown",
    cores: cpus().length,
    memory_bytes: totalmem(),
    threads: backend.threads,
    isa: backend.isa,
    isas: nativeIsas(),
    cache: cacheDir(),
    corpora: CORPORA.filter((corpus) => isFetched(corpus, cacheDir())).map(({ name }) => name),
  };
  if (json) return printJson(report);
  print(`node       ${report.node} on ${report.platform}`);
  print(`cpu        ${report.cpu}, ${report.cores} cores, ${bytes(report.memory_bytes)}`);
  print(`kernels    ${report.isa} on ${report.threads} threads (present: ${report.isas.join(", ")})`);
  print(`cache      ${report.cache}; corpora in it: ${report.corpora.join(", ") || "none"}`);
}
