/**
 * Prints how long files and functions are, by folder. It reads indentation, not syntax: in formatted code the line that
 * closes a function has the indentation of the line that opens it.
 */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";

const root = join(import.meta.dirname, "..");
const FOLDERS = ["src", "test", "scripts", "bench", "examples", "native"];
const OPENING = [
  /^(\s*)(?:export )?(?:default )?(?:async )?function\b.*/,
  /^(\s*)(?:(?:public|private|protected|static|override|async|get|set) )*[#\w[\].]+(?:<.*>)?\(.*\).* \{$/,
  /^(\s*)(?:export )?(?:const|let) \w+ = (?:async )?\(.*=> [{(]?$/,
  /^(\s*)(?:pub(?:\(\w+\))? )?(?:unsafe )?(?:extern "C" )?fn \w+.*/,
];
const NOT_A_FUNCTION = /^\s*(?:if|for|while|switch|catch|with|return|match|loop)\b/;

interface Piece {
  readonly name: string;
  readonly lines: number;
}

function listSources(folder: string): string[] {
  return readdirSync(join(root, folder), { withFileTypes: true }).flatMap((entry) => {
    const path = join(folder, entry.name);
    if (entry.isDirectory()) return entry.name === "target" ? [] : listSources(path);
    return /\.(ts|mjs|rs)$/.test(path) ? [path] : [];
  });
}

function functionsOf(path: string, lines: readonly string[]): Piece[] {
  return lines.flatMap((line, start) => {
    const indent = NOT_A_FUNCTION.test(line) ? undefined : OPENING.map((form) => form.exec(line)?.[1]).find(isText);
    if (indent === undefined || line.endsWith(";") || line.endsWith("}")) return [];
    const end = lines.findIndex((other, i) => i > start && other.startsWith(`${indent}}`) && !other.endsWith("{"));
    return end < 0 ? [] : [{ name: `${path}:${start + 1}`, lines: end - start + 1 }];
  });
}

function isText(value: string | undefined): value is string {
  return value !== undefined;
}

function describe(label: string, pieces: readonly Piece[]): string {
  const sorted = pieces.map((piece) => piece.lines).toSorted((a, b) => a - b);
  const at = (share: number) => String(sorted[Math.floor(share * (sorted.length - 1))] ?? 0).padStart(5);
  const total = sorted.reduce((sum, lines) => sum + lines, 0);
  const counts = `${String(sorted.length).padStart(6)} ${String(total).padStart(8)}`;
  return `${label.padEnd(20)} ${counts} ${at(0.5)} ${at(0.9)} ${at(0.95)} ${at(1)}`;
}

function printLongest(title: string, pieces: readonly Piece[]): void {
  console.log(`\n${title}`);
  for (const piece of pieces.toSorted((a, b) => b.lines - a.lines).slice(0, 10)) {
    console.log(`${String(piece.lines).padStart(6)}  ${piece.name}`);
  }
}

const present = readdirSync(root);
const paths = FOLDERS.filter((folder) => present.includes(folder)).flatMap(listSources);
const texts = new Map(paths.map((path) => [path, readFileSync(join(root, path), "utf8").trimEnd().split("\n")]));
const files = paths.map((name) => ({ name, lines: texts.get(name)!.length }));
const functions = paths.flatMap((path) => functionsOf(path, texts.get(path)!));
const groups = [...new Set(paths.map((path) => path.split(/[\\/]/).slice(0, -1).slice(0, 2).join("/")))];

console.log(`${"".padEnd(20)} ${"count".padStart(6)} ${"lines".padStart(8)} ${"p50".padStart(5)}   p90   p95   max`);
for (const group of groups) {
  const inside = (piece: Piece) => piece.name.replaceAll("\\", "/").startsWith(`${group}/`);
  console.log(describe(group, files.filter(inside)));
  console.log(describe("  functions", functions.filter(inside)));
}
console.log(describe("all files", files));
console.log(describe("all functions", functions));
printLongest("longest files", files);
printLongest("longest functions", functions);
