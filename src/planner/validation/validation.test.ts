import { describe, expect, it } from "vitest";
import { device } from "../devices.ts";
import { efficiencyFor } from "../efficiency.ts";
import { accountingRows } from "./accounting.ts";
import { memoryRows } from "./memory.ts";
import { PUBLISHED_RUNS } from "./published-runs.ts";
import { errorOf, validationReport, validationText } from "./report.ts";

describe("the planner against published numbers", () => {
  it.each(accountingRows())("accounts for $id, $what within half a per cent", (row) => {
    expect(row.bar).toBe(0.005);
    expect(Math.abs(errorOf(row))).toBeLessThanOrEqual(row.bar);
  });

  it.each(memoryRows())("finds the memory of $id, $what within its bar", (row) => {
    expect(row.bar).toBe(row.id === "G13" ? 0.1 : 0.03);
    expect(Math.abs(errorOf(row))).toBeLessThanOrEqual(row.bar);
  });

  it("has a source for every run, and a layout exactly where nothing is missing", () => {
    for (const run of PUBLISHED_RUNS) {
      expect(run.source, run.id).not.toBe("");
      expect(run.layout === undefined, run.id).toBe(run.missing.length > 0);
      expect(run.role === "calibration", run.id).toBe(run.missing.length > 0);
    }
  });

  const report = validationReport();

  it("predicts held-out times of Korthikanti et al., torchtitan and Llama 3 within 8, 10 and 15 per cent", () => {
    const bars = { "megatron-2022": 0.08, torchtitan: 0.1, "meta-llama3": 0.15 };
    for (const { name, bar, rows } of report.time) {
      expect(bar, name).toBe(Object.entries(bars).find(([engine]) => name.startsWith(engine))![1]);
      for (const { run, error } of rows.filter((row) => row.run.role === "predict")) {
        expect(Math.abs(error), run.id).toBeLessThanOrEqual(bar);
      }
    }
  });

  it("plans with the coefficients that its published runs give, to two digits", () => {
    const presets = [
      ["megatron-2022 / a100 / bf16 / dense", "megatron", "a100-80gb", "bf16"],
      ["meta-llama3 / h100 / bf16 / dense", "megatron", "h100", "bf16"],
      ["torchtitan compiled / h100-96gb / bf16 / dense", "torchtitan", "h100-96gb", "bf16"],
      ["torchtitan compiled fp8 / h100-96gb / fp8-bf16-states / dense", "torchtitan", "h100-96gb", "fp8"],
    ] as const;
    for (const [group, engine, name, format] of presets) {
      const { computeShare, memoryShare } = report.time.find((fitted) => fitted.name === group)!.coefficients;
      const cluster = { device: device(name), count: 8 };
      const used = efficiencyFor({ engine, cluster, format, family: "dense" });
      expect(used.calibrated, group).toBe(true);
      expect(used.computeShare, group).toBeCloseTo(computeShare, 2);
      expect(used.memoryShare, group).toBeCloseTo(memoryShare, 2);
    }
  });

  it("has a median error of at most 15 per cent on rows that were not fitted, and none above 25", () => {
    const heldOut = report.time.flatMap(({ rows }) => rows).filter(({ run }) => run.role === "predict");
    expect(report.median).toBeLessThanOrEqual(0.15);
    expect(Math.max(...heldOut.map(({ error }) => Math.abs(error)))).toBeLessThan(0.25);
  });

  it("uses at most two coefficients for a group, each a share", () => {
    for (const { coefficients } of report.time) {
      expect(Object.keys(coefficients)).toHaveLength(2);
      for (const share of Object.values(coefficients)) expect(share >= 0 && share <= 1).toBe(true);
    }
  });

  it("finds no served model faster than its bound", () => {
    const implied = report.served.flatMap((row) => (row.implied === undefined ? [] : [row.implied]));
    expect(implied.length).toBeGreaterThan(0);
    expect(implied.every((share) => share > 0 && share < 1)).toBe(true);
  });

  it("prints every row, and each that is over its bar again at the end", () => {
    const text = validationText(report);
    for (const run of PUBLISHED_RUNS) expect(text).toContain(`| ${run.id} |`);
    for (const { id, missing } of report.served)
      expect(text).toMatch(new RegExp(`\\| ${id} \\|.*${missing.slice(0, 12)}`));
    for (const { id, run, missing } of report.unpredicted) expect(text).toContain(`| ${id} | ${run} | ${missing} |`);
    for (const id of ["G8", "G12", "G16", "G18", "G19", "G25", "G27"]) expect(text).toContain(`\n| ${id} |`);
    for (const miss of report.misses) expect(text).toContain(`- ${miss}`);
  });
});
