/**
 * `npm run validate:planner`: the planner against published numbers, as Markdown, or as JSON with `--json`. Fails when
 * a row is over its bar.
 */

import { validationReport, validationText } from "../src/planner/validation/report.ts";

const report = validationReport();
process.stdout.write(process.argv.includes("--json") ? `${JSON.stringify(report)}\n` : validationText(report));
process.exitCode = report.misses.length === 0 ? 0 : 1;
