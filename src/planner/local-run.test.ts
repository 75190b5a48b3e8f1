import { describe, expect, it } from "vitest";
import { blueprint } from "../blueprint/index.ts";
import { resolveConfig } from "../config/index.ts";
import { explainLocal, LOCAL_NAMES, planLocal, planLocalMixes, type LocalMachine } from "./local-run.ts";

const V3 = blueprint(resolveConfig("deepseek-v3").model);
const GIB = 2 ** 30;
const MACHINE: LocalMachine = {
  vramBytes: 24 * GIB,
  ramBytes: 256 * GIB,
  vramBytesPerSec: 1008e9,
  ramBytesPerSec: 460.8e9,
};

describe("a local run of 671B", () => {
  it("keeps attention and shared experts on the GPU and the experts in RAM, with nothing lost", () => {
    const plan = planLocal(V3, "Q4_K_M", MACHINE);
    expect(plan.gpu.weightBytes + plan.ram.totalBytes).toBe(plan.fileBytes);
    const oneLayer = plan.ram.totalBytes / plan.cpuMoeLayers;
    expect(plan.cpuMoeLayers).toBe(57);
    expect(plan.nCpuMoe).toBe(60);
    expect(plan.gpu.totalBytes + oneLayer).toBeGreaterThan(24 * GIB * 0.85);
    expect(plan.fileBytes / GIB).toBeCloseTo(376.7, 1);
    expect(plan.fits).toBe(false);
  });

  it("is bounded by the bytes of the chosen experts over the bandwidth of the RAM", () => {
    const plan = planLocal(V3, "Q4_K_M", MACHINE);
    const chosen = (plan.ram.totalBytes * 8) / 256;
    expect(plan.ramReadBytes).toBeLessThan(chosen);
    expect(plan.ramReadBytes).toBeGreaterThan(chosen * 0.99);
    const slower = planLocal(V3, "Q4_K_M", { ...MACHINE, ramBytesPerSec: 80e9 });
    expect(slower.boundTokensPerSec).toBeLessThan(plan.boundTokensPerSec);
    expect(1 / plan.boundTokensPerSec).toBeCloseTo(plan.gpuReadBytes / 1008e9 + plan.ramReadBytes / 460.8e9, 12);
  });

  it("derives its bound and its bytes from the elements of each type", () => {
    const plan = planLocal(V3, "Q4_K_M", MACHINE);
    const rate = explainLocal("bound.rate", V3, "Q4_K_M", MACHINE);
    expect(rate).toMatchObject({ value: plan.boundTokensPerSec, formula: "1 / token.seconds" });
    const values = { "file.bytes": plan.fileBytes, "gpu.total": plan.gpu.totalBytes, "ram.read": plan.ramReadBytes };
    for (const [name, value] of Object.entries(values)) {
      expect(explainLocal(name, V3, "Q4_K_M", MACHINE)).toMatchObject({ name, value });
    }
    const weights = explainLocal("ram.weights", V3, "Q4_K_M", MACHINE);
    expect(weights.formula).toContain("ram.q4_K / 256 * 144");
    expect(LOCAL_NAMES.map((name) => explainLocal(name, V3, "Q4_K_M", MACHINE).name)).toEqual(LOCAL_NAMES);
  });

  it("finds the mixes that go into 24 GiB and 256 GiB", () => {
    const fitting = planLocalMixes(V3, MACHINE).filter(({ fits }) => fits);
    expect(fitting.map(({ mix }) => mix)).toMatchInlineSnapshot(`
      [
        "Q2_K",
        "Q2_K_S",
        "IQ2_M",
        "IQ2_S",
        "IQ2_XS",
        "IQ2_XXS",
        "IQ1_M",
        "IQ1_S",
      ]
    `);
    expect(planLocalMixes(V3, { ...MACHINE, ramBytes: 64 * GIB }).some(({ fits }) => fits)).toBe(false);
  });

  it("moves layers of experts to a GPU that has room for them, the last ones first", () => {
    const plan = planLocal(V3, "IQ1_S", { ...MACHINE, vramBytes: 96 * GIB });
    expect(plan.cpuMoeLayers).toBeLessThan(58);
    expect(plan.gpu.totalBytes).toBeLessThanOrEqual(96 * GIB * 0.85);
    expect(plan.gpu.weightBytes + plan.ram.totalBytes).toBe(plan.fileBytes);
    const more = planLocal(V3, "IQ1_S", { ...MACHINE, vramBytes: 96 * GIB, ramBytes: 8 * 1024 * GIB });
    expect(more.cpuMoeLayers).toBe(plan.cpuMoeLayers);
  });

  it("needs more GPU memory for a longer context, and not more than the GPU has", () => {
    const at = (context: number) => planLocal(V3, "IQ2_XXS", MACHINE, { context });
    expect(at(32_768).gpu.kvBytes).toBe(70_272 * 32_768);
    const small = { ...MACHINE, vramBytes: 16 * GIB };
    expect(planLocal(V3, "IQ2_XXS", small).fits).toBe(true);
    expect(planLocal(V3, "IQ2_XXS", small, { context: 163_840 }).fits).toBe(false);
  });
});
