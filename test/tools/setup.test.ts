import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { checkNode, findCure, joinCommandLine, missingTool } from "../../scripts/setup.mjs";

test("an old Node is refused with its version and the cure", () => {
  expect(() => checkNode("20.11.1", ">=20.12")).toThrowErrorMatchingInlineSnapshot(
    `[Error: node: must be >=20.12, got 20.11.1; install a newer Node.js from https://nodejs.org]`,
  );
  expect(() => checkNode("18.20.0", ">=20.12")).toThrow("got 18.20.0");
  for (const version of ["20.12.0", "20.20.2", "22.0.0"]) expect(() => checkNode(version, ">=20.12")).not.toThrow();
});

test("a missing tool is named together with the place to get it", () => {
  expect(missingTool("cargo")).toMatchInlineSnapshot(
    `"cargo: must be on the PATH, got no such program; install Rust from https://rustup.rs and open a new terminal"`,
  );
  expect(missingTool("npm")).toMatchInlineSnapshot(
    `"npm: must be on the PATH, got no such program; install Node.js with npm from https://nodejs.org"`,
  );
});

test("known complaints of npm and cargo lead to their cure", () => {
  const cures = [
    "npm error code ENOTFOUND\nnpm error network request to https://registry.npmjs.org/tsx failed",
    "error: failed to download from `https://index.crates.io/config.json`\n  [6] Could not resolve host: index.crates.io",
    "error: linker `cc` not found\n  = note: No such file or directory (os error 2)",
    "npm error code EUSAGE\nnpm error `npm ci` can only install packages when your package.json and lock are in sync",
    'The package "@esbuild/linux-x64" could not be found, and is needed by esbuild.',
    "error[E0425]: cannot find value `x` in this scope",
  ].map(findCure);
  expect(cures).toMatchInlineSnapshot(`
    [
      "check the network and \`npm config get registry\`, then start again",
      "check the network and the [source] and [registries] tables of ~/.cargo/config.toml, then start again",
      "install a C linker (Debian: apt-get install gcc; macOS: xcode-select --install; Windows: the Visual Studio build tools)",
      "run \`npm install\` to bring package-lock.json up to date",
      "delete node_modules, then start again: npm has left out a part of esbuild",
      "its own output above says why",
    ]
  `);
});

test("a command line that cannot be joined is one line with its place and a cure", async () => {
  const dist = mkdtempSync(join(tmpdir(), "fathom-setup-"));
  try {
    await expect(joinCommandLine(dist, [])).rejects.toThrow(
      `${join(dist, "cli")}: must be joined by esbuild, got Build failed with 1 error; its own output above says why`,
    );
  } finally {
    rmSync(dist, { recursive: true });
  }
});
