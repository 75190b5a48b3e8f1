import { expect, test } from "vitest";
import { presetNames, resolveConfig } from "../config/index.ts";
import {
  blueprint,
  compareWithArticle,
  countHeaders,
  countStorage,
  outline,
  releasedTensors,
  reportParameters,
  type Blueprint,
  type HeaderTensor,
  type ModuleReport,
} from "./index.ts";

const describeModel = (preset: string): Blueprint => blueprint(resolveConfig(preset).model);

test("an outline describes one layer of each kind and counts all of them", () => {
  for (const preset of presetNames()) {
    const whole = describeModel(preset);
    const brief = outline(whole.model);
    for (const depth of [1, 2] as const) {
      expect(reportParameters(brief, { depth }), preset).toEqual(reportParameters(whole, { depth }));
    }
    const { nDenseLayers, nMtpLayers, nRoutedExperts } = whole.model;
    if (whole.model.attention === "csa" || whole.model.vision !== null) continue;
    const kinds = nRoutedExperts === 0 ? 1 : Math.min(1, nDenseLayers) + 1;
    expect(brief.layers, preset).toHaveLength(kinds + Math.min(1, nMtpLayers));
  }
});

test("modules add up to the whole, and parts to their module, at every depth", () => {
  const check = (parts: readonly ModuleReport[] | undefined, whole: { total: number; activated: number }): void => {
    if (parts === undefined) return;
    const sum = (key: "total" | "activated"): number => parts.reduce((all, part) => all + part[key], 0);
    expect([sum("total"), sum("activated")]).toEqual([whole.total, whole.activated]);
    for (const part of parts) check(part.modules, part);
  };
  for (const preset of presetNames()) {
    for (const depth of [1, 2, 3] as const) {
      const report = reportParameters(describeModel(preset), { depth });
      check(report.modules, report);
      expect(report.total).toBe(report.trainable + report.buffers);
    }
  }
});

test("a part gathers what has one name in all layers, and below it stands each parameter", () => {
  const attention = reportParameters(describeModel("deepseek-v3"), { depth: 3 }).modules[2]!;
  expect(attention.modules!.map(({ name }) => name)).toEqual([
    "layers.*.attn.wq_a",
    "layers.*.attn.wq_b",
    "layers.*.attn.wkv_a",
    "layers.*.attn.wkv_b",
    "layers.*.attn.wo",
  ]);
  expect(attention.modules![4]!.modules).toHaveLength(61);
  expect(attention.modules![4]!.modules![60]).toMatchObject({ name: "layers.60.attn.wo", total: 117_440_512 });
});

test("shares are of the total and of what is activated", () => {
  const { modules } = reportParameters(describeModel("deepseek-v3"));
  const routed = modules.find(({ name }) => name === "routed_experts");
  expect(routed!.share).toBeCloseTo(0.97449, 5);
  expect(routed!.activeShare).toBeCloseTo(0.54417, 5);
});

test("the headers of a released checkpoint give the counts that the blueprint foretells", () => {
  const width = { F32: 4, BF16: 2, F8_E4M3: 1, F8_E8M0: 1, I8: 1, I64: 8, F16: 2 } as const;
  for (const preset of ["deepseek-v3", "deepseek-v4-flash", "deepseek-vl2-tiny"]) {
    const bp = describeModel(preset);
    const headers = new Map<string, HeaderTensor>();
    for (const { name, dtype, shape } of releasedTensors(bp)) {
      headers.set(name, { dtype, shape, bytes: shape.reduce((a, b) => a * b, width[dtype]) });
    }
    expect(countHeaders(bp, headers, "safetensors")).toEqual(countStorage(bp));
  }
});

test("no row of the article's table is near the model, and both columns add up", () => {
  const rows = compareWithArticle(describeModel("deepseek-v3"));
  expect(rows.map(({ name, claimed, counted }) => [name, claimed / 1e9, counted])).toEqual([
    ["embedding", 12, 926_679_040],
    ["attention", 180, 11_413_422_080],
    ["FFN", 320, 657_652_187_136],
    ["LayerNorm", 5, 1_006_592],
    ["output head", 8, 926_679_040],
    ["others (residual connections)", 146, 106_445_312],
    ["total", 671, 671_026_419_200],
  ]);
  const parts = rows.slice(0, -1);
  expect(parts.reduce((sum, { claimed }) => sum + claimed, 0)).toBe(671e9);
  expect(parts.reduce((sum, { counted }) => sum + counted, 0)).toBe(671_026_419_200);
});
