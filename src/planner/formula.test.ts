import { describe, expect, test } from "vitest";
import { compileSheet, type FormulaRow } from "./formula.ts";

const input = (name: string) => ({ name, unit: "", meaning: name });
const row = (name: string, formula: string): FormulaRow => ({ ...input(name), formula });

function value(formula: string, values: Record<string, number> = {}): number {
  const sheet = compileSheet([Object.keys(values).map(input)], [row("result", formula)]);
  const registers = sheet.createRegisters();
  for (const [name, given] of Object.entries(values)) registers[sheet.slot(name)] = given;
  sheet.run(registers);
  return registers[sheet.slot("result")]!;
}

describe("formulas", () => {
  test("of one text are one sheet, whatever numbers come with its inputs", () => {
    const sheet = (text: string, given: number) =>
      compileSheet([[{ ...input("a"), ...{ value: given } }]], [row("b", text)]);
    expect(sheet("a + 1", 1)).toBe(sheet("a + 1", 2));
    expect(sheet("a + 2", 1)).not.toBe(sheet("a + 1", 1));
  });

  test("products bind before sums, and operations of one rank go from left to right", () => {
    expect(value("2 + 3 * 4 - 1")).toBe(13);
    expect(value("100 / 5 / 2 - 1 - 2")).toBe(7);
    expect(value("(2 + 3) * 4")).toBe(20);
  });

  test("every function does what its name says", () => {
    expect(value("max(2, 7) + min(2, 7)")).toBe(9);
    expect(value("pow(2, 10)")).toBe(1024);
    expect(value("ge(3, 3) + ge(2, 3)")).toBe(1);
    expect(value("if(ge(zero, 1), 5, 6)", { zero: 1 })).toBe(5);
    expect(value("if(ge(zero, 1), 5, 6)", { zero: 0 })).toBe(6);
  });

  test("a row may use inputs and rows above it, and nothing else", () => {
    expect(value("moe.width * 1.5e3", { "moe.width": 2 })).toBe(3000);
    expect(() => compileSheet([[]], [row("a", "b"), row("b", "1")])).toThrow(/has a row b/);
    expect(() => compileSheet([[]], [row("a", "2 +")])).toThrow(/is complete/);
    expect(() => compileSheet([[]], [row("a", "2 ? 3")])).toThrow(/follows the grammar/);
    expect(() => compileSheet([[]], [row("a", "max(1)")])).toThrow(/with its operands/);
    expect(() => compileSheet([[input("a")]], [row("a", "1")])).toThrow(/one row a/);
  });

  test("running from a group leaves what depends on earlier groups alone alone", () => {
    const sheet = compileSheet(
      [[input("slow")], [input("fast")]],
      [row("twice", "2 * slow"), row("sum", "twice + fast")],
    );
    const registers = sheet.createRegisters();
    registers[sheet.slot("slow")] = 5;
    registers[sheet.slot("fast")] = 1;
    sheet.run(registers);
    expect(registers[sheet.slot("sum")]).toBe(11);
    registers[sheet.slot("slow")] = 100;
    registers[sheet.slot("fast")] = 2;
    sheet.run(registers, 1);
    expect(registers[sheet.slot("sum")]).toBe(12);
  });

  test("running for some results leaves out what they do not need", () => {
    const rows = [row("twice", "2 * slow"), row("other", "3 * slow"), row("sum", "twice + fast")];
    const sheet = compileSheet([[input("slow")], [input("fast")]], rows);
    const registers = sheet.createRegisters();
    registers[sheet.slot("slow")] = 5;
    registers[sheet.slot("fast")] = 1;
    sheet.runFor(["sum"])(registers);
    expect(["twice", "other", "sum"].map((name) => registers[sheet.slot(name)])).toEqual([10, 0, 11]);
  });

  test("an explanation is the tree of what a number was computed from", () => {
    const sheet = compileSheet([[input("tokens")]], [row("bytes", "2 * tokens"), row("all", "bytes + bytes")]);
    const registers = sheet.createRegisters();
    registers[sheet.slot("tokens")] = 8;
    sheet.run(registers);
    expect(sheet.explain("all", registers)).toEqual({
      ...row("all", "bytes + bytes"),
      value: 32,
      inputs: [{ ...row("bytes", "2 * tokens"), value: 16, inputs: [{ ...input("tokens"), value: 8, inputs: [] }] }],
    });
  });
});
