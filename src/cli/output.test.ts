import { describe, expect, test } from "vitest";
import { assignments } from "./options.ts";
import { ProgressLine, bytes, duration, short } from "./output.ts";

/** A stream that keeps what is written, and a clock that is set by hand. */
function screen(terminal: { isTTY: boolean; columns?: number }): {
  line: ProgressLine;
  clock: { now: number };
  written: () => string;
} {
  let written = "";
  const clock = { now: 0 };
  const stream = { ...terminal, write: (text: string) => (written += text) };
  const line = new ProgressLine(stream as unknown as NodeJS.WriteStream, () => clock.now);
  return { line, clock, written: () => written };
}

describe("a progress line", () => {
  test("on a terminal stays one line that is redrawn, ten times a second at most", () => {
    const { line, clock, written } = screen({ isTTY: true, columns: 40 });
    for (const text of ["one", "two", "three"]) {
      line.update(text);
      clock.now += 60;
    }
    line.say("lasting");
    expect(written()).toBe("\r\u001B[2Kone\r\u001B[2Kthree\r\u001B[2Klasting\n");
  });

  test("is cut at the terminal's width, and at 79 characters where the terminal tells none", () => {
    for (const [columns, width] of [
      [40, 39],
      [0, 79],
    ] as const) {
      const { line, written } = screen({ isTTY: true, columns });
      line.update("x".repeat(200));
      expect(written()).toBe(`\r\u001B[2K${"x".repeat(width)}`);
    }
  });

  test("in a pipe is a whole line every five seconds", () => {
    const { line, clock, written } = screen({ isTTY: false });
    for (let second = 0; second < 12; second++) {
      line.update(`second ${second}`);
      clock.now += 1000;
    }
    line.clear();
    expect(written()).toBe("second 0\nsecond 5\nsecond 10\n");
  });
});

test("times, counts and sizes are short", () => {
  expect([0.4, 83, 3723].map(duration)).toEqual(["0s", "1m 23s", "1h 02m"]);
  expect([0, 999, 12345, 6.71e11].map(short)).toEqual(["0", "999", "12.3k", "671G"]);
  expect([7217658, 2 ** 31].map(bytes)).toEqual(["6.9 MiB", "2.00 GiB"]);
});

test("an assignment is JSON where it can be, else text, and keeps what follows the first =", () => {
  expect(assignments(["lr=1e-3", "milestones=[0.5,0.9]", "precision=bf16", "stop=a=b", "isa=null"])).toEqual({
    lr: 1e-3,
    milestones: [0.5, 0.9],
    precision: "bf16",
    stop: "a=b",
    isa: null,
  });
  expect(() => assignments(['training={"lr":1}'])).toThrow("--set: must give one value or a list");
});
