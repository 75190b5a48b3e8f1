import { spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { once } from "node:events";
import * as fs from "node:fs";
import * as os from "node:os";
import * as path from "node:path";
import { buffer } from "node:stream/consumers";
import { gzipSync } from "node:zlib";
import { pack } from "tar-stream";
import { afterAll, beforeAll, beforeEach, expect, test } from "vitest";
import { collect } from "../../test/helpers/collect.ts";
import { ConfigError, IoError } from "../core/errors.ts";
import { type Corpus, CORPORA, findCorpus, tarballName } from "./catalogue.ts";
import { type FetchOptions, fetchCorpus, isFetched } from "./fetch.ts";
import { openCorpus } from "./source.ts";

const folder = fs.mkdtempSync(path.join(os.tmpdir(), "fathom-fetch-"));
const cacheDir = path.join(folder, "cache");
const packed = path.join(folder, "packed.tgz");
let corpus: Corpus;

/** An npm client in one line: `npm pack SPEC … --pack-destination FOLDER` copies the test's tarball. */
const COPYING_NPM = `
  import { copyFileSync } from "node:fs";
  const [verb, spec] = process.argv.slice(2);
  if (verb !== "pack" || spec !== "@scope/poems@1.2.3") process.exit(2);
  copyFileSync(${JSON.stringify(packed)}, process.argv.at(-1) + "/scope-poems-1.2.3.tgz");`;
const FAILING_NPM = `
  console.error("npm warn old\\nnpm error code ENOTFOUND\\nnpm error syscall x\\nnpm error network request failed\\nnpm error A complete log of this");
  process.exit(1);`;

function npm(script: string): Required<FetchOptions>["npm"] {
  const file = path.join(folder, `npm-${createHash("md5").update(script).digest("hex")}.mjs`);
  fs.writeFileSync(file, script);
  return [process.execPath, file];
}

beforeAll(async () => {
  const tar = pack();
  tar.entry({ name: "package/README.md" }, "not a document");
  tar.entry({ name: "package/data/b.txt" }, "second document\n");
  tar.entry({ name: "package/data/a.txt" }, "first 文");
  tar.finalize();
  const bytes = gzipSync(await buffer(tar));
  fs.writeFileSync(packed, bytes);
  corpus = {
    ...findCorpus("sotu"),
    name: "poems",
    package: "@scope/poems",
    version: "1.2.3",
    integrity: `sha512-${createHash("sha512").update(bytes).digest("base64")}`,
  };
});
beforeEach(() => fs.rmSync(cacheDir, { recursive: true, force: true }));
afterAll(() => fs.rmSync(folder, { recursive: true }));

async function documents(options: FetchOptions): Promise<string[]> {
  return collect((await openCorpus(corpus, options)).documents());
}

test("the package's files become documents, and the second time no npm is run", async () => {
  const phases: string[] = [];
  const onProgress: Required<FetchOptions>["onProgress"] = ({ phase }) => phases.push(phase);
  expect(isFetched(corpus, cacheDir)).toBe(false);
  expect(await documents({ cacheDir, npm: npm(COPYING_NPM), onProgress })).toEqual(["first 文", "second document"]);
  expect(isFetched(corpus, cacheDir)).toBe(true);
  expect(phases).toEqual(["download", "unpack"]);
  expect(await documents({ cacheDir, npm: npm(FAILING_NPM) })).toEqual(["first 文", "second document"]);
});

test("nothing but the documents stays in the cache", async () => {
  await fetchCorpus(corpus, { cacheDir, npm: npm(COPYING_NPM) });
  expect(fs.readdirSync(cacheDir, { recursive: true })).toEqual(["corpora", "corpora/poems-1.2.3-reader1.jsonl"]);
});

test("several fetches at the same time all succeed", async () => {
  const all = await Promise.all([1, 2, 3].map(() => documents({ cacheDir, npm: npm(COPYING_NPM) })));
  expect(all).toEqual(Array.from({ length: 3 }, () => ["first 文", "second document"]));
  expect(fs.readdirSync(path.join(cacheDir, "corpora"))).toHaveLength(1);
});

test("a fetch that is killed leaves nothing that the next one does not clear away", async () => {
  const hanging = path.join(folder, "hanging.mjs");
  const fetchModule = JSON.stringify(new URL("fetch.ts", import.meta.url).href);
  const npmThatHangs = "const { ppid } = process; setInterval(() => process.ppid === ppid || process.exit(1), 50);";
  fs.writeFileSync(
    hanging,
    `import { fetchCorpus } from ${fetchModule};
    const corpus = { ...${JSON.stringify(corpus)}, read: () => [] };
    const onProgress = ({ phase }) => console.log(phase);
    await fetchCorpus(corpus, { cacheDir: ${JSON.stringify(cacheDir)}, npm: ${JSON.stringify(npm(npmThatHangs))}, onProgress });`,
  );
  const child = spawn(process.execPath, ["--import", "tsx", hanging], { stdio: ["ignore", "pipe", "inherit"] });
  await once(child.stdout, "data");
  child.kill("SIGKILL");
  await once(child, "exit");
  const corpora = path.join(cacheDir, "corpora");
  expect(fs.readdirSync(corpora)).toEqual([expect.stringMatching(/^\.tmp-/)]);
  await fetchCorpus(corpus, { cacheDir, npm: npm(COPYING_NPM) });
  expect(fs.readdirSync(corpora)).toEqual(["poems-1.2.3-reader1.jsonl"]);
});

test("without network the error says which file to put where, and that file is then taken", async () => {
  const offline = { cacheDir, npm: npm(FAILING_NPM) };
  const tarballs = path.join(cacheDir, "tarballs");
  const error = await fetchCorpus(corpus, offline).catch((thrown: unknown) => thrown);
  expect(error).toBeInstanceOf(IoError);
  expect((error as IoError).message).toBe(
    '@scope/poems@1.2.3: must be fetched once from the npm registry, got "network request failed"; ' +
      `connect to the registry and run again, or put scope-poems-1.2.3.tgz into ${tarballs}`,
  );
  fs.mkdirSync(tarballs, { recursive: true });
  fs.copyFileSync(packed, path.join(tarballs, tarballName(corpus)));
  expect(await documents(offline)).toEqual(["first 文", "second document"]);
});

test("a missing npm is the same error", async () => {
  const options: FetchOptions = { cacheDir, npm: [path.join(folder, "no-such-npm")] };
  await expect(fetchCorpus(corpus, options)).rejects.toThrow(/ENOENT.*put scope-poems-1.2.3.tgz into/);
});

test("another hash is an error with both hashes, and nothing is kept", async () => {
  const wrong = { ...corpus, integrity: "sha512-AAAA" };
  const error = await fetchCorpus(wrong, { cacheDir, npm: npm(COPYING_NPM) }).catch((thrown: unknown) => thrown);
  expect(error).toBeInstanceOf(IoError);
  expect((error as IoError).message).toContain("must have the hash sha512-AAAA of @scope/poems@1.2.3");
  expect((error as IoError).message).toContain(corpus.integrity);
  expect(fs.readdirSync(path.join(cacheDir, "corpora"))).toEqual([]);
});

test("Tang files give one document per distinct poem in form", () => {
  const poem = { title: "登鸛雀樓", paragraphs: ["白日依山盡，黃河入海流。", "欲窮千里目，更上一層樓。"] };
  const prose = { title: "序", paragraphs: ["此詩無題。"] };
  const text = JSON.stringify([poem, prose, { ...poem, paragraphs: [poem.paragraphs.join("")] }]);
  expect(findCorpus("tang").read([{ path: "poet.tang.0.json", text }])).toEqual([poem.paragraphs.join("\n")]);
});

test("an unknown corpus is refused with the known names", () => {
  expect(() => findCorpus("sottu")).toThrow(ConfigError);
  expect(() => findCorpus("sottu")).toThrowErrorMatchingInlineSnapshot(
    `[ConfigError: corpus: must be one of sotu, tang, got "sottu"; did you mean sotu?]`,
  );
});

test("every row pins its tarball by version and SHA-512", () => {
  for (const { version, integrity } of CORPORA) {
    expect(version).toMatch(/^\d+\.\d+\.\d+$/);
    expect(Buffer.from(integrity.replace("sha512-", ""), "base64")).toHaveLength(64);
  }
});
