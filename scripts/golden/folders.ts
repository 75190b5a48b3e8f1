/**
 * Trains a small model of each architecture that transformers has a class for, for check_folders.py: the folders as
 * `fathom train` writes them, and beside each what it makes of some texts.
 *
 *     npx tsx scripts/golden/folders.ts OUT
 */

import { execFileSync } from "node:child_process";
import { join } from "node:path";
import { writeSafetensors } from "../../src/formats/index.ts";
import { nodeFiles } from "../../src/formats/node.ts";
import { createNativeBackend } from "../../src/kernels/node.ts";
import { DeepSeekModel, ropeTable, tensorSource } from "../../src/model/index.ts";
import { openWeights, readModelConfig, resolveModelFolder } from "../../src/model/node.ts";
import { Scope } from "../../src/tensor/index.ts";
import { loadTokenizer } from "../../src/tokenizer/node.ts";

const TEXTS = ["README.md", "CONTRIBUTING.md", "test/golden/README.md"];
const TEXT = "The model reads 12345 words, 你好，世界, café 😀\n\n    return x**2\n";

/** Weights that are large from the start, so that attention and routing are far from uniform after a few steps too. */
const COMMON = ["init_std=0.25", "seq_len=64"];
const V2 = ["score_func=softmax", "norm_topk_prob=false", "router_bias_speed=0"];
const LLAMA = [
  ...["attention=gqa", "n_heads=4", "n_kv_heads=2", "head_dim=8", "qk_nope_head_dim=0", "qk_rope_head_dim=8"],
  ...["v_head_dim=8", "rope_interleave=false", "rope_factor=1", "n_mtp_layers=0", "n_dense_layers=2"],
  ...["q_lora_rank=0"],
];
const MODELS: Readonly<Record<string, readonly string[]>> = {
  llama: LLAMA,
  deepseek_v2: [...V2, "topk_method=group_limited_greedy", "route_scale=3", "n_mtp_layers=0"],
  deepseek_v3: ["route_scale=2.5"],
};

async function main(out: string): Promise<void> {
  for (const [name, settings] of Object.entries(MODELS)) {
    const run = join(out, name);
    const flags = [...COMMON, ...settings].flatMap((setting) => ["--set", setting]);
    const train = ["train", "--preset", "tiny", "--data", ...TEXTS, "--steps", "3", "--out", run, ...flags];
    execFileSync("npx", ["tsx", "src/cli/main.ts", ...train], { stdio: ["ignore", "ignore", "inherit"] });
    await writeExpected(await resolveModelFolder(run), join(run, "expected.safetensors"));
  }
}

/** The ids and the logits [N, V] of the text. */
async function writeExpected(folder: string, file: string): Promise<void> {
  using backend = createNativeBackend();
  using scope = Scope.root(backend);
  const { model: config } = await readModelConfig(folder);
  const tokenizer = await loadTokenizer(folder);
  const ids = Array.from(tokenizer.encode(TEXT));
  const model = new DeepSeekModel({ ...config, nMtpLayers: 0 }, await openWeights(scope, folder, config));
  const ints = (values: number[]) => scope.from(values, [values.length], "i32");
  const table = scope.from(ropeTable(config, ids.length), [ids.length, config.qkRopeHeadDim]);
  const at = { positions: ints(ids.map((_, i) => i)), seqStarts: ints([0, ids.length]), ropeTable: table };
  const tokens = ints(ids);
  const logits = model.logits(scope, tokens, at);
  await writeSafetensors(nodeFiles, file, [tensorSource("ids", tokens), tensorSource("logits", logits)], {
    text: TEXT,
  });
}

await main(process.argv[2]!);
