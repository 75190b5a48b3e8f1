import { expect, test } from "vitest";
import { checkGuide } from "../../scripts/guide.ts";

test("the guide shows what its commands print", { timeout: 240_000 }, () => {
  expect(checkGuide(false), "renew them: npm run guide -- --write").toEqual([]);
});
