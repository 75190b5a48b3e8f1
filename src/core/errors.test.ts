import { expect, test } from "vitest";
import { ConfigError, nearest } from "./errors.ts";

class Res {
  [Symbol.dispose](): void {
    log.push("disposed");
  }
}
const log: string[] = [];

test("a message states place, rule, value and cure", () => {
  {
    using r = new Res();
    void r;
  }
  expect(log).toEqual(["disposed"]);
  expect(new ConfigError("n_heads", "must be at least 1", 0, "set n_heads to 1").message).toMatchInlineSnapshot(
    `"n_heads: must be at least 1, got 0; set n_heads to 1"`,
  );
});

test("a misspelt name finds the nearest known one", () => {
  expect(nearest("n_head", ["dim", "n_heads", "n_layers"])).toBe("n_heads");
  expect(nearest("zzzzz", ["dim", "n_heads"])).toBeUndefined();
});
