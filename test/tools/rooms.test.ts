import { describe, expect, test } from "vitest";
import { checkRooms, doorExports, roomGraph } from "../../scripts/rooms.ts";

const FLOORS = { core: 0, formats: 1, model: 3, data: 3, cli: 7 };

/** A tree in which everything is in order. */
const SOUND = {
  "core/index.ts": `export * from "./errors.ts";`,
  "core/errors.ts": "",
  "formats/index.ts": `import type { FathomError } from "../core/errors.ts";\nexport * from "./gguf.ts";`,
  "formats/gguf.ts": "",
  "formats/node.ts": `import { readFileSync } from "node:fs";\nexport * from "./index.ts";`,
  "model/index.ts": `import {\n  parse,\n} from "../formats/index.ts";`,
  "data/node.ts": `export { open } from "../formats/node.ts";`,
  "cli/main.ts": `import { x } from "../model/index.ts";\nconst { y } = await import("../data/node.ts");`,
};

function problems(changes: Record<string, string>): string[] {
  return checkRooms(FLOORS, new Map(Object.entries({ ...SOUND, ...changes })));
}

describe("checkRooms", () => {
  test("finds nothing in a sound tree", () => {
    expect(problems({})).toEqual([]);
  });

  test("refuses an import that goes up or sideways, whatever its form", () => {
    expect(problems({ "formats/gguf.ts": `import { x } from "../model/index.ts";` })).toMatchInlineSnapshot(`
      [
        "src/formats/gguf.ts: formats (floor 1) may import lower floors only, got "../model/index.ts" (floor 3); hand it in as data or a function",
      ]
    `);
    for (const form of [
      `import type { X } from "../data/node.ts"`,
      `import "../data/node.ts"`,
      `export * from "../data/node.ts"`,
      `const x = await import("../data/node.ts")`,
      `new Worker(new URL("../data/node.ts", import.meta.url))`,
    ]) {
      expect(problems({ "model/load.ts": form })).toEqual([expect.stringContaining("may import lower floors only")]);
    }
  });

  test("refuses to enter a room other than by its doors, core excepted", () => {
    expect(problems({ "model/load.ts": `import { x } from "../formats/gguf.ts";` })).toMatchInlineSnapshot(`
      [
        "src/model/load.ts: formats may be entered by its doors only, got "../formats/gguf.ts"; export it from src/formats/index.ts",
      ]
    `);
    expect(problems({ "model/load.ts": `import { x } from "../core/errors.ts";` })).toEqual([]);
  });

  test("refuses an import that leaves src", () => {
    expect(problems({ "model/load.ts": `import manifest from "../../package.json";` })).toMatchInlineSnapshot(`
      [
        "src/model/load.ts: imports must stay inside src/, got "../../package.json"; hand it in instead",
      ]
    `);
  });

  test("refuses Node behind a browser door, at any depth", () => {
    expect(problems({ "formats/gguf.ts": `import { open } from "./files.ts";`, "formats/files.ts": `import "fs";` }))
      .toMatchInlineSnapshot(`
      [
        "src/formats/files.ts: what an index.ts door reaches must run in a browser, got "fs"; move it behind a node.ts door",
      ]
    `);
    expect(problems({ "model/index.ts": `import { x } from "../formats/node.ts";` })).toMatchInlineSnapshot(`
      [
        "src/model/index.ts: what an index.ts door reaches must run in a browser, got "../formats/node.ts"; move it behind a node.ts door",
      ]
    `);
  });

  test("refuses a folder without a row, a row without a folder, and a room without a door", () => {
    const { "data/node.ts": _, ...rest } = SOUND;
    expect(checkRooms(FLOORS, new Map(Object.entries({ ...rest, "cli/main.ts": "", "misc/a.ts": "" }))))
      .toMatchInlineSnapshot(`
      [
        "src/misc: every folder must have a row in scripts/rooms.ts, got none; add the room with its floor",
        "scripts/rooms.ts: every row must be a folder of src/, got data; remove the row",
        "src/misc: a room must have a door, got neither index.ts nor node.ts; add one",
      ]
    `);
  });

  test("does not take an example in a comment for an import", () => {
    expect(problems({ "model/load.ts": `/**\n * import { x } from "../cli/main.ts";\n */` })).toEqual([]);
  });
});

test("the graph lists what each room imports", () => {
  const graph = roomGraph(FLOORS, new Map(Object.entries(SOUND)));
  expect(Object.fromEntries(graph)).toEqual({
    core: [],
    formats: ["core"],
    model: ["formats"],
    data: ["formats"],
    cli: ["model", "data"],
  });
});

test("every door has its export", () => {
  expect(doorExports(FLOORS, new Map(Object.entries(SOUND)))).toEqual({
    "./core": "./dist/core/index.js",
    "./formats": "./dist/formats/index.js",
    "./formats/node": "./dist/formats/node.js",
    "./model": "./dist/model/index.js",
    "./data/node": "./dist/data/node.js",
  });
});
