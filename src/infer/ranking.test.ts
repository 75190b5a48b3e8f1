import fc from "fast-check";
import { expect, test } from "vitest";
import { Ranking } from "./ranking.ts";

test("ids stand by falling logit, the lower of equal ones first, whatever the logits", () => {
  const logit = fc.oneof(fc.float({ noNaN: true }), fc.constantFrom(0, -0, 1, -1, Infinity, -Infinity));
  fc.assert(
    fc.property(fc.array(logit, { minLength: 1, maxLength: 600 }), fc.nat(), (values, first) => {
      const logits = Float32Array.from(values);
      const ids = Array.from(logits.keys());
      const sorted = ids.toSorted((a, b) => (logits[a] === logits[b] ? a - b : logits[a]! > logits[b]! ? -1 : 1));
      const ranking = new Ranking(logits);
      const start = first % values.length;
      expect(ranking.at(start)).toBe(sorted[start]);
      expect(ids.map((i) => ranking.at(i))).toEqual(sorted);
    }),
    { seed: 3 },
  );
});
