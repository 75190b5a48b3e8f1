import fc from "fast-check";
import { expect, test } from "vitest";
import { pipelineLayout } from "./megatron.ts";

const unfold = (picture: string): string[] =>
  picture
    .replaceAll(/\(([^)]*)\)\*(\d+)/g, (_, piece: string, times: string) => piece.repeat(Number(times)))
    .split("|");

test("a picture has every layer once, the embedding first, MTP and loss last", () => {
  const sizes = fc
    .record({ nLayers: fc.integer({ min: 2, max: 128 }), nMtpLayers: fc.integer({ min: 0, max: 2 }) })
    .chain((model) => fc.record({ model: fc.constant(model), pieces: fc.integer({ min: 2, max: model.nLayers }) }));
  fc.assert(
    fc.property(sizes, ({ model, pieces }) => {
      const parts = unfold(pipelineLayout(model, pieces));
      expect(parts).toHaveLength(pieces);
      expect(parts.join("")).toBe(`E${"t".repeat(model.nLayers)}${"m".repeat(model.nMtpLayers)}L`);
      const [first = "", ...rest] = parts;
      const middle = rest.slice(0, -1);
      expect(first.startsWith("E")).toBe(true);
      for (const part of middle) expect(part.length).toBeGreaterThan(0);
    }),
  );
});

test("pieces between the ends differ by at most one layer", () => {
  for (const pieces of [4, 8, 16, 32, 61]) {
    const lengths = unfold(pipelineLayout({ nLayers: 61, nMtpLayers: 1 }, pieces))
      .slice(1, -1)
      .map((part) => part.length);
    expect(Math.max(...lengths) - Math.min(...lengths)).toBeLessThanOrEqual(1);
  }
});

test.each([
  [32, "Et|(tt|)*30mL"],
  [16, "Ettt|(tttt|)*14ttmL"],
])("V3 in %i pieces is %s", (pieces, picture) => {
  expect(pipelineLayout({ nLayers: 61, nMtpLayers: 1 }, pieces)).toBe(picture);
});
