import { describe, expect, it } from "vitest";
import { parseDeviceRows } from "./device-rows.ts";
import { device, DEVICES } from "./devices.ts";
import { CONFIDENCES, confidenceOf, peakOf } from "./hardware.ts";

describe("the hardware table", () => {
  it("has every name and alias once", () => {
    const names = DEVICES.flatMap(({ name, aliases }) => [name, ...aliases]);
    expect(new Set(names).size).toBe(names.length);
  });

  it("holds dense peaks, which widen no faster than formats narrow", () => {
    for (const { name, peaks } of DEVICES) {
      const { bf16, fp16, fp8 } = peaks;
      const half = bf16 ?? fp16 ?? Number.NaN;
      expect(half, name).toBeGreaterThan(0);
      if (fp8 !== undefined) expect(fp8 / half, name).toBeLessThan(2.05);
    }
  });

  it("states the H100 without sparsity and the H800 with its cut link", () => {
    expect(device("H100 SXM").peaks).toMatchObject({ bf16: 989e12, fp8: 1979e12 });
    expect(device("h800").link).toEqual({ bytesPerSec: 200e9, devices: 8 });
    expect(device("gb200").link?.devices).toBe(72);
    expect(device("h100-96gb")).toMatchObject({ memoryBytes: 96 * 2 ** 30, memoryBytesPerSec: 2.4e12, watts: 500 });
  });

  it("has a confidence and a source for every cell", () => {
    for (const row of DEVICES) {
      expect(row.source, row.name).not.toBe("");
      for (const cell of ["memory", "bandwidth", "link", "network", "watts", ...Object.keys(row.peaks)]) {
        expect(CONFIDENCES).toContain(confidenceOf(row, cell));
      }
    }
    expect(confidenceOf(device("4090"), "bf16")).toBe("unverified");
    expect(confidenceOf(device("h100"), "bf16")).toBe("published");
  });

  it("counts of an AMX core 1,024 bf16 operations a cycle, twice as many in int8", () => {
    expect(device("xeon-6980p").peaks).toEqual({ bf16: 128 * 2e9 * 1024, int8: 128 * 2e9 * 2048 });
  });

  it("is searched in any case and by alias, and an unknown name hears the nearest", () => {
    expect(device("A100-SXM4-80GB").name).toBe("a100");
    expect(device("Strix Halo").name).toBe("ryzen-ai-max-395");
    expect(() => device("h880")).toThrowErrorMatchingInlineSnapshot(
      `[ConfigError: device: must be in the hardware table or in your hardware file, got "h880"; did you mean h800?]`,
    );
  });

  it("says which peaks a device has when another is asked for", () => {
    expect(peakOf(device("v100"), "bf16")).toBe(125e12);
    expect(() => peakOf(device("a100"), "fp8")).toThrowErrorMatchingInlineSnapshot(
      `[ConfigError: a100.peaks: must have fp8, got "bf16, fp16, int8"; choose one of these precisions]`,
    );
  });
});

describe("a user's hardware file", () => {
  const mine = { name: "mine", memory_gib: 12, memory_gb_per_s: 360, peak_tflops: { bf16: 51 } };

  it("adds rows, which win over built-in ones", () => {
    const rows = parseDeviceRows(JSON.stringify([mine, { ...mine, name: "h100" }]), "hardware.json");
    expect(device("mine", rows).peaks.bf16).toBe(51e12);
    expect(device("h100", rows).memoryBytes).toBe(12 * 2 ** 30);
  });

  it("is refused with row, field, rule and value", () => {
    const refused = (row: unknown) => () => parseDeviceRows(JSON.stringify([row]), "hardware.json");
    expect(() => parseDeviceRows("{", "hardware.json")).toThrow(/hardware\.json: must be JSON/);
    expect(refused({ ...mine, memory_gib: -1 })).toThrowErrorMatchingInlineSnapshot(
      `[ConfigError: hardware.json[0].memory_gib: must be a number above 0, got -1]`,
    );
    expect(refused({ ...mine, memory_gb: 1 })).toThrowErrorMatchingInlineSnapshot(
      `[ConfigError: hardware.json[0].memory_gb: must be a known field; did you mean memory_gib?]`,
    );
    expect(refused({ ...mine, peak_tflops: { bf17: 1 } })).toThrowErrorMatchingInlineSnapshot(
      `[ConfigError: hardware.json[0].peak_tflops: must give dense TFLOP/s by format (fp32, fp16, bf16, fp8, int8, fp4), got {"bf17":1}]`,
    );
    expect(refused({ ...mine, confidence: { bandwith: "measured" } })).toThrowErrorMatchingInlineSnapshot(
      `[ConfigError: hardware.json[0].confidence.bandwith: must be a known cell; did you mean bandwidth?]`,
    );
    expect(refused({ name: "mine" })).toThrowErrorMatchingInlineSnapshot(
      `[ConfigError: hardware.json[0].memory_gib: must be a number above 0; add it]`,
    );
    expect(refused(null)).toThrowErrorMatchingInlineSnapshot(
      `[ConfigError: hardware.json[0]: must be a hardware row, got null; give name, memory_gib, memory_gb_per_s, peak_tflops]`,
    );
  });
});
