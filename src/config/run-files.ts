/** Run files, whose parser is loaded with the first one that is opened. */

import type { OpenRunFile, RunFilePort } from "./run-file.ts";

/** As `openRunFile` in run-file.ts. */
export async function openRunFile(path: string, port: RunFilePort): Promise<OpenRunFile> {
  return (await import("./run-file.ts")).openRunFile(path, port);
}

/** As `editRunFile` in run-file.ts. */
export async function editRunFile(text: string, file: string, spelling: string, value: unknown): Promise<string> {
  return (await import("./run-file.ts")).editRunFile(text, file, spelling, value);
}
