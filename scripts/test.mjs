/**
 * `npm test`: makes the checkout ready, then runs every check, or those named (`npm test -- lint types`). Each check
 * prints one line; the output of a failed one follows it. The last line is `N passed, N failed`.
 */
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { runCollected } from "./child.mjs";
import { root, runMain, cargoEnv, setup, toolPath } from "./setup.mjs";
import { SetupError } from "./stamp.mjs";
import { countCargo, countTool, countVitest } from "./test-counts.mjs";

/**
 * @typedef {import("./test-counts.mjs").Counts} Counts
 * @typedef {{ name: string, run: () => Promise<{ counts: Counts, output: string }> }} Check
 */

/** The crate that binds the others to Node has no tests of its own: the conformance ring tests it from Node. */
const RUST_TESTS = ["--release", "--locked", "--workspace", "--exclude", "fathom-node", "--tests"];

/** What optimises across crates takes most of a build, and tests of single crates gain nothing by it. */
const NOT_LINKED_WHOLE = {
  CARGO_PROFILE_RELEASE_LTO: "off",
  CARGO_PROFILE_RELEASE_CODEGEN_UNITS: "16",
  CARGO_PROFILE_RELEASE_DEBUG: "0",
};

const QUICKSTART = "test/stories/quickstart.test.ts";

/** @type {readonly Check[]} */
const CHECKS = [
  node("format", "oxfmt", ["--check", "."]),
  cargo("rust format", ["fmt", "--all", "--", "--check", "-l"], countTool),
  node("lint", "oxlint", ["--deny-warnings", "."]),
  node("types", "typescript", ["-p", "tsconfig.json"], "tsc"),
  node("browser types", "typescript", ["-p", "tsconfig.browser.json"], "tsc"),
  node("rooms", "tsx", ["scripts/check-rooms.ts"]),
  node("unused", "knip", ["--no-progress"]),
  cargo(
    "clippy",
    ["clippy", "--release", "--locked", "--workspace", "--all-targets", "--", "-D", "warnings"],
    countTool,
  ),
  cargo("rust tests", ["test", ...RUST_TESTS, "--no-fail-fast"], countCargo, NOT_LINKED_WHOLE),
  vitest("tests", ["--exclude", "test/stories/**"]),
  vitest("stories", ["test/stories", "--exclude", QUICKSTART]),
  // By itself: it trains on every core, and what runs beside it would make it several times longer.
  vitest("quickstart", [QUICKSTART]),
];

await runMain(async () => {
  const total = await runChecks(chooseChecks(process.argv.slice(2))).catch((error) => {
    console.error(error instanceof SetupError ? error.message : error);
    return { passed: 0, failed: 1 };
  });
  console.log(`${total.passed} passed, ${total.failed} failed`);
  return total.failed === 0 ? 0 : 1;
});

/** @param {readonly string[]} names none means all */
function chooseChecks(names) {
  const known = CHECKS.map((check) => check.name);
  for (const name of names) {
    if (!known.includes(name)) {
      throw new SetupError(
        `npm test: a check must be one of ${known.join(", ")}, got ${name}; quote names of two words`,
      );
    }
  }
  return names.length === 0 ? CHECKS : CHECKS.filter((check) => names.includes(check.name));
}

/** @param {readonly Check[]} checks */
async function runChecks(checks) {
  await setup();
  const total = { passed: 0, failed: 0 };
  for (const check of checks) {
    const start = performance.now();
    process.stdout.write(check.name.padEnd(16));
    const { counts, output } = await check.run();
    const seconds = ((performance.now() - start) / 1000).toFixed(1);
    console.log(`${`${seconds} s`.padStart(8)}   ${counts.passed} passed, ${counts.failed} failed`);
    if (counts.failed > 0) console.log(output);
    total.passed += counts.passed;
    total.failed += counts.failed;
  }
  return total;
}

/**
 * A check made by an installed command-line tool: it passes when the tool ends with code 0.
 * @param {string} name
 * @param {string} packageName
 * @param {readonly string[]} args
 * @param {string} [command]
 * @returns {Check}
 */
function node(name, packageName, args, command = packageName) {
  const run = async () => {
    const { code, output } = await runCollected(process.execPath, [toolPath(packageName, command), ...args], {
      cwd: root,
    });
    return { counts: countTool(code), output };
  };
  return { name, run };
}

/**
 * @param {string} name
 * @param {readonly string[]} args
 * @param {(code: number, output: string) => Counts} count
 * @param {NodeJS.ProcessEnv} [settings]
 * @returns {Check}
 */
function cargo(name, args, count, settings = {}) {
  const run = async () => {
    const env = { ...cargoEnv, ...settings };
    const { code, output } = await runCollected("cargo", args, { cwd: join(root, "native"), env });
    return { counts: count(code, output), output };
  };
  return { name, run };
}

/**
 * @param {string} name
 * @param {readonly string[]} args
 * @returns {Check}
 */
function vitest(name, args) {
  const run = async () => {
    const folder = mkdtempSync(join(tmpdir(), "fathom-test-"));
    const report = join(folder, "report.json");
    const reporters = ["--reporter=default", "--reporter=json", `--outputFile.json=${report}`];
    // CI makes vitest refuse to write a missing snapshot instead of accepting whatever came out.
    const env = { ...process.env, CI: "1" };
    const call = [toolPath("vitest"), "run", ...reporters, ...args];
    try {
      const { code, output } = await runCollected(process.execPath, call, { cwd: root, env });
      return { counts: countVitest(code, readReport(report)), output };
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  };
  return { name, run };
}

/** The report of vitest, or an empty one when it ended before writing it. @param {string} path */
function readReport(path) {
  try {
    return JSON.parse(readFileSync(path, "utf8"));
  } catch {
    return { numPassedTests: 0, testResults: [] };
  }
}
