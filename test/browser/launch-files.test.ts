/** The folder of launch files as data, made where nothing of Node is known. */

import { join } from "node:path";
import { createContext, Script } from "node:vm";
import { build } from "esbuild";
import { expect, test } from "vitest";
import { exportPlan } from "../../src/planner/index.ts";
import { root } from "../helpers/cli.ts";
import { launchCases } from "../helpers/launch-cases.ts";

test("a browser makes the same folders as Node", async () => {
  const { outputFiles } = await build({
    stdin: { contents: `export { exportPlan } from "./planner/index.ts"`, resolveDir: join(root, "src"), loader: "ts" },
    bundle: true,
    write: false,
    format: "iife",
    globalName: "fathom",
    platform: "browser",
    target: "es2022",
    logLevel: "silent",
  });
  const context = createContext({ TextEncoder, TextDecoder });
  new Script(outputFiles[0]!.text).runInContext(context);
  const inBrowser = new Script("fathom.exportPlan").runInContext(context) as typeof exportPlan;
  for (const { name, request } of launchCases()) {
    expect(await inBrowser(request), name).toEqual(await exportPlan(request));
  }
});
