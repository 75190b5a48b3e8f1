import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { FIRST_BYTE_ID } from "../../test/helpers/byte-tokenizer.ts";
import { writeRandomFolder } from "../../test/helpers/random-checkpoint.ts";
import { outputOf } from "../../test/helpers/verb.ts";
import { resolveConfig } from "../config/index.ts";
import { tokenizeCommand } from "./tokenize.ts";

let folder: string;
beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), "fathom-tokenize-"));
  await writeRandomFolder(folder, resolveConfig({ preset: "tiny", model: { vocabSize: 259, dtype: "f32" } }).model);
});
afterAll(() => rmSync(folder, { recursive: true }));

test("tokenize shows ids and what each of them is", async () => {
  const ids = Array.from(Buffer.from("a b"), (byte) => byte + FIRST_BYTE_ID);
  const result = await outputOf(tokenizeCommand(), "--model", folder, "--json", "a b");
  expect(JSON.parse(result)).toEqual({ ids, pieces: ["a", " ", "b"] });
  expect(await outputOf(tokenizeCommand(), "--model", folder, "a b")).toBe(`${ids.join(" ")}\n"a" " " "b"\n`);
});
