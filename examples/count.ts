/** How many parameters a model has, and how many of them one token meets. `npx tsx examples/count.ts deepseek-v3` */

import { blueprint, countParameters } from "fathom/blueprint";
import { resolveConfig } from "fathom/config";

const name = process.argv[2] ?? "deepseek-v3";
const { total, activated, mtp } = countParameters(blueprint(resolveConfig(name).model));
console.log(`${name}: ${total} parameters, ${activated} activated, ${mtp} more for multi-token prediction`);
