import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, describe, expect, it, vi } from "vitest";
import { devicesCommand } from "./plan-devices.ts";
import { planLocalFit } from "./plan-local.ts";
import { serveCommand } from "./plan-serve.ts";
import { blueprint } from "../blueprint/index.ts";
import { resolveConfig } from "../config/index.ts";
import { isPrinted } from "../../test/helpers/printed-number.ts";

function printed(): string[] {
  const lines: string[] = [];
  vi.spyOn(process.stdout, "write").mockImplementation((text) => {
    lines.push(String(text));
    return true;
  });
  return lines;
}

afterEach(() => {
  vi.restoreAllMocks();
  process.exitCode = undefined;
});

const serve = (...options: string[]) =>
  serveCommand()
    .exitOverride()
    .parseAsync(["deepseek-v3", "--gpus", "16xH200", ...options], { from: "user" });

/** Labels with the number that they stand beside, and its unit. */
const SHOWN = [
  ["total", /total +[\d.]+ GB \(([\d.]+) GiB\) +a device/, "GiB"],
  ["total memory", /^64 +[\d.]+ GB \(([\d.]+) GiB\)/m, "GiB"],
  ["kv.cache", /kv\.cache +[\d.]+ GB \(([\d.]+) GiB\)/, "GiB"],
  ["time a token", /^64 +\S+ GB \(\S+ GiB\) +([\d.]+) ms/m, "ms"],
  ["tokens/s", /^64 .* ms +(\d+)/m, "tokens/s"],
  ["tokens/s a device", /^64 .* ms +\d+ +(\d+)/m, "tokens/s"],
  ["decode", /^decode +([\d.]+) ms a token/m, "ms"],
  ["step", /^decode .* a step takes ([\d.]+) ms/m, "ms"],
  ["memory", /^decode .* memory ([\d.]+) ms/m, "ms"],
  ["math", /^decode .* math ([\d.]+) ms/m, "ms"],
  ["links", /^decode .* links ([\d.]+) ms/m, "ms"],
  ["bound", /^bound +([\d.]+) ms a token/m, "ms"],
  ["bound step", /^bound .* a step ([\d.]+) ms/m, "ms"],
  ["bound memory", /^bound .* memory ([\d.]+) ms/m, "ms"],
  ["bound math", /^bound .* math ([\d.]+) ms/m, "ms"],
  ["bound links", /^bound .* links ([\d.]+) ms/m, "ms"],
  ["prefill", /^prefill +([\d.]+) ms/m, "ms"],
  ["first token", /^prefill +([\d.]+) ms to the first token/m, "ms"],
  ["prompt tokens/s a device", /([\d.]+) prompt tokens\/s a device/, "tokens/s"],
  ["$ a million tokens", /^cost +([\d.]+) \$ a million tokens/m, "$"],
  ["J a token", /([\d.]+) J a token/, "J"],
] as const;

describe("plan serve", () => {
  it("explains what it prints under its own words, the bound too", async () => {
    const explained = async (why: string): Promise<{ name: string; value: number }> => {
      const lines = printed();
      await serve("--batch", "64", "--json", "--why", why);
      return JSON.parse(lines.join("")) as { name: string; value: number };
    };
    const lines = printed();
    await serve("--batch", "64");
    const text = lines.join("");
    for (const [label, pattern, unit] of SHOWN) {
      const { name, value } = await explained(label);
      const [, number] = pattern.exec(text)!;
      expect(isPrinted(number!, unit, value), `${label}: ${number} ${unit}, ${name} = ${value}`).toBe(true);
    }
    const [decode, bound] = [await explained("decode"), await explained("bound")];
    expect([decode.name, bound.name]).toEqual(["decode.tpot", "decode.tpot"]);
    expect(bound.value).toBeLessThan(decode.value);
    expect((await explained("bound math")).value).toBeLessThan((await explained("math")).value);
    expect(JSON.stringify(await explained("math"))).toContain('"moe.flops.experts"');
  });

  it("takes settings of a preset, and says which of them it does not use", async () => {
    const lines = printed();
    const warned = vi.spyOn(process.stderr, "write").mockReturnValue(true);
    await serve("--batch", "64", "--set", "n_layers=30", "--set", "lr=1e-4", "--json");
    const { chosen } = JSON.parse(lines.join("")) as { chosen: { kv_token_bytes: number } };
    expect(chosen.kv_token_bytes).toBe(30 * 576 * 2);
    expect(warned.mock.calls.join("")).toBe(
      "warning: --set training.lr changes nothing: fathom plan serve does not use it\n",
    );
  });

  it("takes model, devices, margin and cache of a run file, and options before them", async () => {
    const folder = mkdtempSync(join(tmpdir(), "fathom-serve-"));
    try {
      const path = join(folder, "served.yaml");
      const text =
        "preset: deepseek-v3\nparallel: {dp: 16}\nhardware: {device: h200, devices: 16, memory_margin: 0.8}\n";
      writeFileSync(path, `${text}quantization: {kv_cache_dtype: fp8}\n`);
      const read = async (...words: string[]) => {
        const lines = printed();
        await serveCommand()
          .exitOverride()
          .parseAsync([path, "--batch", "64", "--json", ...words], { from: "user" });
        return JSON.parse(lines.join("")) as { margin: number; chosen: { kv_token_bytes: number } };
      };
      const whole = { model: "served", device: "h200", devices: 16, margin: 0.8 };
      expect(await read()).toMatchObject({ ...whole, chosen: { kv_token_bytes: 70_272 / 2 } });
      expect(await read("--kv", "bf16", "--margin", "0.9")).toMatchObject({
        margin: 0.9,
        chosen: { kv_token_bytes: 70_272 },
      });
    } finally {
      rmSync(folder, { recursive: true });
    }
  });

  it("needs devices", async () => {
    await expect(serveCommand().parseAsync(["deepseek-v3"], { from: "user" })).rejects.toThrow(/--gpus: must be given/);
  });

  it("prints one JSON document whose memory sums to its total", async () => {
    const lines = printed();
    await serve("--slo", "ttft=5s,tpot=50ms", "--json");
    expect(lines).toHaveLength(1);
    const { chosen, curve, bound } = JSON.parse(lines[0]!);
    const sum = chosen.memory.reduce((total: number, { bytes }: { bytes: number }) => total + bytes, 0);
    expect(sum).toBe(chosen.total_bytes);
    expect(chosen.keeps_slo).toBe(true);
    expect(bound.decode.tpot_seconds).toBeLessThan(chosen.decode.tpot_seconds);
    expect(curve.at(-1).fits).toBe(false);
    expect(process.exitCode).toBeUndefined();
  });

  it("ends with code 3 when no batch keeps the promise", async () => {
    const lines = printed();
    await serve("--slo", "tpot=1ms");
    expect(process.exitCode).toBe(3);
    expect(lines.join("")).toMatch(
      /no batch fits and keeps the promise: batch \d+ tpot fails: [\d.]+ ms; take more devices/,
    );
  });

  it("speaks of a promise only where one was given, and refuses times without unit", async () => {
    const lines = printed();
    await serve("--batch", "16", "--drafts", "1");
    const text = lines.join("");
    expect(text).not.toMatch(/keeps|promise/);
    expect(text).toMatch(/decode +[\d.]+ ms a token; a step takes/);
    const bound = /bound +([\d.]+) ms a token with every peak reached; a step ([\d.]+) ms: memory ([\d.]+) ms/.exec(
      text,
    )!;
    expect(Number(bound[2])).toBeGreaterThanOrEqual(Number(bound[3]));
    expect(text).toMatch(/\$ a million tokens written at 2\.00 \$ a device-hour, an assumed price/);
    await expect(serve("--slo", "tpot=50")).rejects.toThrow(/--slo: .*each time with its unit/);
  });

  it("prints where a number comes from, and lists the numbers for another name", async () => {
    const lines = printed();
    await serve("--batch", "16", "--why", "kv.cache");
    expect(lines.join("")).toContain("= kv.token * sequences * context");
    await expect(serve("--why", "kv.cash")).rejects.toThrow(
      /--why: must be a number of the plan, got "kv\.cash"; one of/,
    );
  });

  it("explains the cost of a million tokens", async () => {
    const lines = printed();
    await serve("--batch", "16", "--price", "3", "--why", "cost per million");
    const text = lines.join("");
    expect(text).toMatch(/^bill\.cost_per_million = [\d.]+ \$/);
    expect(text).toContain("price = 3 $");
    expect(text).toContain("decode.all = ");
  });

  it("names the nearest device, and refuses unknown formats", async () => {
    const parse = (...options: string[]) =>
      serveCommand()
        .exitOverride()
        .parseAsync(["deepseek-v3", ...options], { from: "user" });
    await expect(parse("--gpus", "8xH220")).rejects.toThrow(/did you mean h200|did you mean h20/);
    await expect(serve("--kv", "fp7")).rejects.toThrow(/--kv: must be one of bf16, fp8, int8, got "fp7"/);
    await expect(serve("--weights", "fp7")).rejects.toThrow(/weights: must be one of .*did you mean fp8/);
  });
});

describe("plan fit on one machine", () => {
  const v3 = blueprint(resolveConfig("deepseek-v3").model);

  it("explains the bound of a GGUF file, for one mix", async () => {
    const lines = printed();
    const machine = { vram: "24GiB", ram: "256GiB", why: "bound.rate" };
    await planLocalFit("deepseek-v3", v3, { ...machine, quant: "q2_k" });
    expect(lines.join("")).toMatch(/^bound\.rate = [\d.]+ tokens per second[^]*ram\.q2_K\.chosen = \d+ elements/);
    await expect(planLocalFit("deepseek-v3", v3, machine)).rejects.toThrow(/--why: must stand with --quant/);
  });

  it("prints every mix as JSON with the file's bytes", async () => {
    const lines = printed();
    await planLocalFit("deepseek-v3", v3, { vram: "24GiB", ram: "256GiB", cpu: "epyc", json: true });
    const { mixes, machine } = JSON.parse(lines[0]!);
    expect(machine.ram_bytes_per_sec).toBe(614.4e9);
    expect(mixes.find(({ mix }: { mix: string }) => mix === "Q2_K")).toMatchObject({ fits: true, moe_layers: 58 });
    expect(process.exitCode).toBeUndefined();
  });

  it("ends with code 3 when nothing fits", async () => {
    printed();
    await planLocalFit("deepseek-v3", v3, { vram: "8GiB", ram: "16GiB" });
    expect(process.exitCode).toBe(3);
  });
});

describe("plan devices", () => {
  it("prints the table with a question mark at unverified figures", async () => {
    const lines = printed();
    await devicesCommand().parseAsync([], { from: "user" });
    expect(lines.join("")).toMatch(/h100 +gpu +80 +3\.35 +989 +1979 +1979 +– +450 +50 +700\?/);
    expect(lines.join("")).toMatch(/rtx-4090 +gpu +24\? +1\.008\? +165\?/);
  });
});
