import { describe, expect, test } from "vitest";
import { bubbleFraction, microBatchesInFlight } from "./schedules.ts";

const TIMES = { f: 1, b: 2, w: 1 };

describe("bubbles", () => {
  test.each([
    [16, 120, [11.11, 5.88, 4.0, 3.74]],
    [8, 32, [17.95, 9.86, 6.8, 5.88]],
    [4, 8, [27.27, 15.79, 11.11, 7.69]],
  ])("of %i stages and %i micro-batches are those of the published formulas", (pp, micros, expected) => {
    const percent = (schedule: "1f1b" | "interleaved" | "zb1p" | "dualpipe", vp = 1): number =>
      Math.round(bubbleFraction({ schedule, pp, vp }, micros, TIMES) * 10000) / 100;
    expect([percent("1f1b"), percent("interleaved", 2), percent("zb1p"), percent("dualpipe")]).toEqual(expected);
  });

  test("of GPipe and 1F1B are equal, ZB-H1 has a third of it, ZB-H2 none, one stage none", () => {
    const bubble = (schedule: "gpipe" | "1f1b" | "zb-h1" | "zb-h2", pp = 8): number => {
      const fraction = bubbleFraction({ schedule, pp, vp: 1 }, 32, TIMES);
      return (fraction * 32 * 3) / (1 - fraction);
    };
    expect(bubble("gpipe")).toBeCloseTo(21, 10);
    expect(bubble("1f1b")).toBeCloseTo(21, 10);
    expect(bubble("zb-h1")).toBeCloseTo(7, 10);
    expect(bubble("zb-h2")).toBe(0);
    expect(bubble("1f1b", 1)).toBe(0);
  });

  test("of DualPipeV on p devices is that of DualPipe on 2p, with chunks of half the time", () => {
    const half = { f: 0.5, b: 1, w: 0.5 };
    const onTwice = bubbleFraction({ schedule: "dualpipe", pp: 16, vp: 1 }, 64, half);
    const v = bubbleFraction({ schedule: "dualpipev", pp: 8, vp: 1 }, 64, TIMES);
    expect(v / (1 - v)).toBeCloseTo(onTwice / (1 - onTwice) / 2, 12);
  });
});

describe("micro-batches in flight", () => {
  test("fall from the first stage to the last in 1F1B, and are all of them in GPipe", () => {
    expect([0, 3, 7].map((stage) => microBatchesInFlight("1f1b", stage, 8, 1, 32))).toEqual([8, 5, 1]);
    expect([0, 7].map((stage) => microBatchesInFlight("gpipe", stage, 8, 1, 32))).toEqual([32, 32]);
    expect(microBatchesInFlight("1f1b", 0, 8, 1, 4)).toBe(4);
    expect(microBatchesInFlight("zb-h2", 0, 8, 1, 32)).toBe(15);
  });

  test("of the interleaved first stage are p·(1 + (p − 1)/(p·v))", () => {
    expect(microBatchesInFlight("interleaved", 0, 8, 3, 64)).toBeCloseTo(8 * (1 + 7 / 24), 12);
    expect(microBatchesInFlight("interleaved", 0, 8, 3, 2)).toBe(2);
  });
});
