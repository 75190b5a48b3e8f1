import { expect, test } from "vitest";
import { countCargo, countTool, countVitest } from "../../scripts/test-counts.mjs";

function file(status: string, ...tests: string[]) {
  return { status, assertionResults: tests.map((result) => ({ status: result })) };
}

test("a tool counts as one, passed or failed", () => {
  expect([countTool(0), countTool(2)]).toEqual([
    { passed: 1, failed: 0 },
    { passed: 0, failed: 1 },
  ]);
});

test("the result lines of every crate add up", () => {
  const output = [
    "test result: ok. 12 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.01s",
    "test result: FAILED. 3 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.01s",
  ].join("\n");
  expect(countCargo(101, output)).toEqual({ passed: 15, failed: 2 });
});

test("a crate that does not compile is one failure", () => {
  expect(countCargo(101, "error: could not compile `fathom-kernels`")).toEqual({ passed: 0, failed: 1 });
});

test("a test file that does not load is one failure, and a skipped test does not count as passed", () => {
  const testResults = [file("passed", "passed", "passed"), file("failed"), file("passed", "passed", "skipped")];
  expect(countVitest(1, { testResults })).toEqual({ passed: 3, failed: 2 });
});

test("a bad end with a clean report is one failure", () => {
  expect(countVitest(1, { testResults: [file("passed", "passed")] })).toEqual({ passed: 1, failed: 1 });
});
