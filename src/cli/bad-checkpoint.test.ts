/** Checkpoints that are not what they seem: no verb reads on, each says which file and which rule. */

import * as fs from "node:fs";
import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";
import { ConversionFolder, modelOf, rawTensors, writeRaw, type RawTensor } from "../../test/helpers/conversion.ts";
import { drawnGguf } from "../../test/helpers/drawn-gguf.ts";
import { drawWeights } from "../../test/helpers/drawn-weights.ts";
import { writeRandomFolder } from "../../test/helpers/random-checkpoint.ts";
import { FathomError } from "../core/errors.ts";
import { writeGguf, type GgufEntry } from "../formats/index.ts";
import { nodeFiles } from "../formats/node.ts";
import { convertCommand } from "./convert.ts";
import { evalCommand } from "./eval.ts";
import { generateCommand } from "./generate.ts";

const at = new ConversionFolder();
const NAME = "model.layers.1.self_attn.o_proj.weight";

beforeAll(async () => {
  await writeRandomFolder(at.path("whole"), modelOf("tiny", { vocabSize: 264, dtype: "f32" }));
  await at.convert(at.path("whole"), "shards", "f32", { maxShardBytes: 100_000 });
  await writeRandomFolder(at.path("other"), modelOf("tiny", { vocabSize: 264, dim: 48, dtype: "f32" }));
  await at.convert(at.path("other"), "other-shards", "f32", { maxShardBytes: 150_000 });
  fs.writeFileSync(at.path("text.txt"), "What is written here is read by every verb. ".repeat(20));
});
afterAll(() => at[Symbol.dispose]());

interface Case {
  /** The sound folder that is damaged. */
  readonly of: "whole" | "shards";
  readonly damage: (folder: string) => void | Promise<void>;
  /** What the message says. */
  readonly says: RegExp;
  /** A format into which a conversion reads the damaged part. */
  readonly into?: string;
}

function edit(file: string, change: (text: string) => string | Uint8Array): void {
  fs.writeFileSync(file, change(fs.readFileSync(file, "utf8")));
}

function editConfig(folder: string, changes: object): void {
  edit(`${folder}/config.json`, (text) => JSON.stringify({ ...(JSON.parse(text) as object), ...changes }));
}

async function editTensors(folder: string, change: (tensors: Map<string, RawTensor>) => void): Promise<void> {
  const tensors = await rawTensors(folder);
  change(tensors);
  await writeRaw(folder, tensors);
}

const shardsOf = (folder: string): string[] => fs.readdirSync(folder).filter((name) => name.startsWith("model-"));

const CASES: Readonly<Record<string, Case>> = {
  "a shard is missing": {
    of: "shards",
    damage: (folder) => fs.rmSync(`${folder}/${shardsOf(folder)[1]!}`),
    says: /model-00002-of-\d+\.safetensors: must/,
  },
  "a shard is that of another model": {
    of: "shards",
    damage: (folder) => {
      const other = at.path("other-shards");
      fs.copyFileSync(`${other}/${shardsOf(other)[0]!}`, `${folder}/${shardsOf(folder)[0]!}`);
    },
    says: /must .*(as the index says|\[264, 32\])/,
  },
  "a matrix has another shape": {
    of: "whole",
    damage: (folder) =>
      editTensors(folder, (tensors) => {
        const tensor = tensors.get(NAME)!;
        tensors.set(NAME, { ...tensor, shape: tensor.shape.toReversed() });
      }),
    says: new RegExp(`${NAME.replaceAll(".", "\\.")}.*\\[32, 16\\], got \\[16, 32\\]`),
  },
  "a matrix is stored in a type that holds no weights": {
    of: "whole",
    damage: (folder) =>
      editTensors(folder, (tensors) => {
        const { shape, bytes } = tensors.get(NAME)!;
        tensors.set(NAME, { dtype: "F64", shape, bytes: new Uint8Array(2 * bytes.length) });
      }),
    says: /o_proj\.weight: must be .*type.*, got "F64"; available: F32/,
  },
  "a file is cut off": {
    of: "whole",
    damage: (folder) => fs.truncateSync(`${folder}/model.safetensors`, 50_000),
    says: /model\.safetensors at byte \d+: must have \d+ bytes, got \d+; the file is cut off/,
  },
  "the index points outside": {
    of: "shards",
    damage: (folder) =>
      edit(`${folder}/model.safetensors.index.json`, (text) => text.replace(/"model-00001-of/, '"../model-00001-of')),
    says: /index\.json at byte \d+: must name a file of the same folder/,
  },
  "config.json contradicts the tensors": {
    of: "whole",
    damage: (folder) => editConfig(folder, { intermediate_size: 96 }),
    says: /gate_proj\.weight.*\[96, 32\], got \[64, 32\]/,
  },
  "the tokenizer has an id beyond the rows": {
    of: "whole",
    damage: (folder) =>
      edit(`${folder}/tokenizer.json`, (text) => {
        const json = JSON.parse(text) as { added_tokens: object[] };
        const beyond = [259, 260, 261, 262, 263, 264].map((id) => ({
          ...json.added_tokens[0]!,
          id,
          content: `<${id}>`,
        }));
        return JSON.stringify({ ...json, added_tokens: [...json.added_tokens, ...beyond] });
      }),
    says: /must .*264/,
    into: ".gguf",
  },
  "config.json is not UTF-8": {
    of: "whole",
    damage: (folder) => edit(`${folder}/config.json`, (text) => Buffer.concat([Buffer.from(text), Buffer.of(0xff)])),
    says: /config\.json: must be UTF-8 text/,
  },
  "tokenizer.json is not UTF-8": {
    of: "whole",
    damage: (folder) =>
      edit(`${folder}/tokenizer.json`, (text) => Buffer.from(text.replace("BPE", "B\u{c9}PE"), "latin1")),
    says: /tokenizer\.json: must be UTF-8 text/,
    into: ".gguf",
  },
  "the architecture is unknown": {
    of: "whole",
    damage: (folder) => editConfig(folder, { model_type: "mamba" }),
    says: /config\.json model_type: must be one of llama, deepseek, deepseek_v2, .*, got "mamba"/,
  },
  "the weights are a pickle": {
    of: "whole",
    damage: (folder) => fs.renameSync(`${folder}/model.safetensors`, `${folder}/pytorch_model.bin`),
    says: /must/,
  },
};

async function refusal(command: ReturnType<typeof generateCommand>, ...words: string[]): Promise<string> {
  const print = vi.spyOn(process.stdout, "write").mockReturnValue(true);
  const error: unknown = await command.parseAsync(words, { from: "user" }).then(
    () => undefined,
    (reason: unknown) => reason,
  );
  print.mockRestore();
  expect(error).toBeInstanceOf(FathomError);
  return (error as FathomError).message;
}

describe.each(Object.entries(CASES))("where %s", (name, { of, damage, says, into = "" }) => {
  const folder = at.path(name.replaceAll(/\W/g, "-"));
  beforeAll(async () => {
    fs.cpSync(at.path(of), folder, { recursive: true });
    await damage(folder);
  });

  test("nothing is generated", async () => {
    expect(await refusal(generateCommand(), "--model", folder, "--prompt", "x")).toMatch(says);
  });

  test("nothing is converted", async () => {
    const target = at.path(`from-${name.replaceAll(/\W/g, "-")}${into}`);
    expect(await refusal(convertCommand(), folder, target, "--dtype", "f32")).toMatch(says);
    expect(fs.existsSync(`${target}.partial`) || fs.existsSync(target)).toBe(false);
  });
});

/** The metadata of a sound file, changed. */
type Metadata = Map<string, GgufEntry>;

const GGUF_CASES: Readonly<Record<string, { readonly change: (metadata: Metadata) => void; readonly says: RegExp }>> = {
  "the metadata contradict the tensors": {
    change: (metadata) => metadata.set("deepseek2.embedding_length", { type: "u32", value: 48 }),
    says: /must hold token_embd\.weight as \[264, 48\], got \[264, 32\]/,
  },
  "a key is absent": {
    change: (metadata) => metadata.delete("deepseek2.block_count"),
    says: /deepseek2\.block_count: must be given/,
  },
  "there are more tokens than rows": {
    change: (metadata) => {
      for (const [key, more] of [
        ["tokens", "beyond"],
        ["token_type", 1],
      ] as const) {
        const entry = metadata.get(`tokenizer.ggml.${key}`);
        if (entry?.type !== "list") throw new Error(`${key} is a list`);
        metadata.set(`tokenizer.ggml.${key}`, { ...entry, values: [...entry.values, more] });
      }
    },
    says: /must .*264/,
  },
  "the architecture is unknown": {
    change: (metadata) => metadata.set("general.architecture", { type: "text", value: "qwen3" }),
    says: /general\.architecture: must be one of llama, deepseek, deepseek2, deepseek32, deepseek4, got "qwen3"/,
  },
};

describe.each(Object.entries(GGUF_CASES))("of a GGUF file where %s", (name, { change, says }) => {
  const file = at.path(`${name.replaceAll(/\W/g, "-")}.gguf`);
  beforeAll(async () => {
    const model = modelOf("tiny", { vocabSize: 264, nMtpLayers: 0 });
    const content = drawnGguf(model, drawWeights(model, 1), { splitKvB: true, type: "F32" });
    const metadata = new Map(content.metadata);
    change(metadata);
    await writeGguf(nodeFiles, file, { ...content, metadata });
  });

  test("nothing is generated", async () => {
    expect(await refusal(generateCommand(), "--model", file, "--prompt", "x")).toMatch(says);
  });

  test("nothing is converted", async () => {
    const target = `${file}-out.gguf`;
    expect(await refusal(convertCommand(), file, target, "--dtype", "f32")).toMatch(says);
    expect(fs.existsSync(`${target}.partial`) || fs.existsSync(target)).toBe(false);
  });
});

test("a GGUF file that is cut off is neither run nor converted", async () => {
  const model = modelOf("tiny", { vocabSize: 264, nMtpLayers: 0 });
  const content = drawnGguf(model, drawWeights(model, 1), { splitKvB: true, type: "F32" });
  await writeGguf(nodeFiles, at.path("cut.gguf"), content);
  fs.truncateSync(at.path("cut.gguf"), 60_000);
  const says = /cut\.gguf at byte 60000: must have \d+ bytes, got 60000; the file is cut off/;
  expect(await refusal(generateCommand(), "--model", at.path("cut.gguf"))).toMatch(says);
  expect(await refusal(convertCommand(), at.path("cut.gguf"), at.path("from-cut"), "--dtype", "f32")).toMatch(says);
  expect(fs.existsSync(at.path("from-cut.partial"))).toBe(false);
});

test("a generation_config.json that asks for what cannot be is refused by key", async () => {
  fs.cpSync(at.path("whole"), at.path("cold"), { recursive: true });
  fs.writeFileSync(at.path("cold", "generation_config.json"), '{"temperature": -1}');
  const says = /generation_config\.json temperature: must be .*, got -1/;
  expect(await refusal(generateCommand(), "--model", at.path("cold"))).toMatch(says);
});

test("generate refuses a pickle, and a folder with nothing else, as convert does", async () => {
  fs.writeFileSync(at.path("model.pt"), "pickle");
  expect(await refusal(generateCommand(), "--model", at.path("model.pt"))).toMatch(/model\.pt: must not be a pickle/);
  fs.mkdirSync(at.path("pickled"));
  fs.copyFileSync(at.path("whole", "config.json"), at.path("pickled", "config.json"));
  fs.writeFileSync(at.path("pickled", "pytorch_model.bin"), "pickle");
  const says = /pytorch_model\.bin: must not be a pickle/;
  expect(await refusal(generateCommand(), "--model", at.path("pickled"))).toMatch(says);
});

test("eval reads every file before it scores the first", async () => {
  fs.mkdirSync(at.path("texts"));
  fs.writeFileSync(at.path("texts", "a.txt"), "Words. ".repeat(100));
  fs.writeFileSync(at.path("texts", "b.bin"), new Uint8Array([0xff, 0xfe, 0, 1]));
  const words = ["--model", at.path("whole"), "--data", at.path("texts")];
  expect(await refusal(evalCommand(), "perplexity", ...words)).toMatch(/b\.bin.* must/);
});

test("V3.2 is converted, but not run: the message lists what is", async () => {
  const sizes = { nLayers: 2, nDenseLayers: 1, vocabSize: 264, dim: 160, interDim: 192, moeInterDim: 96 };
  const experts = { nRoutedExperts: 8, nActivatedExperts: 2, nExpertGroups: 4, nLimitedGroups: 2, indexNHeads: 2 };
  const heads = { nHeads: 2, qLoraRank: 32, kvLoraRank: 32, qkNopeHeadDim: 16, qkRopeHeadDim: 8, vHeadDim: 16 };
  await writeRandomFolder(
    at.path("v32"),
    modelOf("deepseek-v3.2", { ...sizes, ...experts, ...heads, indexHeadDim: 16 }),
  );
  const says = /model: must be one that runs here, got "the lightning indexer of V3\.2"; available: .*deepseek_v3/;
  expect(await refusal(generateCommand(), "--model", at.path("v32"))).toMatch(says);
  const text = ["--dtype", "bf16", "--verify", "--text", at.path("text.txt")];
  expect(await refusal(convertCommand(), at.path("v32"), at.path("v32-out"), ...text)).toMatch(says);
  expect(fs.existsSync(at.path("v32-out"))).toBe(false);
});

test("eval refuses weights above --memory-limit with both numbers", async () => {
  const model = ["--data", at.path("text.txt"), "--memory-limit", "50KiB"];
  const both = /needs \d{6} bytes \([\d.]+ MiB\) of 51200 bytes \(0\.0 MiB\) available; /;
  const whole = at.path("whole");
  expect(await refusal(evalCommand(), "perplexity", "--model", whole, ...model)).toMatch(both);
  expect(await refusal(evalCommand(), "kld", whole, whole, ...model)).toMatch(both);
});

test("the second model of eval kld has what the first leaves of --memory-limit", async () => {
  const whole = at.path("whole");
  const words = [whole, whole, "--data", at.path("text.txt"), "--memory-limit", "250KiB"];
  const said = await refusal(evalCommand(), "kld", ...words);
  const [, needed, left] = /needs (\d+) bytes .* of (\d+) bytes .* available; weights take/.exec(said) ?? [];
  expect(Number(needed) + Number(left)).toBe(250 * 1024);
});
