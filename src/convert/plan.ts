/** What a conversion will write, before a byte is written. */

import { readFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { writeWhole, type FilePort } from "../formats/index.ts";
import { nodeFiles } from "../formats/node.ts";

export interface OutputFile {
  /** Name beside the others. */
  readonly name: string;
  /** Bytes of its tensors, or of the whole of a small file. */
  readonly bytes: number;
  /** Writes it whole or not at all. */
  readonly write: (port: FilePort, path: string) => Promise<void>;
}

export interface OutputPlan {
  readonly files: readonly OutputFile[];
  /** Sentences about what will be other than the source says, or than was asked for. */
  readonly notices: readonly string[];
  readonly tensors: number;
}

export function sumBytes(parts: readonly { readonly bytes: number }[]): number {
  return parts.reduce((sum, { bytes }) => sum + bytes, 0);
}

export function textFile(name: string, text: string): OutputFile {
  const bytes = new TextEncoder().encode(text);
  return { name, bytes: bytes.length, write: (port, path) => writeWhole(port, path, [bytes]) };
}

/** A small file of the source as it is; undefined when there is none. */
export async function copiedFile(folder: string, name: string): Promise<OutputFile | undefined> {
  const path = join(folder, name);
  if (!(await nodeFiles.isFile(path))) return undefined;
  const bytes = await readFile(path);
  return { name, bytes: bytes.length, write: (port, to) => writeWhole(port, to, [bytes]) };
}

/** A model's path out of the files that were written for `target`: the first part of a split GGUF, else `target`. */
export function ggufFirstPart(target: string, names: Iterable<string>): string {
  const first = [...names].find((name) => /-00001-of-\d{5}\.gguf$/.test(name));
  return first === undefined ? target : join(dirname(target), first);
}
