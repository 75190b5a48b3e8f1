import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readdirSync, realpathSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { afterEach, expect, test } from "vitest";
import { bundleCommandLine } from "../../scripts/bundle.mjs";

const dist = realpathSync(mkdtempSync(join(tmpdir(), "fathom-bundle-")));

afterEach(() => rmSync(dist, { recursive: true }));

function write(path: string, text: string): void {
  mkdirSync(join(dist, path, ".."), { recursive: true });
  writeFileSync(join(dist, path), text);
}

test("joined modules run as they did apart, each verb when it is called and each knowing its own place", async () => {
  write("package.json", '{ "type": "module" }');
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
