import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readdirSync, realpathSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { afterEach, beforeEach, expect, test } from "vitest";
import { bundleCommandLine } from "../../scripts/bundle.mjs";

let dist: string;
beforeEach(() => {
  dist = realpathSync(mkdtempSync(join(tmpdir(), "fathom-bundle-")));
  write("package.json", '{ "type": "module" }');
});
afterEach(() => rmSync(dist, { recursive: true }));

function write(path: string, text: string): void {
  mkdirSync(join(dist, path, ".."), { recursive: true });
  writeFileSync(join(dist, path), text);
}

test("joined modules run as they did apart, each verb when it is called and each knowing its own place", async () => {
  write("room/place.js", "export class Place {}\nexport const place = import.meta.url;\n");
  write(
    "cli/verb.js",
    'import { Place, place } from "../room/place.js";\nexport const run = () => console.log(place, Place.name);\n',
  );
  write("cli/other.js", 'console.log("other");\n');
  write(
    "cli/main.js",
    'import { Place } from "../room/place.js";\n' +
      'if (process.argv[2] === "other") await import("./other.js");\n' +
      'else { (await import("./verb.js")).run(); console.log(Place.name); }\n',
  );
  const main = join(dist, "cli", "main.js");
  const run = (verb: string): string => execFileSync(process.execPath, [main, verb], { encoding: "utf8" });
  const apart = run("verb");
  expect(apart).toBe(`${pathToFileURL(join(dist, "room", "place.js")).href} Place\nPlace\n`);

  await bundleCommandLine(dist, []);
  expect(readdirSync(join(dist, "cli"))).not.toContain("verb.js");
  expect(run("verb")).toBe(apart);
  expect(run("other")).toBe("other\n");
});

test("the joined package brings the modules of Node that it requires; another one is loaded from where it is", async () => {
  const joined = join(dist, "node_modules", "commander");
  write("node_modules/commander/package.json", '{ "main": "index.js" }');
  write("node_modules/commander/index.js", 'exports.Emitter = require("node:events").EventEmitter;\n');
  write("node_modules/apart/package.json", '{ "main": "index.js" }');
  write("node_modules/apart/index.js", 'exports.say = () => console.log("as installed");\n');
  write(
    "cli/main.js",
    'import { Emitter } from "commander";\n' +
      'import { say } from "apart";\n' +
      'new Emitter().on("call", say).emit("call");\n',
  );
  const run = (): string => execFileSync(process.execPath, [join(dist, "cli", "main.js")], { encoding: "utf8" });
  expect(run()).toBe("as installed\n");

  await bundleCommandLine(dist, ["commander", "apart"]);
  rmSync(joined, { recursive: true });
  expect(run()).toBe("as installed\n");
  write("node_modules/apart/index.js", 'exports.say = () => console.log("as changed");\n');
  expect(run()).toBe("as changed\n");
});
