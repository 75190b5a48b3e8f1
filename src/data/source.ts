/** Where documents come from. A source streams them; none holds a corpus in memory. */

import * as fs from "node:fs";
import * as path from "node:path";
import { glob } from "tinyglobby";
import { ConfigError, FormatError, IoError } from "../core/errors.ts";
import type { Corpus } from "./catalogue.ts";
import { digest } from "./digest.ts";
import { type FetchOptions, fetchCorpus } from "./fetch.ts";
import { readLines, readPieces } from "./text-file.ts";

export interface Source {
  readonly name: string;
  /** Changes whenever the documents may have changed: the key of everything made from them. */
  readonly id: string;
  /** Bytes of the files; about those of the text. */
  readonly sizeBytes: number;
  /** The documents, none of them blank, in the same order each time. */
  documents(): AsyncIterable<string>;
}

/** Files larger than a twentieth of all text become several documents, so that some can be held out for validation. */
const PIECES_PER_SOURCE = 20;
const MIN_PIECE_BYTES = 16 << 10;
/** A document is tokenised in one call; this bounds its memory. */
const MAX_PIECE_BYTES = 8 << 20;

/** The documents of a catalogue corpus, which is fetched if it is not in the cache. @throws IoError as `fetchCorpus`. */
export async function openCorpus(corpus: Corpus, options: FetchOptions): Promise<Source> {
  const file = await fetchCorpus(corpus, options);
  return {
    name: corpus.name,
    id: digest([corpus.name, corpus.integrity, corpus.readerVersion]),
    sizeBytes: corpus.textBytes,
    documents: () => unlessEmpty(corpus.name, readJsonl(file)),
  };
}

/**
 * The user's own text. Each pattern is a file, a folder or a glob. In a `.jsonl` file every line is an object whose
 * string `text` is a document; every other file is plain UTF-8 text and one document, or several (cut at line ends) when
 * it holds more than a twentieth of all bytes and more than 16 KiB, or more than 8 MiB. Files are taken in the order of
 * their paths. The id is made of every file's path, size and modification time: contents are not read for it.
 *
 * @throws ConfigError when no file matches; while documents are read, FormatError for a file that is not text or not
 * JSON lines, and ConfigError when there is no text in any file.
 */
export async function openFiles(patterns: readonly string[], cwd: string): Promise<Source> {
  const name = patterns.join(" ");
  const files = (await findFiles(patterns, cwd)).map((file) => ({ file, ...fileStat(file) }));
  const sizeBytes = files.reduce((sum, { size }) => sum + size, 0);
  const share = Math.ceil(sizeBytes / PIECES_PER_SOURCE);
  const pieceBytes = Math.min(MAX_PIECE_BYTES, Math.max(MIN_PIECE_BYTES, share));
  async function* documents(): AsyncGenerator<string> {
    for (const { file } of files) yield* file.endsWith(".jsonl") ? readJsonl(file) : readPieces(file, pieceBytes);
  }
  return { name, id: digest(files), sizeBytes, documents: () => unlessEmpty(name, documents()) };
}

/** Whole documents as streams, for reading through. */
export interface TextStream {
  /** Bytes of the files; about those of the text. */
  readonly sizeBytes: number;
  /** Each document in pieces, which are read while they are asked for: take them before the next document. */
  readonly documents: () => AsyncIterable<AsyncIterable<string>>;
}

/**
 * The user's own text, its documents whole: each line of a `.jsonl` file, and each other file however large it is. Pieces
 * are at most 8 MiB and end at the end of a line where there is one. Patterns and errors are those of `openFiles`, but
 * that blank text is kept.
 */
export async function openTexts(patterns: readonly string[], cwd: string): Promise<TextStream> {
  const files = (await findFiles(patterns, cwd)).map((file) => ({ file, ...fileStat(file) }));
  async function* documents(): AsyncGenerator<AsyncIterable<string>> {
    for (const { file } of files) {
      if (file.endsWith(".jsonl")) for await (const text of readJsonl(file)) yield onePiece(text);
      else yield readPieces(file, MAX_PIECE_BYTES);
    }
  }
  return { sizeBytes: files.reduce((sum, { size }) => sum + size, 0), documents };
}

async function* onePiece(text: string): AsyncGenerator<string> {
  yield text;
}

async function findFiles(patterns: readonly string[], cwd: string): Promise<string[]> {
  const found = new Set<string>();
  for (const pattern of patterns) {
    const literal = path.resolve(cwd, pattern);
    const matches = isFile(literal) ? [literal] : await glob(pattern, { cwd, absolute: true, onlyFiles: true });
    if (matches.length === 0) {
      throw new ConfigError("data", "must match at least one file", pattern, `check the path, which starts at ${cwd}`);
    }
    for (const match of matches) found.add(path.normalize(match));
  }
  return [...found].toSorted();
}

function isFile(file: string): boolean {
  return fs.statSync(file, { throwIfNoEntry: false })?.isFile() ?? false;
}

function fileStat(file: string): { size: number; mtimeMs: number } {
  const stat = fs.statSync(file, { throwIfNoEntry: false });
  if (stat === undefined) throw new IoError(file, "must exist while it is read");
  return { size: stat.size, mtimeMs: stat.mtimeMs };
}

async function* readJsonl(file: string): AsyncGenerator<string> {
  for await (const line of readLines(file)) {
    if (line.text.trim() !== "") yield parseLine(line.text, `${file}:${line.number}`);
  }
}

function parseLine(line: string, place: string): string {
  let value: unknown;
  try {
    value = JSON.parse(line);
  } catch (error) {
    throw new FormatError(place, "every line must be JSON", {
      got: (error as SyntaxError).message,
      cure: "correct or remove the line, or rename the file to .txt if it is plain text",
    });
  }
  const text = typeof value === "object" && value !== null ? (value as { text?: unknown }).text : undefined;
  if (typeof text === "string") return text;
  throw new FormatError(place, "every line must be an object with a string text", {
    got: line.slice(0, 80),
    cure: 'write {"text": "…"} on each line',
  });
}

async function* unlessEmpty(name: string, documents: AsyncIterable<string>): AsyncGenerator<string> {
  let empty = true;
  for await (const text of documents) {
    if (text.trim() === "") continue;
    empty = false;
    yield text;
  }
  if (empty) throw new ConfigError("data", "must hold some text (every document is blank)", name, "give other files");
}
