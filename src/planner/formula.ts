/**
 * Sheets of named formulas. A formula is written once, as text; the same text is what `--why` prints and what the
 * evaluator runs, compiled to a flat list of operations on an array of numbers. There is no second version of it.
 *
 * Grammar: numbers, names (`moe.act.q`), + − * /, parentheses, max(a, b), min(a, b), pow(a, b), ge(a, b) (1 or 0) and
 * if(c, a, b).
 */

import { invariant } from "../core/errors.ts";

/** A number that is handed to a sheet. */
export interface InputRow {
  readonly name: string;
  readonly unit: string;
  readonly meaning: string;
  readonly source?: string;
}

/** A number that a sheet computes from inputs and from rows above it. */
export interface FormulaRow extends InputRow {
  readonly formula: string;
}

/** A row without a source of its own. */
export function formulaRow(name: string, formula: string, unit: string, meaning: string): FormulaRow {
  return { name, formula, unit, meaning };
}

/** A number with where it comes from: the tree that `--why` prints. */
export interface Quantity {
  readonly name: string;
  readonly value: number;
  readonly unit: string;
  readonly meaning: string;
  /** Absent for inputs. */
  readonly formula?: string;
  readonly source?: string;
  readonly inputs: readonly Quantity[];
}

export interface Sheet {
  /** Place of a name in the registers. */
  readonly slot: (name: string) => number;
  readonly has: (name: string) => boolean;
  /** Numbers of one evaluation, with the constants in place. */
  readonly createRegisters: () => Float64Array;
  /** Computes the rows that depend on inputs of group `from` or a later one; the others must stand already. */
  readonly run: (registers: Float64Array, from?: number) => void;
  /** The same for some rows alone, which is what a search needs; other rows do not stand afterwards. */
  readonly runFor: (results: readonly string[]) => (registers: Float64Array, from?: number) => void;
  /** Where a number of an evaluated sheet comes from, down to the inputs. */
  readonly explain: (name: string, registers: Float64Array) => Quantity;
  readonly rows: readonly FormulaRow[];
}

const OPS = ["+", "-", "*", "/", "max", "min", "pow", "ge", "if"] as const;
type Op = (typeof OPS)[number];
const ARITY: Readonly<Record<string, number>> = { max: 2, min: 2, pow: 2, ge: 2, if: 3 };

/** Numbers of one operation: opcode, three operands, result. */
const OP_SIZE = 5;

interface Program {
  /** Operations for each group of inputs. */
  readonly code: number[][];
  /** Register → group of inputs on which it depends. */
  readonly groups: number[];
  /** Register → constant. */
  readonly constants: Map<number, number>;
  readonly slots: Map<string, number>;
}

/**
 * @param inputs - in groups, those that change most often last: a row runs again only when its groups changed.
 * @throws InternalError for a name that no earlier row has, a name given twice, or text outside the grammar.
 */
export function compileSheet(inputs: readonly (readonly InputRow[])[], rows: readonly FormulaRow[]): Sheet {
  const text = JSON.stringify([inputs, rows], FIELDS);
  const known = compiled.get(text);
  if (known !== undefined) return known;
  if (compiled.size === MOST_COMPILED) compiled.delete(compiled.keys().next().value!);
  const sheet = compile(inputs, rows);
  compiled.set(text, sheet);
  return sheet;
}

/** What a sheet is made of: the rows of a model come with its numbers, which are none of it. */
const FIELDS = ["name", "unit", "meaning", "source", "formula"] satisfies (keyof FormulaRow)[];

/** The newest sheets by their text: who changes a number of a model asks for the same formulas again. */
const compiled = new Map<string, Sheet>();
const MOST_COMPILED = 8;

function compile(inputs: readonly (readonly InputRow[])[], rows: readonly FormulaRow[]): Sheet {
  const program: Program = { code: inputs.map(() => []), groups: [], constants: new Map(), slots: new Map() };
  inputs.forEach((members, group) => {
    for (const { name } of members) define(program, name, newRegister(program, group));
  });
  for (const { name, formula } of rows) define(program, name, compileFormula(program, name, formula));
  const byName = new Map([...inputs.flat(), ...rows].map((row) => [row.name, row]));
  const runners = new Map<readonly string[], Sheet["run"]>();
  return {
    slot: (name) => slotOf(program, name),
    has: (name) => program.slots.has(name),
    createRegisters: () => createRegisters(program),
    run: runner(program.code),
    runFor: (results) => {
      const known = runners.get(results) ?? runner(neededCode(program, results));
      runners.set(results, known);
      return known;
    },
    explain: (name, registers) => explain(byName, program, name, registers),
    rows,
  };
}

function newRegister({ groups }: Program, group: number): number {
  return groups.push(group) - 1;
}

function define({ slots }: Program, name: string, register: number): void {
  invariant(!slots.has(name), `the sheet has one row ${name}`);
  slots.set(name, register);
}

function slotOf({ slots }: Program, name: string): number {
  const slot = slots.get(name);
  invariant(slot !== undefined, `the sheet has a row ${name}`);
  return slot;
}

function createRegisters({ groups, constants }: Program): Float64Array {
  const registers = new Float64Array(groups.length);
  for (const [register, value] of constants) registers[register] = value;
  return registers;
}

const TOKEN = /\s*([A-Za-z][\w.]*|\d+(?:\.\d+)?(?:e[+-]?\d+)?|[-+*/(),])/y;

function tokenize(formula: string): string[] {
  const tokens: string[] = [];
  const end = formula.trimEnd().length;
  TOKEN.lastIndex = 0;
  while (TOKEN.lastIndex < end) {
    const match = TOKEN.exec(formula);
    invariant(match !== null, `the formula ${formula} follows the grammar`);
    tokens.push(match[1]!);
  }
  return tokens;
}

/** Recursive descent that emits operations as it goes; returns the register of the result. */
function compileFormula(program: Program, name: string, formula: string): number {
  const tokens = tokenize(formula);
  let at = 0;
  const take = (expected: string): void => {
    invariant(tokens[at] === expected, `the formula of ${name} has "${expected}" at token ${at}: ${formula}`);
    at++;
  };
  const sum = (): number => {
    let left = product();
    while (tokens[at] === "+" || tokens[at] === "-") left = emit(program, tokens[at++] as Op, [left, product()]);
    return left;
  };
  const product = (): number => {
    let left = atom();
    while (tokens[at] === "*" || tokens[at] === "/") left = emit(program, tokens[at++] as Op, [left, atom()]);
    return left;
  };
  const atom = (): number => {
    const token = tokens[at++];
    invariant(token !== undefined, `the formula of ${name} is complete: ${formula}`);
    if (token === "(") {
      const inner = sum();
      take(")");
      return inner;
    }
    if (/^\d/.test(token)) return constant(program, Number(token));
    if (tokens[at] !== "(") return slotOf(program, token);
    return call(token);
  };
  const call = (fn: string): number => {
    take("(");
    const operands = [sum()];
    while (tokens[at] === ",") {
      at++;
      operands.push(sum());
    }
    take(")");
    invariant(ARITY[fn] === operands.length, `the formula of ${name} calls ${fn} with its operands`);
    return emit(program, fn as Op, operands);
  };
  const result = sum();
  invariant(at === tokens.length, `the formula of ${name} ends where its text ends: ${formula}`);
  return result;
}

function constant(program: Program, value: number): number {
  const register = newRegister(program, 0);
  program.constants.set(register, value);
  return register;
}

function emit(program: Program, op: Op, operands: readonly number[]): number {
  let group = 0;
  for (const register of operands) group = Math.max(group, program.groups[register]!);
  const result = newRegister(program, group);
  const [a = 0, b = 0, c = 0] = operands;
  program.code[group]!.push(OPS.indexOf(op), a, b, c, result);
  return result;
}

function runner(groups: readonly (readonly number[])[]): Sheet["run"] {
  const code = groups.map((group) => Int32Array.from(group));
  return (registers, from = 0) => {
    for (let group = from; group < code.length; group++) runCode(code[group]!, registers);
  };
}

/** The operations on which the results depend, found from the last one back. */
function neededCode(program: Program, results: readonly string[]): number[][] {
  const needed = new Set(results.map((name) => slotOf(program, name)));
  return program.code
    .toReversed()
    .map((group) => {
      const kept: number[] = [];
      for (let at = group.length - OP_SIZE; at >= 0; at -= OP_SIZE) {
        const result = at + OP_SIZE - 1;
        if (!needed.has(group[result]!)) continue;
        for (let operand = at + 1; operand < result; operand++) needed.add(group[operand]!);
        kept.push(at);
      }
      return kept.toReversed().flatMap((at) => group.slice(at, at + OP_SIZE));
    })
    .toReversed();
}

/** The interpreter; opcodes are the places in OPS. One loop without calls, since a search runs it a million times. */
function runCode(code: Int32Array, r: Float64Array): void {
  for (let i = 0; i < code.length; i += OP_SIZE) {
    const a = r[code[i + 1]!]!;
    const b = r[code[i + 2]!]!;
    let value: number;
    switch (code[i]!) {
      case 0:
        value = a + b;
        break;
      case 1:
        value = a - b;
        break;
      case 2:
        value = a * b;
        break;
      case 3:
        value = a / b;
        break;
      case 4:
        value = a > b ? a : b;
        break;
      case 5:
        value = a < b ? a : b;
        break;
      case 6:
        value = a ** b;
        break;
      case 7:
        value = a >= b ? 1 : 0;
        break;
      default:
        value = a === 0 ? r[code[i + 3]!]! : b;
    }
    r[code[i + 4]!] = value;
  }
}

function explain(
  byName: ReadonlyMap<string, InputRow | FormulaRow>,
  program: Program,
  name: string,
  registers: Float64Array,
): Quantity {
  const row = byName.get(name);
  invariant(row !== undefined, `the sheet has a row ${name}`);
  const names = "formula" in row ? new Set(tokenize(row.formula).filter((token) => byName.has(token))) : [];
  const inputs = [...names].map((input) => explain(byName, program, input, registers));
  return { ...row, value: registers[slotOf(program, name)]!, inputs };
}
