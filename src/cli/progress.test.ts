import { describe, expect, test } from "vitest";
import type { StepReport } from "../train/index.ts";
import { ProgressLine } from "./output.ts";
import { StepLine, dataProgress } from "./progress.ts";

function report(step: number, loss: number, ms: number): StepReport {
  const counts = { tokens: 1000, targets: 900, bytes: 3000, flops: 2e9 };
  return { step, loss, ms, mtpLoss: 0, balanceLoss: 0, lr: 0.1, gradNorm: 1, tokensPerSec: 0, ...counts };
}

describe("the line of a step", () => {
  test("says step, loss, bits per byte, tokens/s, MFU and the time to go", () => {
    const line = new StepLine({ steps: 200, peakFlops: 1e11 });
    // 4 nats · 900 tokens / ln 2 / 3000 bytes; 1000 tokens in 0.5 s; 4 GFLOP/s of 100; 199 steps of 0.5 s.
    expect(line.next(report(1, 4, 500))).toBe(
      "step 1/200  loss 4.000  1.731 bits/byte  2.00k tokens/s  MFU 4.0 %  ETA 1m 40s",
    );
  });

  test("is the mean of the first twenty steps, and later follows the last ones", () => {
    const line = new StepLine({ steps: 1000, peakFlops: 1e11 });
    for (let step = 1; step < 20; step++) line.next(report(step, step, 500));
    expect(line.next(report(20, 20, 500))).toContain("loss 10.500");
    for (let step = 21; step < 200; step++) line.next(report(step, 3, 500));
    expect(line.next(report(200, 3, 500))).toContain("loss 3.001");
  });
});

test("the line of a text's preparation says how far it is, and of what", () => {
  const written: string[] = [];
  const stream = { isTTY: false, write: (text: string) => written.push(text) } as unknown as NodeJS.WriteStream;
  const clock = { now: 0 };
  const show = dataProgress(new ProgressLine(stream, () => (clock.now += 10_000)));
  show({ phase: "tokenize", subject: "sotu", doneBytes: 2 ** 20, totalBytes: 2 ** 21 });
  show({ phase: "unpack", subject: "tang", doneBytes: 2 ** 20, totalBytes: 0 });
  expect(written).toEqual(["tokenize sotu: 1.0 MiB of 2.0 MiB\n", "unpack tang: 1.0 MiB\n"]);
});
