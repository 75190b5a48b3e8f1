/** `npm start`: makes the checkout ready, then runs the main job, `fathom quickstart`, with the arguments given. */
import { join } from "node:path";
import { runForeground } from "./child.mjs";
import { root, runMain, setup } from "./setup.mjs";

await runMain(async () => {
  await setup();
  const main = join(root, "dist", "cli", "main.js");
  return runForeground(process.execPath, [main, "quickstart", ...process.argv.slice(2)], process.cwd());
});
