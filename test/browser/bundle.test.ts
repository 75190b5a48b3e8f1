/** What runs in a browser: every `index.ts` door is bundled for one, and counts, explanations and plans are made there. */

import { existsSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { createContext, Script } from "node:vm";
import { build } from "esbuild";
import { describe, expect, test } from "vitest";
import { root } from "../helpers/cli.ts";

const rooms = readdirSync(join(root, "src")).filter((room) => existsSync(join(root, "src", room, "index.ts")));

/** A bundle of `source`, whose imports are the doors of rooms: `./config/index.ts`. Fails on any import of a Node module. */
async function bundle(source: string): Promise<string> {
  const { outputFiles } = await build({
    stdin: { contents: source, resolveDir: join(root, "src"), loader: "ts" },
    bundle: true,
    write: false,
    format: "iife",
    globalName: "fathom",
    platform: "browser",
    target: "es2022",
    logLevel: "silent",
  });
  return outputFiles[0]!.text;
}

/** The value of `fathom.answer` that `source` exports, made where only the language and two web names are known. */
async function answerOf(source: string): Promise<unknown> {
  const context = createContext({ TextEncoder, TextDecoder });
  new Script(await bundle(source)).runInContext(context);
  const known = new Script("[typeof process, typeof Buffer, typeof require].join()").runInContext(context) as string;
  expect(known).toBe("undefined,undefined,undefined");
  return JSON.parse(new Script("JSON.stringify(fathom.answer)").runInContext(context) as string);
}

describe("in a browser", () => {
  test.each(rooms)("the door of %s bundles without any module of Node", async (room) => {
    expect(await bundle(`export * from "./${room}/index.ts"`)).not.toMatch(/require\(["']node:/);
  });

  test("a door that imports a module of Node would be found", async () => {
    await expect(bundle('export * from "./formats/node.ts"')).rejects.toThrow(/node:/);
  });

  test("params counts DeepSeek-V3", async () => {
    const answer = await answerOf(`
      import { resolveConfig } from "./config/index.ts";
      import { blueprint, countParameters } from "./blueprint/index.ts";
      const { total, activated } = countParameters(blueprint(resolveConfig("deepseek-v3").model));
      export const answer = { total, activated };
    `);
    expect(answer).toEqual({ total: 671026419200, activated: 37552297472 });
  });

  test("explain says what a parameter is and moves", async () => {
    const answer = await answerOf(`
      import { describeParameter, findParameter } from "./config/index.ts";
      import { parameterInfluence } from "./planner/index.ts";
      const parameter = findParameter("kv_lora_rank");
      const { now } = parameterInfluence("deepseek-v3", parameter);
      export const answer = { path: describeParameter(parameter).path, kv: now.costs.kvBytesPerToken };
    `);
    expect(answer).toEqual({ path: "model.kv_lora_rank", kv: 70272 });
  });

  test("plan finds a layout for V2-Lite on eight devices", async () => {
    const answer = await answerOf(`
      import { resolveConfig } from "./config/index.ts";
      import { createTrainingEvaluator, device, efficiencyFor, modelShape, precisionRecipe, searchLayouts } from "./planner/index.ts";
      const shape = modelShape(resolveConfig("deepseek-v2-lite").model);
      const cluster = { device: device("h800"), count: 8 };
      const recipe = precisionRecipe("bf16");
      const efficiency = efficiencyFor({ cluster, format: recipe.compute, family: "moe" });
      const evaluator = createTrainingEvaluator({ shape, recipe, cluster, efficiency, margin: 0.85 });
      const { best } = searchLayouts(evaluator, { world: 8, globalBatchSize: 64, seqLen: 4096 });
      export const answer = { fits: best.every(({ fits }) => fits), found: best.length };
    `);
    expect(answer).toEqual({ fits: true, found: 10 });
  });
});
