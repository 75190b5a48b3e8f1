/** Trains the smallest model on the text of a folder and lets it write. `npx tsx examples/train-and-generate.ts src/config` */

import { mkdtempSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { resolveConfig } from "fathom/config";
import { openFiles } from "fathom/data/node";
import { openEngine } from "fathom/infer/node";
import { createNativeBackend } from "fathom/kernels/node";
import { Trainer, trainLoop } from "fathom/train";
import { CheckpointFolder, prepareText } from "fathom/train/node";

const patterns = process.argv.slice(2);
const data = { kind: "files", patterns, cwd: process.cwd() } as const;
const folder = mkdtempSync(join(tmpdir(), "fathom-example-"));
const config = resolveConfig("tiny", { steps: 30, val_fraction: 0.2 });
const now = () => performance.now();
const backend = createNativeBackend();

// Text becomes tokens once; both the tokenizer and the tokens are kept in the cache folder.
const { tokenizer, dataset, tokenBytes } = await prepareText({
  source: await openFiles(patterns, data.cwd),
  vocabSize: config.model.vocabSize,
  valFraction: config.training.valFraction,
  cacheDir: join(folder, "cache"),
});

{
  using trainer = new Trainer({
    backend,
    config,
    train: dataset.train,
    validation: dataset.validation,
    tokenBytes,
    now,
  });
  const checkpoints = new CheckpointFolder(join(folder, "run"), config.training.keepLast);
  const save = () => checkpoints.save(trainer, { config, data, dataset: dataset.id, tokenizer });
  for await (const event of trainLoop({ trainer, steps: config.training.steps, save })) {
    if (event.kind === "step") console.log(`step ${event.report.step}: loss ${event.report.loss.toFixed(3)}`);
    if (event.kind === "evaluation") console.log(`bits per byte ${event.report.bitsPerByte.toFixed(3)}`);
  }
}

using engine = await openEngine({ folder: join(folder, "run"), backend, now });
for await (const piece of engine.generate("", { ...engine.settings.generation, maxTokens: 40 })) {
  process.stdout.write(piece.text);
}
process.stdout.write("\n");
