import { describe, expect, test } from "vitest";
import { resolveConfig } from "../config/index.ts";
import { blueprint, countLayer, countParameters } from "./index.ts";

const total = (spec: string): number => countLayer(spec).total;
const onModel = (preset: string, spec: string): number =>
  countLayer(spec, blueprint(resolveConfig(preset).model)).total;

describe("basic layers", () => {
  test("dense and convolution, with a bias unless it is left out", () => {
    expect(total("dense:in=768,out=3072")).toBe(2_362_368);
    expect(total("dense:in=768,out=3072,bias=false")).toBe(2_359_296);
    expect(total("conv:in=256,out=512")).toBe(1_180_160);
    expect(total("conv:height=14,width=14,in=3,out=1152")).toBe(678_528);
  });

  test("one head, a full layer and the sum of both that articles give for a layer", () => {
    expect(total("attention:dim=512,heads=1,head_dim=64")).toBe(131_072);
    expect(total("attention:dim=512,heads=8")).toBe(1_048_576);
    expect(total("attention:dim=512,heads=8,bias")).toBe(1_048_576 + 2048);
    const [query, key, value] = countLayer("attention:dim=512,heads=1,head_dim=64").terms;
    const output = countLayer("attention:dim=512,heads=8").terms.at(-1)!;
    expect(query!.elements + key!.elements + value!.elements + output.elements).toBe(360_448);
  });

  test("grouped queries save keys and values", () => {
    expect(total("attention:dim=8192,heads=64,kv_heads=8")).toBe(2 * 8192 * 8192 + 2 * 8192 * 1024);
  });

  test("latent attention of V3 and V2-Lite, norms included", () => {
    expect(total("mla:dim=7168,heads=128,q_lora_rank=1536")).toBe(187_105_280 + 2048);
    expect(total("mla:dim=2048,heads=16") * 27).toBe(371_589_120 + 27 * 512);
  });

  test("SwiGLU and a mixture, of which a token uses a part", () => {
    expect(total("swiglu:dim=7168,hidden=18432")).toBe(396_361_728);
    const mixture = countLayer("moe:dim=7168,hidden=2048,experts=256,activated=8,shared=1,bias");
    expect(mixture.total).toBe(257 * 44_040_192 + 1_835_264);
    expect(mixture.activated).toBe(9 * 44_040_192 + 1_835_264);
  });

  test("a tied embedding counts once, learned positions count and rotated ones do not", () => {
    expect(total("embedding:vocab=129280,dim=7168")).toBe(2 * 926_679_040);
    expect(total("embedding:vocab=129280,dim=7168,tied")).toBe(926_679_040);
    expect(total("embedding:vocab=129280,dim=7168,tied,positions=4096") - 926_679_040).toBe(29_360_128);
  });

  test("layers that share their weights count once", () => {
    const layer = 7_087_872;
    expect(total("encoder:dim=768,heads=12,hidden=3072,layers=12")).toBe(12 * layer);
    expect(total("encoder:dim=768,heads=12,hidden=3072,layers=12,shared")).toBe(layer);
  });

  test("a mask makes a matrix smaller only in a format that leaves zeros out", () => {
    expect(countLayer("mask:in=4096,out=4096,density=0.5").mask).toEqual({
      effective: 8_388_608,
      stored: 16_777_216,
      indexBytes: 0,
    });
    expect(countLayer("mask:in=4096,out=4096,density=0.25,format=csr").mask).toEqual({
      effective: 4_194_304,
      stored: 4_194_304,
      indexBytes: 4_194_304 * 4 + 4097 * 8,
    });
    expect(countLayer("mask:in=4096,out=4096,density=0.5,format=2:4").mask).toEqual({
      effective: 8_388_608,
      stored: 8_388_608,
      indexBytes: 2_097_152,
    });
  });

  test("the eyes of VL2 by formula are those of its blueprint", () => {
    const { byModule } = countParameters(blueprint(resolveConfig("deepseek-vl2-tiny").model));
    expect(total("vit:width=1152,layers=27,hidden=4304,patch=14,image=384,pooling")).toBe(byModule.vision!.total);
    expect(total("projector:in=4608,dim=1280")).toBe(byModule.projector!.total);
  });
});

describe("additions to a model", () => {
  test("LoRA on the attention of V3 and V2-Lite, and on LLM 7B", () => {
    expect(onModel("deepseek-v3", "lora:rank=16,on=attention")).toBe(97_006_592);
    expect(onModel("deepseek-v2-lite", "lora:rank=16")).toBe(7_105_536);
    expect(onModel("deepseek-llm-7b", "lora:rank=16,on=q_proj+v_proj")).toBe(7_864_320);
    expect(onModel("deepseek-llm-7b", "lora:rank=16,on=attention+dense_ffn")).toBe(37_478_400);
  });

  test("checkpoint names and blueprint names mean the same matrices", () => {
    const byBlueprint = onModel("deepseek-v3", "lora:rank=8,on=wq_a+wkv_b");
    expect(onModel("deepseek-v3", "lora:rank=8,on=q_a_proj+kv_b_proj")).toBe(byBlueprint);
  });

  test("each expert of a stack carries its own", () => {
    const count = countLayer("lora:rank=4,on=routed_experts", blueprint(resolveConfig("tiny").model));
    expect(count.modules).toBe(3 * 8);
    expect(count.total).toBe(24 * 4 * (32 + 16));
  });

  test("DoRA adds a length for each output", () => {
    const lora = onModel("deepseek-llm-7b", "lora:rank=16,on=attention");
    expect(onModel("deepseek-llm-7b", "dora:rank=16,on=attention") - lora).toBe(30 * 4 * 4096);
    expect(total("dora:in=100,out=50,rank=2")).toBe(2 * 150 + 50);
  });

  test("adapters of width 64 in every layer of V3, with biases", () => {
    expect(onModel("deepseek-v3", "adapter:bottleneck=64")).toBe(112_817_792);
    expect(onModel("deepseek-v3", "adapter:bottleneck=64,bias=false")).toBe(61 * 2 * 2 * 7168 * 64);
  });

  test("the projection that articles target exists in no DeepSeek model", () => {
    expect(() => onModel("deepseek-v3", "lora:rank=16,on=query_key_value")).toThrow(
      'on: must match a matrix of the model, got "query_key_value"',
    );
  });
});

describe("a layer that cannot be counted is refused", () => {
  test.each([
    ["dens:in=1,out=2", '--layer: must be a known layer, got "dens"; did you mean dense?'],
    ["dense:in=1", '--layer dense out: must be a whole number of at least 1, got "nothing"; dense takes in, out, bias'],
    ["dense:in=-1,out=2", '--layer dense in: must be a whole number of at least 1, got "-1"'],
    ["dense:in=NaN,out=2", '--layer dense in: must be a whole number of at least 1, got "NaN"'],
    ["dense:in=0,out=2", '--layer dense in: must be a whole number of at least 1, got "0"'],
    [
      "dense:in=1,out=2,bais",
      '--layer dense bais: must be a size of this layer, got "true"; did you mean bias? dense takes in, out, bias',
    ],
    ["dense:in=1,width=2", '--layer dense width: must be a size of this layer, got "2"; dense takes in, out, bias'],
    ["dense:768,3072", '--layer dense: must name its sizes, got "768"; for example dense:in=768,out=3072'],
    ["dense:in=1,in=2,out=2", '--layer dense in: must be given once, got "2"'],
    ["dense:in=1,out=2,bias=maybe", '--layer dense bias: must be true or false, got "maybe"'],
    ["attention:dim=100,heads=3", '--layer attention head_dim: must be a whole number of at least 1, got "nothing"'],
    ["moe:dim=8,hidden=8,experts=4,activated=5", "--layer activated: must be at most experts (4), got 5"],
    ["mask:in=2,out=2,density=1.5", '--layer mask density: must be a number from 0 to 1, got "1.5"'],
    [
      "encoder:dim=8,heads=2,hidden=8,layers=1000000",
      '--layer encoder layers: must be a whole number from 1 to 10000, got "1000000"',
    ],
    [
      "dense:in=4503599627370496,out=4096",
      "shape [4096, 4503599627370496]: must stay below 2^53, up to which every count is exact, got 18446744073709552000; choose smaller sizes",
    ],
  ])("%s", (spec, message) => {
    expect(() => countLayer(spec)).toThrow(message);
  });
});
