/**
 * The walls between the rooms of `src/`. A room is a folder and stands on a floor; its imports go down only and enter
 * other rooms by their doors: `index.ts` (runs anywhere, browser included) and `node.ts` (adds files, workers, native
 * code). Everything here is a function of the table and of the texts of the files.
 */
import { builtinModules } from "node:module";
import { posix } from "node:path";

/** Every room of `src/` and its floor. */
export const FLOORS: Readonly<Record<string, number>> = {
  core: 0,
  config: 1,
  formats: 1,
  kernels: 1,
  blueprint: 2,
  tensor: 2,
  tokenizer: 2,
  planner: 3,
  convert: 3,
  model: 3,
  data: 3,
  optim: 3,
  train: 5,
  infer: 5,
  tune: 6,
  evaluate: 6,
  cli: 7,
};

const DOORS: readonly string[] = ["index.ts", "node.ts"];

/** The door of a room that is a program: nothing may import it. */
const PROGRAM = "main.ts";

/** Path below `src/` (`model/mla.ts`) → text. */
type Sources = ReadonlyMap<string, string>;

interface Import {
  readonly from: string;
  readonly specifier: string;
  /** Path below `src/` for a relative import, undefined for a package. */
  readonly to: string | undefined;
}

/** Every broken wall as one sentence, `place: rule, got value; cure`, or none. */
export function checkRooms(floors: Readonly<Record<string, number>>, sources: Sources): string[] {
  const imports = [...sources].flatMap(([path, text]) => importsOf(path, text));
  return [
    ...checkTable(floors, sources),
    ...imports.flatMap((link) => checkWall(floors, link)),
    ...checkBrowserSafe(sources, imports),
  ];
}

/** For each room the rooms that it imports, in the order of the table. */
export function roomGraph(floors: Readonly<Record<string, number>>, sources: Sources): Map<string, string[]> {
  const rooms = Object.keys(floors);
  const imports = [...sources].flatMap(([path, text]) => importsOf(path, text));
  const enters = (room: string, other: string) =>
    imports.some(({ from, to }) => roomOf(from) === room && to !== undefined && roomOf(to) === other);
  return new Map(rooms.map((room) => [room, rooms.filter((other) => other !== room && enters(room, other))]));
}

/** The `exports` of package.json that the doors ask for: `./ROOM` and `./ROOM/node`. */
export function doorExports(floors: Readonly<Record<string, number>>, sources: Sources): Record<string, string> {
  const entries = Object.keys(floors).flatMap((room) => [
    ...(sources.has(`${room}/index.ts`) ? [[`./${room}`, `./dist/${room}/index.js`]] : []),
    ...(sources.has(`${room}/node.ts`) ? [[`./${room}/node`, `./dist/${room}/node.js`]] : []),
  ]);
  return Object.fromEntries(entries);
}

function checkTable(floors: Readonly<Record<string, number>>, sources: Sources): string[] {
  const folders = new Set([...sources.keys()].map(roomOf));
  const unlisted = [...folders]
    .filter((room) => floors[room] === undefined)
    .map(
      (room) => `src/${room}: every folder must have a row in scripts/rooms.ts, got none; add the room with its floor`,
    );
  const empty = Object.keys(floors)
    .filter((room) => !folders.has(room))
    .map((room) => `scripts/rooms.ts: every row must be a folder of src/, got ${room}; remove the row`);
  const closed = [...folders]
    .filter((room) => ![...DOORS, PROGRAM].some((door) => sources.has(`${room}/${door}`)))
    .map((room) => `src/${room}: a room must have a door, got neither index.ts nor node.ts; add one`);
  return [...unlisted, ...empty, ...closed];
}

function checkWall(floors: Readonly<Record<string, number>>, { from, specifier, to }: Import): string[] {
  if (to === undefined) return [];
  const place = `src/${from}`;
  if (to.startsWith("../")) return [`${place}: imports must stay inside src/, got "${specifier}"; hand it in instead`];
  const [room, other] = [roomOf(from), roomOf(to)];
  const [floor, otherFloor] = [floors[room], floors[other]];
  if (room === other || floor === undefined || otherFloor === undefined) return [];
  if (otherFloor >= floor) {
    const rule = `${room} (floor ${floor}) may import lower floors only`;
    return [`${place}: ${rule}, got "${specifier}" (floor ${otherFloor}); hand it in as data or a function`];
  }
  const door = DOORS.includes(to.slice(other.length + 1));
  const coreFile = other === "core" && to.split("/").length === 2;
  if (door || coreFile) return [];
  return [
    `${place}: ${other} may be entered by its doors only, got "${specifier}"; export it from src/${other}/index.ts`,
  ];
}

/** What an `index.ts` door reaches must run in a browser. */
function checkBrowserSafe(sources: Sources, imports: readonly Import[]): string[] {
  const reached = new Set([...sources.keys()].filter((path) => posix.basename(path) === "index.ts" && isDoor(path)));
  const problems: string[] = [];
  for (const path of reached) {
    for (const { specifier, to } of imports.filter((link) => link.from === path)) {
      if (isNodeOnly(specifier, to)) {
        const rule = "what an index.ts door reaches must run in a browser";
        problems.push(`src/${path}: ${rule}, got "${specifier}"; move it behind a node.ts door`);
      } else if (to !== undefined && sources.has(to)) {
        reached.add(to);
      }
    }
  }
  return problems;
}

function isNodeOnly(specifier: string, to: string | undefined): boolean {
  if (to !== undefined) return isDoor(to) && posix.basename(to) === "node.ts";
  return specifier.startsWith("node:") || builtinModules.includes(specifier);
}

function isDoor(path: string): boolean {
  return path.split("/").length === 2 && DOORS.includes(posix.basename(path));
}

function roomOf(path: string): string {
  return path.split("/")[0]!;
}

/** `import … from`, `export … from`, `import "…"` at the head of a line; `import("…")` and `new URL("…", import.meta.url)` anywhere. */
const IMPORT_FORMS: readonly RegExp[] = [
  /^\s*(?:import|export)\b[^;'"]*?\bfrom\s*["']([^"']+)["']/gm,
  /^\s*import\s*["']([^"']+)["']/gm,
  /\bimport\(\s*["']([^"']+)["']/g,
  /\bnew URL\(\s*["']([^"']+\.ts)["']\s*,\s*import\.meta\.url/g,
];

function importsOf(from: string, text: string): Import[] {
  return IMPORT_FORMS.flatMap((form) => [...text.matchAll(form)]).map(([, specifier = ""]) => {
    const to = specifier.startsWith(".") ? posix.normalize(posix.join(posix.dirname(from), specifier)) : undefined;
    return { from, specifier, to };
  });
}
