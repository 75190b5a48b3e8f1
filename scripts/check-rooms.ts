/**
 * Checks the walls between the rooms and that the `exports` of package.json match their doors. `--print` shows the
 * graph, `--write` brings the `exports` up to date.
 */
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { checkRooms, doorExports, FLOORS, roomGraph } from "./rooms.ts";

const root = join(import.meta.dirname, "..");
const manifestPath = join(root, "package.json");

function readSources(): Map<string, string> {
  const folder = join(root, "src");
  const names = readdirSync(folder, { recursive: true, encoding: "utf8" }).map((name) => name.replaceAll("\\", "/"));
  const sources = names.filter((name) => name.endsWith(".ts") && !name.endsWith(".test.ts")).toSorted();
  return new Map(sources.map((name) => [name, readFileSync(join(folder, name), "utf8")]));
}

function readManifest(): Record<string, unknown> {
  return JSON.parse(readFileSync(manifestPath, "utf8")) as Record<string, unknown>;
}

function checkExports(expected: Record<string, string>): string[] {
  const found = readManifest()["exports"] ?? {};
  if (JSON.stringify(found) === JSON.stringify(expected)) return [];
  const cure = "run `npm run rooms -- --write`";
  return [`package.json: exports must match the doors of src/, got ${JSON.stringify(found)}; ${cure}`];
}

function writeExports(expected: Record<string, string>): void {
  const manifest = { ...readManifest(), exports: expected };
  writeFileSync(manifestPath, `${JSON.stringify(manifest, null, 2)}\n`);
}

function printGraph(graph: ReadonlyMap<string, readonly string[]>): void {
  for (const [room, entered] of graph) {
    console.log(`${String(FLOORS[room]).padStart(2)}  ${room.padEnd(10)} ${entered.join(" ")}`.trimEnd());
  }
}

const sources = readSources();
const expected = doorExports(FLOORS, sources);
if (process.argv.includes("--write")) writeExports(expected);
if (process.argv.includes("--print")) printGraph(roomGraph(FLOORS, sources));
const problems = [...checkRooms(FLOORS, sources), ...checkExports(expected)];
for (const problem of problems) console.error(problem);
process.exitCode = problems.length === 0 ? 0 : 1;
