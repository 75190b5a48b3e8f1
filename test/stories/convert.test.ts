import * as fs from "node:fs";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { resolveConfig } from "../../src/config/index.ts";
import { Workspace } from "../helpers/cli.ts";
import { writeRandomFolder } from "../helpers/random-checkpoint.ts";

let at: Workspace;
beforeAll(async () => {
  at = new Workspace();
  const fp8 = { dim: 160, moeInterDim: 72, dtype: "fp8" };
  await writeRandomFolder(at.path("fp8"), resolveConfig({ preset: "tiny", model: fp8 }).model);
});
afterAll(() => {
  at[Symbol.dispose]();
});

describe("fathom convert", () => {
  test("an fp8 folder becomes bf16 in shards, then a quantised GGUF file, each verified and inspected", async () => {
    const size = ["--max-shard-size", "100KB"];
    const first = await at.run("convert", at.path("fp8"), at.path("bf16/"), "--dtype", "bf16", ...size, "--verify");
    expect([first.code, first.stderr]).toEqual([0, ""]);
    expect(first.stdout.replaceAll(at.folder, "")).toMatchInlineSnapshot(`
      "95 tensors in 23 files: 1.7 MiB
      verified: 95 tensors, 902064 finite values, 23 checksums
      written: /bf16
      "
    `);
    const second = await at.run(
      "convert",
      at.path("bf16"),
      at.path("q8.gguf"),
      "--dtype",
      "q8_0",
      "--verify",
      "--json",
    );
    const result = JSON.parse(second.stdout) as { notices: string[]; verified: { files: number }; sha256: object };
    expect([second.code, result.verified.files, Object.keys(result.sha256)]).toEqual([0, 1, ["q8.gguf"]]);
    for (const path of ["bf16", "q8.gguf"]) {
      expect((await at.run("inspect", at.path(path))).stdout).toContain(
        "every tensor of the model is there, and no other",
      );
    }
  });

  test("a dry run says size and room and writes nothing", async () => {
    const { code, stdout } = await at.run("convert", at.path("fp8"), at.path("dry"), "--dtype", "f32", "--dry-run");
    expect(code).toBe(0);
    expect(stdout).toMatch(/^\d+ tensors in 4 files: [\d.]+ MiB\nfree on the disk: [\d.]+ [MG]iB\n$/);
    expect(fs.readdirSync(at.folder).some((name) => name.startsWith("dry"))).toBe(false);
  });

  test("what cannot be is refused with one line and an exit code", async () => {
    const refusal = async (...args: string[]): Promise<string> => {
      const { code, stderr } = await at.run("convert", ...args);
      return `${code} ${stderr.replaceAll(at.folder, "")}`;
    };
    expect([
      await refusal(at.path("fp8"), at.path("fp8"), "--dtype", "bf16"),
      await refusal(at.path("fp8"), at.path("x"), "--dtype", "q4_k"),
      await refusal(at.path("fp8"), at.path("x"), "--dtype", "f32", "--max-shard-size", "5 cows"),
      await refusal(at.path("nowhere"), at.path("x"), "--dtype", "f32"),
    ]).toMatchInlineSnapshot(`
      [
        "1 error: /fp8: must not exist yet; choose another path, or remove it
      ",
        "1 error: --dtype: must be one of f32, bf16, f16, fp8, int8 for a folder, got "q4_k"
      ",
        "1 error: --max-shard-size: must be bytes, KB, MB, GB, KiB, MiB or GiB, got "5 cows"; for example 5GB
      ",
        "1 error: source: must be the path of a checkpoint folder or a .gguf file, got "/nowhere"; check the path
      ",
      ]
    `);
  });
});
