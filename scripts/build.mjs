/** `npm run build`: installs, builds the native library and compiles the TypeScript, where they are out of date. */
import { runMain, setup } from "./setup.mjs";

await runMain(async () => {
  await setup();
  return 0;
});
