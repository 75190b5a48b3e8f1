import { cpus, totalmem } from "node:os";
import { afterEach, expect, test, vi } from "vitest";
import { outputOf } from "../../test/helpers/verb.ts";
import { nativeIsas } from "../kernels/node.ts";
import { doctorCommand } from "./doctor.ts";

afterEach(() => void vi.unstubAllEnvs());

test("doctor names the machine, the kernels in use and the cache", async () => {
  vi.stubEnv("FATHOM_CACHE", "/nowhere/fathom");
  const report = JSON.parse(await outputOf(doctorCommand(), "--json")) as Record<string, unknown>;
  expect(report).toMatchObject({
    ...{ node: process.version, platform: `${process.platform}-${process.arch}` },
    ...{ cores: cpus().length, memory_bytes: totalmem() },
    ...{ isas: nativeIsas(), cache: "/nowhere/fathom", corpora: [] },
  });
  expect(report["isas"]).toContain(report["isa"]);
  expect(report["threads"]).toBeGreaterThan(0);
  const text = await outputOf(doctorCommand());
  expect(text.split("\n").map((line) => line.split(" ")[0])).toEqual(["node", "cpu", "kernels", "cache", ""]);
  expect(text).toContain(`kernels    ${String(report["isa"])} on ${String(report["threads"])} threads`);
  expect(text).toContain("/nowhere/fathom; corpora in it: none");
});
