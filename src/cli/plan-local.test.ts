import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, describe, expect, it } from "vitest";
import { saveRow, userDevice, userRows } from "./hardware-file.ts";
import { measuredRow } from "./plan-calibrate.ts";
import { parseBytes } from "./plan-local.ts";

const folders: string[] = [];

function scratch(): string {
  const folder = mkdtempSync(join(tmpdir(), "fathom-hardware-"));
  folders.push(folder);
  return join(folder, "hardware.json");
}

afterEach(() => {
  for (const folder of folders.splice(0)) rmSync(folder, { recursive: true });
});

describe("a size on the command line", () => {
  it("has a unit, of two or of ten", () => {
    expect(parseBytes("--vram", "24GiB")).toBe(24 * 2 ** 30);
    expect(parseBytes("--ram", "1.5 TB")).toBe(1.5e12);
  });

  it.each(["24", "GiB", "0GiB", "-1GiB", "NaNGiB", "1e400GiB", "24Gi"])("is refused as %s", (text) => {
    expect(() => parseBytes("--vram", text)).toThrow(
      /--vram: must be a size above 0 with its unit, got .*; for example/,
    );
  });
});

describe("the hardware file", () => {
  const row = { name: "mine", memory_gib: 12, memory_gb_per_s: 360, peak_tflops: { bf16: 51 } };

  it("gains a row, and keeps one row of a name", async () => {
    const path = scratch();
    await saveRow(row, path);
    await saveRow({ ...row, name: "other" }, path);
    await saveRow({ ...row, memory_gib: 16 }, path);
    expect((await userRows(path)).map(({ name, memory_gib: gib }) => [name, gib])).toEqual([
      ["other", 12],
      ["mine", 16],
    ]);
    expect((await userDevice("mine", path)).memoryBytes).toBe(16 * 2 ** 30);
    expect((await userDevice("h100", path)).name).toBe("h100");
  });

  it("is left alone when what stands in it is malformed", async () => {
    const path = scratch();
    writeFileSync(path, "[{}]");
    await expect(saveRow(row, path)).rejects.toThrow(/hardware\.json\[0\]\.name: must be text/);
    expect(readFileSync(path, "utf8")).toBe("[{}]");
  });
});

describe("a measured machine", () => {
  const roof = [
    { name: "memory read", value: 22.2 },
    { name: "f32 multiply-add", value: 292 },
    { name: "bf16 dot", value: 128 },
    { name: "int8 dot", value: 982 },
    { name: "bf16 tiles", value: 4699 },
    { name: "f32 [512, 512] x [512, 512]", value: 167 },
    { name: "bf16 [2048, 256] x [256, 1024]", value: 1081 },
  ];

  it("has the best of its bf16 units as peak and the best product as share of it", () => {
    const row = measuredRow("here", roof);
    expect(row.memory_gb_per_s).toBe(22.2);
    expect(row.peak_tflops).toEqual({ fp32: 0.292, bf16: 4.699, int8: 0.982 });
    expect(row.matmul_share).toBeCloseTo(1081 / 4699, 12);
    expect(row.confidence).toEqual({ default: "measured" });
  });

  it("computes bf16 in float32 where that is faster, and leaves out what it cannot do", () => {
    const plain = roof.filter(({ name }) => !/int8|tiles/.test(name));
    expect(measuredRow("here", plain).peak_tflops).toEqual({ fp32: 0.292, bf16: 0.292 });
  });
});
