import { describe, expect, test } from "vitest";
import { resolveConfig } from "../config/index.ts";
import { blueprint, countParameters, countStorage, type Blueprint } from "./index.ts";

const describeModel = (preset: string, overrides = {}): Blueprint => blueprint(resolveConfig(preset, overrides).model);

describe("the modules of the released models", () => {
  test.each([
    [
      "deepseek-llm-7b",
      6_910_365_696,
      {
        embedding: 419_430_400,
        head: 419_430_400,
        attention: 2_013_265_920,
        dense_ffn: 4_057_989_120,
        norms: 249_856,
      },
    ],
    [
      "deepseek-llm-67b",
      67_425_001_472,
      {
        embedding: 838_860_800,
        head: 838_860_800,
        attention: 14_344_519_680,
        dense_ffn: 51_401_195_520,
        norms: 1_564_672,
      },
    ],
    [
      "deepseek-moe-16b",
      16_375_728_128,
      {
        embedding: 209_715_200,
        head: 209_715_200,
        attention: 469_762_048,
        dense_ffn: 67_239_936,
        routed_experts: 14_948_499_456,
        shared_experts: 467_140_608,
        gates: 3_538_944,
        norms: 116_736,
      },
    ],
    [
      "deepseek-v2-lite",
      15_706_484_224,
      {
        embedding: 209_715_200,
        head: 209_715_200,
        attention: 371_589_120,
        dense_ffn: 67_239_936,
        routed_experts: 14_394_851_328,
        shared_experts: 449_839_104,
        gates: 3_407_872,
        norms: 126_464,
      },
    ],
    [
      "deepseek-v2",
      235_741_434_880,
      {
        embedding: 524_288_000,
        head: 524_288_000,
        attention: 8_953_528_320,
        dense_ffn: 188_743_680,
        routed_experts: 222_717_542_400,
        shared_experts: 2_783_969_280,
        gates: 48_332_800,
        norms: 742_400,
      },
    ],
    [
      "deepseek-v3",
      671_026_419_200,
      {
        embedding: 926_679_040,
        head: 926_679_040,
        attention: 11_413_422_080,
        dense_ffn: 1_189_085_184,
        routed_experts: 653_908_770_816,
        shared_experts: 2_554_331_136,
        gates: 106_445_312,
        norms: 1_006_592,
      },
    ],
    [
      "deepseek-v3.2",
      671_877_944_064,
      {
        embedding: 926_679_040,
        head: 926_679_040,
        attention: 11_413_422_080,
        indexers: 851_524_864,
        dense_ffn: 1_189_085_184,
        routed_experts: 653_908_770_816,
        shared_experts: 2_554_331_136,
        gates: 106_445_312,
        norms: 1_006_592,
      },
    ],
    [
      "deepseek-v4-flash",
      284_332_240_471,
      {
        embedding: 529_530_880,
        head: 529_530_880,
        attention: 4_599_057_088,
        indexers: 225_730_176,
        compressors: 261_464_576,
        routed_experts: 277_025_390_592,
        shared_experts: 1_082_130_432,
        gates: 45_099_008,
        hyper_connections: 33_884_439,
        norms: 422_400,
      },
    ],
    [
      "deepseek-v4-pro",
      1_572_997_201_763,
      {
        embedding: 926_679_040,
        head: 926_679_040,
        attention: 18_293_464_704,
        indexers: 501_384_960,
        compressors: 670_128_640,
        routed_experts: 1_547_396_186_112,
        shared_experts: 4_029_677_568,
        gates: 167_925_504,
        hyper_connections: 84_069_603,
        norms: 1_006_592,
      },
    ],
  ])("%s", (preset, total, modules) => {
    const counts = countParameters(describeModel(preset));
    const totals = Object.entries(counts.byModule).map(([name, module]) => [name, module.total]);
    expect(Object.fromEntries(totals)).toEqual(modules);
    expect(counts.total).toBe(total);
  });

  test("vision tower and projector", () => {
    for (const preset of ["deepseek-vl2-tiny", "deepseek-vl2-small", "deepseek-vl2-base"]) {
      const { byModule } = countParameters(describeModel(preset));
      expect(byModule.vision?.total).toBe(428_225_600);
    }
    expect(countParameters(describeModel("deepseek-vl2-small")).byModule.projector?.total).toBe(13_639_680);
  });
});

describe("the totals of the released models", () => {
  test.each([
    ["deepseek-v2.5", 235_741_434_880],
    ["deepseek-coder-v2", 235_741_434_880],
    ["deepseek-r1", 671_026_419_200],
    ["deepseek-v3.1", 671_026_419_200],
    ["deepseek-vl2-tiny", 3_370_501_440],
    ["deepseek-vl2-small", 16_148_349_504],
    ["deepseek-vl2-base", 27_480_134_248],
    ["llama2-7b", 6_738_415_616],
    ["bert-base", 109_482_240],
  ])("%s", (preset, total) => {
    expect(countParameters(describeModel(preset)).total).toBe(total);
  });

  test("BERT at a width of 1024", () => {
    const wide = describeModel("bert-base", { hidden_size: 1024, intermediate_size: 4096, num_attention_heads: 16 });
    expect(countParameters(wide).total).toBe(183_987_200);
  });
});

describe("what one token activates", () => {
  test.each([
    ["deepseek-moe-16b", 2_828_650_496, 2_618_935_296],
    ["deepseek-v2-lite", 2_661_150_208, 2_451_435_008],
    ["deepseek-v2", 21_375_800_320, 20_851_512_320],
    ["deepseek-v3", 37_552_297_472, 36_625_618_432],
    ["deepseek-v3.2", 38_403_822_336, 37_477_143_296],
    ["deepseek-v4-flash", 13_799_632_471, 13_270_101_591],
    ["deepseek-v4-pro", 49_779_081_059, 48_852_402_019],
  ])("%s", (preset, activated, withoutEmbedding) => {
    const counts = countParameters(describeModel(preset));
    expect(counts.activated).toBe(activated);
    expect(counts.activated - counts.byModule.embedding!.activated).toBe(withoutEmbedding);
  });
});

describe("total, trainable, buffers and MTP", () => {
  test.each([
    ["deepseek-v3", 671_026_404_352, 14_848, 11_610_068_224],
    ["deepseek-v3.2", 671_877_929_216, 14_848, 11_624_027_648],
    ["deepseek-v4-flash", 284_332_230_231, 10_240, 6_610_048_891],
    ["deepseek-v4-pro", 1_572_997_179_491, 22_272, 25_840_145_979],
  ])("%s", (preset, trainable, buffers, mtp) => {
    const counts = countParameters(describeModel(preset));
    expect(counts).toMatchObject({ trainable, buffers, mtp, total: trainable + buffers });
  });
});

describe("released checkpoints", () => {
  test.each([
    [
      "deepseek-v3",
      {
        elements: 684_531_386_000,
        bytes: 688_574_839_360,
        tensors: 91_991,
        duplicates: 1_853_358_080,
        scales: 41_540_496,
        tables: 0,
        byDtype: { BF16: 3_918_786_560, F8_E4M3: 680_571_043_840, F32: 41_555_600 },
      },
    ],
    [
      "deepseek-v3.2",
      {
        elements: 685_396_921_376,
        bytes: 689_469_018_240,
        duplicates: 1_853_358_080,
        byDtype: { BF16: 3_947_229_184, F8_E4M3: 681_408_069_632, F32: 41_622_560 },
      },
    ],
    [
      "deepseek-v4-flash",
      {
        elements: 158_069_433_298,
        bytes: 159_609_485_896,
        tensors: 69_187,
        duplicates: 0,
        scales: 8_858_737_664,
        tables: 2_327_040,
        byDtype: {
          I8: 141_733_920_768,
          F8_E8M0: 8_858_737_664,
          F8_E4M3: 6_023_020_544,
          BF16: 1_415_259_264,
          F32: 36_168_018,
          I64: 2_327_040,
        },
      },
    ],
    [
      "deepseek-v4-pro",
      {
        elements: 861_608_274_846,
        bytes: 864_704_792_696,
        tensors: 145_116,
        duplicates: 0,
        scales: 49_150_268_416,
        tables: 2_327_040,
      },
    ],
    ["deepseek-v2-lite", { bytes: 31_412_968_448, byDtype: { BF16: 15_706_484_224 } }],
  ])("%s", (preset, stored) => {
    expect(countStorage(describeModel(preset))).toMatchObject(stored);
  });

  test("total, MTP, duplicates, scales and tables add up to the stored elements, packed pairs counted twice", () => {
    for (const preset of [
      "deepseek-v3",
      "deepseek-v3.2",
      "deepseek-v4-flash",
      "deepseek-v4-pro",
      "deepseek-vl2-base",
    ]) {
      const bp = describeModel(preset);
      const { total, mtp } = countParameters(bp);
      const { elements, duplicates, scales, tables, byDtype } = countStorage(bp);
      expect(total + mtp + duplicates + scales + tables).toBe(elements + (byDtype["I8"] ?? 0));
    }
  });

  test("experts in fp8 take almost twice the bytes of fp4", () => {
    const bytes = countStorage(describeModel("deepseek-v4-flash", { expert_dtype: null })).bytes;
    expect(Math.round(bytes / 1e8)).toBe(2925);
  });

  test("partial blocks have a scale of their own", () => {
    const rows = describeModel("deepseek-v3").parameters.find(({ name }) => name === "layers.0.attn.wkv_a")!;
    expect(rows.shape).toEqual([576, 7168]);
    const { bytesOf } = countStorage(describeModel("deepseek-v3"));
    expect(bytesOf.get(rows.name)).toBe(576 * 7168 + 5 * 56 * 4);
  });
});

describe("numbers too large to be exact are refused", () => {
  const message = (overrides: object): string => {
    try {
      const bp = describeModel("deepseek-v3", overrides);
      countParameters(bp);
    } catch (error) {
      expect((error as Error).name).toBe("ConfigError");
      return (error as Error).message;
    }
    return "no error";
  };

  test("a matrix, a sum and a number of layers", () => {
    expect(message({ vocab_size: 2 ** 52, dim: 4096 })).toMatchInlineSnapshot(
      `"shape [4503599627370496, 4096]: must stay below 2^53, up to which every count is exact, got 18446744073709552000; choose smaller sizes"`,
    );
    expect(message({ vocab_size: 2 ** 39, dim: 2 ** 13 })).toMatchInlineSnapshot(
      `"count: must stay below 2^53, up to which every count is exact, got 9007963548779008; choose smaller sizes"`,
    );
    expect(message({ n_layers: 1e9 })).toMatchInlineSnapshot(
      `"n_layers: must be a whole number of at least 1 and of at most 10000, got 1000000000; the default is 27"`,
    );
  });

  test("counts near the limit are still exact", () => {
    const { byModule } = countParameters(describeModel("deepseek-v3", { n_routed_experts: 2 ** 20 }));
    const expert = 44_040_192n;
    expect(BigInt(byModule.routed_experts!.total)).toBe(58n * 2n ** 20n * expert);
    expect(BigInt(byModule.routed_experts!.activated)).toBe(58n * 8n * expert);
  });
});
