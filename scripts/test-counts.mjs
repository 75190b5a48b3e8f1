/** How many tests of a finished check passed and failed. A tool that ends badly counts as one failure at least. */

/**
 * @typedef {{ passed: number, failed: number }} Counts
 * @typedef {{ status: string, assertionResults: { status: string }[] }} TestFile
 */

/**
 * A tool that says yes or no.
 * @param {number} code
 * @returns {Counts}
 */
export function countTool(code) {
  return code === 0 ? { passed: 1, failed: 0 } : { passed: 0, failed: 1 };
}

/**
 * Adds up the `test result:` lines of `cargo test`.
 * @param {number} code
 * @param {string} output
 * @returns {Counts}
 */
export function countCargo(code, output) {
  const counts = { passed: 0, failed: 0 };
  for (const [, passed, failed] of output.matchAll(/^test result: .*? (\d+) passed; (\d+) failed;/gm)) {
    counts.passed += Number(passed);
    counts.failed += Number(failed);
  }
  return atLeastOneFailure(code, counts);
}

/**
 * Reads the JSON report of vitest. A file that could not be loaded counts as one failure; a skipped test does too, since
 * it proves nothing.
 * @param {number} code
 * @param {{ testResults: TestFile[] }} report
 * @returns {Counts}
 */
export function countVitest(code, report) {
  const counts = { passed: 0, failed: 0 };
  for (const file of report.testResults) {
    const passed = file.assertionResults.filter((test) => test.status === "passed").length;
    const failed = file.assertionResults.length - passed;
    counts.passed += passed;
    counts.failed += failed === 0 && file.status !== "passed" ? 1 : failed;
  }
  return atLeastOneFailure(code, counts);
}

/**
 * @param {number} code
 * @param {Counts} counts
 * @returns {Counts}
 */
function atLeastOneFailure(code, counts) {
  return code === 0 ? counts : { ...counts, failed: Math.max(1, counts.failed) };
}
