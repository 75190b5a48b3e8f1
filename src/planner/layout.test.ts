import { describe, expect, test } from "vitest";
import {
  brokenIdentity,
  checkLayout,
  completeLayout,
  expertDataParallel,
  fullRecomputeShare,
  IDENTITIES,
  numMicroBatches,
  type LayoutInput,
  type LayoutModel,
} from "./layout.ts";

const V3: LayoutModel = {
  nLayers: 61,
  nHeads: 128,
  ffnWidths: [18432, 2048],
  nRoutedExperts: 256,
  moeInterDim: 2048,
};

const base: LayoutInput = { pp: 16, ep: 64, globalBatchSize: 15360, seqLen: 4096 };
const broken = (changes: Partial<LayoutInput>, world = 2048): string | undefined =>
  IDENTITIES[brokenIdentity(completeLayout({ ...base, ...changes }, world), V3, world)]?.name;

describe("a layout", () => {
  test("of DeepSeek-V3's training is legal: 128 replicas, two of each expert, 120 micro-batches", () => {
    const layout = completeLayout(base, 2048);
    expect(brokenIdentity(layout, V3, 2048)).toBe(-1);
    expect([layout.dp, expertDataParallel(layout), numMicroBatches(layout)]).toEqual([128, 2, 120]);
  });

  test("that breaks an identity is told by its name", () => {
    expect(broken({ tp: 3 })).toBe("world");
    expect(broken({ dp: 100 })).toBe("world");
    expect(broken({ tp: 0 })).toBe("whole");
    expect(broken({ microBatchSize: 1.5 })).toBe("whole");
    expect(broken({ ep: 256 })).toBe("expert-world");
    expect(broken({ pp: 1, ep: 512 })).toBe("experts");
    expect(broken({ pp: 8, ep: 1, etp: 3, tp: 3 }, 24)).toBe("expert-width");
    expect(broken({ tp: 256, pp: 8, ep: 1 })).toBe("heads");
    expect(broken({ tp: 16, pp: 1, ep: 1, seqLen: 24, globalBatchSize: 128 })).toBe("sequence");
    expect(broken({ cp: 16, seqLen: 16 })).toBe("sequence");
    expect(broken({ pp: 64, ep: 1 })).toBe("layers");
    expect(broken({ globalBatchSize: 15361 })).toBe("batch");
    expect(broken({ vp: 2, schedule: "1f1b" })).toBe("schedule");
    expect(broken({ vp: 2, globalBatchSize: 128 * 20 })).toBe("micro-batches");
    expect(broken({ schedule: "dualpipe", globalBatchSize: 128 * 16 })).toBe("micro-batches");
    expect(broken({ schedule: "dualpipe" })).toBeUndefined();
  });

  test("without routed experts has no expert parallelism", () => {
    const dense = { ...V3, nRoutedExperts: 0 };
    const layout = completeLayout({ ...base, ep: 2 }, 2048);
    expect(IDENTITIES[brokenIdentity(layout, dense, 2048)]?.name).toBe("experts");
  });

  test("the message has the identity and its numbers", () => {
    expect(() => checkLayout(completeLayout({ ...base, tp: 3 }, 2048), V3, 2048)).toThrowErrorMatchingInlineSnapshot(
      `[ConfigError: layout: identity "world": TP·CP·DP·PP = world: TP·CP·PP (3·1·16) does not divide 2048 devices, got "TP3 PP16 VP1 CP1 EP64 ETP1 DP? ZeRO-1 1f1b recompute none MBS1"; change one of the numbers, or leave them out and let the search choose]`,
    );
  });

  test("recomputes the share that its setting says", () => {
    expect((["none", "selective", "first-80", "full"] as const).map(fullRecomputeShare)).toEqual([0, 0, 0.8, 1]);
    expect(() => fullRecomputeShare("first-100")).toThrow(/between 0 and 100/);
  });
});
