import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, test, vi } from "vitest";
import { paramsCommand } from "./params.ts";

/** What `fathom params` prints on stdout. */
async function params(...words: string[]): Promise<string> {
  const out = vi.spyOn(process.stdout, "write").mockReturnValue(true);
  try {
    await paramsCommand()
      .exitOverride()
      .configureOutput({ writeErr: () => undefined })
      .parseAsync(words, { from: "user" });
    return out.mock.calls.map(([text]) => String(text)).join("");
  } finally {
    out.mockRestore();
  }
}

const json = async (...words: string[]): Promise<unknown> => JSON.parse(await params(...words, "--json"));

describe("fathom params", () => {
  test("one JSON document with every count of V3", async () => {
    expect(await json("deepseek-v3")).toMatchObject({
      name: "deepseek-v3",
      total: 671_026_419_200,
      activated: 37_552_297_472,
      activated_without_embedding: 36_625_618_432,
      trainable: 671_026_404_352,
      buffers: 14_848,
      mtp: 11_610_068_224,
      duplicates: 1_853_358_080,
      scales: 41_540_496,
      tables: 0,
      stored: {
        elements: 684_531_386_000,
        bytes: 688_574_839_360,
        by_dtype: { BF16: 3_918_786_560, F8_E4M3: 680_571_043_840, F32: 41_555_600 },
      },
    });
  });

  test("the modules by name, with total, activated and share", async () => {
    const { modules } = (await json("deepseek-v4-flash")) as { modules: { name: string; share: number }[] };
    expect(modules.map(({ name }) => name)).toEqual([
      "embedding",
      "head",
      "attention",
      "indexers",
      "compressors",
      "routed_experts",
      "shared_experts",
      "gates",
      "hyper_connections",
      "norms",
    ]);
    expect(modules[5]).toMatchObject({ total: 277_025_390_592, activated: 6_492_782_592 });
    expect(modules.reduce((sum, { share }) => sum + share, 0)).toBeCloseTo(1, 12);
  });

  test("a table for people", async () => {
    expect(await params("deepseek-v3")).toMatchInlineSnapshot(`
      "deepseek-v3: 671,026,419,200 parameters, 37,552,297,472 activated per token (36,625,618,432 without the embedding)

      module               parameters      share       activated       share        trainable  buffers      stored
      embedding           926,679,040   0.1381 %     926,679,040     2.468 %      926,679,040        0    1.73 GiB
      head                926,679,040   0.1381 %     926,679,040     2.468 %      926,679,040        0    1.73 GiB
      attention        11,413,422,080    1.701 %  11,413,422,080     30.39 %   11,413,422,080        0   10.63 GiB
      dense_ffn         1,189,085,184   0.1772 %   1,189,085,184     3.166 %    1,189,085,184        0    1.11 GiB
      routed_experts  653,908,770,816    97.45 %  20,434,649,088     54.42 %  653,908,770,816        0  609.15 GiB
      shared_experts    2,554,331,136   0.3807 %   2,554,331,136     6.802 %    2,554,331,136        0    2.38 GiB
      gates               106,445,312  0.01586 %     106,445,312    0.2835 %      106,430,464   14,848   203.1 MiB
      norms                 1,006,592  0.00015 %       1,006,592  0.002681 %        1,006,592        0     1.9 MiB
      total           671,026,419,200      100 %  37,552,297,472       100 %  671,026,404,352   14,848  626.92 GiB

      beside them
      trainable        671,026,404,352  reached by gradient
      buffers                   14,848  selection biases of the routers, in the total
      mtp               11,610,068,224  of the MTP layers alone, not in the total
      duplicates         1,853,358,080  copies of embedding and head in the file
      scales                41,540,496  of quantised weights
      stored elements  684,531,386,000  BF16 3,918,786,560, F8_E4M3 680,571,043,840, F32 41,555,600
      stored bytes     688,574,839,360  688.57 GB, 641.29 GiB, 91,991 tensors
      "
    `);
  });

  test("a table in Markdown with the parts of each module", async () => {
    const lines = (await params("deepseek-v2-lite", "--depth", "2", "--format", "md")).split("\n");
    expect(lines.slice(2, 12)).toMatchInlineSnapshot(`
      [
        "| module | parameters | share | activated | share | trainable | buffers | stored |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
        "| embedding | 209,715,200 | 1.335 % | 209,715,200 | 7.881 % | 209,715,200 | 0 | 400.0 MiB |",
        "| · embed | 209,715,200 | 1.335 % | 209,715,200 | 7.881 % | 209,715,200 | 0 | 400.0 MiB |",
        "| head | 209,715,200 | 1.335 % | 209,715,200 | 7.881 % | 209,715,200 | 0 | 400.0 MiB |",
        "| · head | 209,715,200 | 1.335 % | 209,715,200 | 7.881 % | 209,715,200 | 0 | 400.0 MiB |",
        "| attention | 371,589,120 | 2.366 % | 371,589,120 | 13.96 % | 371,589,120 | 0 | 708.8 MiB |",
        "| · layers.*.attn.wq | 169,869,312 | 1.082 % | 169,869,312 | 6.383 % | 169,869,312 | 0 | 324.0 MiB |",
        "| · layers.*.attn.wkv_a | 31,850,496 | 0.2028 % | 31,850,496 | 1.197 % | 31,850,496 | 0 | 60.8 MiB |",
        "| · layers.*.attn.wkv_b | 56,623,104 | 0.3605 % | 56,623,104 | 2.128 % | 56,623,104 | 0 | 108.0 MiB |",
      ]
    `);
  });

  test("settings of a preset can be changed", async () => {
    const wide = ["--set", "hidden_size=1024", "--set", "intermediate_size=4096", "--set", "num_attention_heads=16"];
    expect(await json("bert-base", ...wide)).toMatchObject({ total: 183_987_200 });
  });

  test("a setting that no count reads is named in a warning", async () => {
    const warnings = vi.spyOn(process.stderr, "write").mockReturnValue(true);
    expect(await json("tiny", "--set", "lr=0.1")).toEqual(await json("tiny"));
    expect(warnings.mock.calls.map(([text]) => text)).toEqual([
      "warning: training.lr = 0.1 changes nothing: fathom params does not use it\n",
    ]);
    warnings.mockRestore();
  });

  test("one layer, and an addition to a model", async () => {
    expect(await params("--layer", "dense:in=768,out=3072")).toMatchInlineSnapshot(`
      "tensor               shape   elements
      weight         [3072, 768]  2,359,296
      weight.bias         [3072]      3,072
      dense: 2,362,368 parameters
      "
    `);
    expect(await params("deepseek-v3", "--layer", "lora:rank=16,on=attention")).toMatchInlineSnapshot(`
      "lora on deepseek-v3: 97,006,592 trainable parameters in 305 places, 0.01446 % of the model
      "
    `);
    expect(await json("deepseek-v3", "--layer", "adapter:bottleneck=64")).toMatchObject({ total: 112_817_792 });
    expect(await params("--layer", "mask:in=4,out=4,density=0.5")).toMatchInlineSnapshot(`
      "mask: 8 effective, 16 stored, 0 bytes of index
      "
    `);
  });

  test("what articles claim beside the truth", async () => {
    expect(await params("deepseek-v3", "--compare", "article")).toMatchInlineSnapshot(`
      "module                         claimed     share      deepseek-v3      share  truth
      embedding                         12 B    1.79 %      926,679,040   0.1381 %  vocab_size × dim; positions have no parameters
      attention                        180 B   26.83 %   11,413,422,080    1.701 %  small in weights, large in what a token activates
      FFN                              320 B   47.69 %  657,652,187,136    98.01 %  almost the whole model: dense layers, routed and shared experts
      LayerNorm                          5 B    0.75 %        1,006,592  0.00015 %  RMSNorm has one weight for each channel
      output head                        8 B    1.19 %      926,679,040   0.1381 %  the shape of the embedding, so it cannot differ from it
      others (residual connections)    146 B   21.76 %      106,445,312  0.01586 %  additions have no parameters; what is left are the routers
      total                            671 B  100.00 %  671,026,419,200      100 %
      "
    `);
  });
});

describe("a run file", () => {
  test("is counted as its preset with its model section and --set over it", async () => {
    const folder = await mkdtemp(join(tmpdir(), "fathom-params-"));
    const path = join(folder, "child.yaml");
    await writeFile(path, "extends: nano\nmodel: {n_layers: 5}\n");
    const total = async (...words: string[]) =>
      (JSON.parse(await params(...words, "--json")) as { total: number }).total;
    expect(await total(path)).toBe(await total("nano", "--set", "n_layers=5"));
    expect(await total(path, "--set", "dim=96")).toBe(await total("nano", "--set", "n_layers=5", "--set", "dim=96"));
    await rm(folder, { recursive: true });
  });
});

describe("what cannot be counted is refused", () => {
  test.each([
    [
      ["deepseek-v33"],
      'model: must be a preset, or the path of a config.json, a checkpoint folder or a .gguf file, got "deepseek-v33"; did you mean deepseek-v3?',
    ],
    [[], "model: must be given; for example fathom params deepseek-v3"],
    [
      ["deepseek-v3", "--depth", "4"],
      '--depth: must be a whole number from 1 to 3, got "4"; correct it, or leave it out for its default',
    ],
    [["deepseek-v3", "--set", "dim=-1"], "dim: must be a whole number of at least 1, got -1; the default is 2048"],
    [["deepseek-v3", "--set", "dim=0"], "dim: must be a whole number of at least 1, got 0; the default is 2048"],
    [["deepseek-v3", "--set", "dim=NaN"], 'dim: must be a whole number of at least 1, got "NaN"; the default is 2048'],
    [
      ["deepseek-v3", "--set", "n_layers=1e9"],
      "n_layers: must be a whole number of at least 1 and of at most 10000, got 1000000000; the default is 27",
    ],
    [
      ["deepseek-v3", "--set", "vocab_size=1e15"],
      "shape [1000000000000000, 7168]: must stay below 2^53, up to which every count is exact, got 7168000000000000000; choose smaller sizes",
    ],
    [
      ["deepseek-v2", "--compare", "article"],
      "--compare article: must stand with a model of 671 B parameters, got 235741434880",
    ],
    [["deepseek-v4"], "did you mean deepseek-v4-flash or deepseek-v4-pro?"],
    [["deepseekv3"], "did you mean deepseek-v3?"],
    [["deepseek-v3", "--set", "hidden_sise=1"], "hidden_sise: must be a known parameter; did you mean hidden_size?"],
    [
      ["deepseek-v3", "--layer", "dense:in=1,out=2"],
      '--layer: must be one of lora, dora, adapter where a model is named, got "dense"; leave the model out: dense is counted from its own sizes',
    ],
  ])("%j", async (words, message) => {
    await expect(params(...words)).rejects.toThrow(message);
  });
});
