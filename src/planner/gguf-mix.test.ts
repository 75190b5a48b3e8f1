import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { GGUF_TYPES } from "../formats/index.ts";
import { blueprint } from "../blueprint/index.ts";
import { resolveConfig, type ModelConfig } from "../config/index.ts";
import { ggufMix, mixModel, quantise, type GgufMix } from "./gguf-mix.ts";
import { QUANT_BLOCKS } from "./quant-types.ts";
import { ggufTensors, type GgufTensor } from "./gguf-tensors.ts";

interface DryRun {
  readonly mib: number;
  readonly tensors: Readonly<Record<string, number>>;
}

const GOLDEN = JSON.parse(readFileSync(new URL("../../test/golden/llama_quantize.json", import.meta.url), "utf8")) as {
  models: Record<string, Record<GgufMix, Record<"plain" | "imatrix", DryRun>>>;
};

function sizes(model: ModelConfig, tensors: readonly GgufTensor[], mix: GgufMix, imatrix: boolean): DryRun {
  const counts: Record<string, number> = {};
  let bytes = 0;
  for (const tensor of quantise(tensors, mixModel(model), mix, imatrix)) {
    counts[tensor.type] = (counts[tensor.type] ?? 0) + 1;
    bytes += tensor.bytes;
  }
  return { mib: bytes / 2 ** 20, tensors: counts };
}

/** The tool prints two decimals; a tie may be rounded either way. */
const HALF_A_PRINTED_UNIT = 0.005 + 1e-6;

describe("the mixes of llama.cpp", () => {
  for (const [name, mixes] of Object.entries(GOLDEN.models)) {
    it(`give ${name} the types and the size that llama-quantize --dry-run prints`, () => {
      const { model } = resolveConfig(name);
      const tensors = ggufTensors(blueprint(model));
      for (const [mix, runs] of Object.entries(mixes)) {
        for (const [kind, golden] of Object.entries(runs)) {
          const ours = sizes(model, tensors, mix as GgufMix, kind === "imatrix");
          expect({ mix, tensors: ours.tensors }).toEqual({ mix, tensors: golden.tensors });
          expect(Math.abs(ours.mib - golden.mib), mix).toBeLessThanOrEqual(HALF_A_PRINTED_UNIT);
        }
      }
    });
  }

  it("are found whatever the case, and an unknown one names the nearest", () => {
    expect(ggufMix("q4_k_m")).toBe("Q4_K_M");
    expect(() => ggufMix("Q4_K_X")).toThrowErrorMatchingInlineSnapshot(
      `[ConfigError: quant: must be a mix of llama.cpp, got "Q4_K_X"; did you mean Q4_K_M?]`,
    );
  });
});

it("has the block sizes with which files are read", () => {
  for (const [name, { elements, bytes }] of Object.entries(QUANT_BLOCKS)) {
    const { blockElements, blockBytes } = GGUF_TYPES[name.toUpperCase() as keyof typeof GGUF_TYPES];
    expect([name, elements, bytes]).toEqual([name, blockElements, blockBytes]);
  }
});
