/**
 * Makes the checkout ready to run: npm packages, the native library, the compiled TypeScript. Each of the three is done
 * again only when its inputs changed. Plain JavaScript without dependencies: it runs on a fresh clone.
 */
import { chmodSync, copyFileSync, readFileSync, renameSync, rmSync } from "node:fs";
import { homedir } from "node:os";
import { delimiter, dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { bundleCommandLine } from "./bundle.mjs";
import { runCollected } from "./child.mjs";
import { ensureBuilt, errorCode, hashInputs, listFiles, SetupError, withLock } from "./stamp.mjs";

export const root = dirname(dirname(fileURLToPath(import.meta.url)));

/**
 * The environment for cargo: rustup's folder as a last resort, and our own target folder whatever the user's settings say.
 * @type {NodeJS.ProcessEnv & { CARGO_TARGET_DIR: string }}
 */
export const cargoEnv = {
  ...process.env,
  PATH: `${process.env.PATH ?? ""}${delimiter}${join(homedir(), ".cargo", "bin")}`,
  CARGO_TARGET_DIR: join(root, "native", "target"),
};
delete cargoEnv.CARGO_BUILD_TARGET;

const stamps = join(root, ".fathom", "setup");
const native = join(root, "native");
const manifest = JSON.parse(readFileSync(join(root, "package.json"), "utf8"));

/** What a failed tool wrote, and what to do about it. */
const CURES = [
  {
    found: /ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ECONNRESET|ETIMEDOUT|ERR_SOCKET_TIMEOUT|E50[234]\b/,
    cure: "check the network and `npm config get registry`, then start again",
  },
  {
    found: /Could not resolve host|failed to download|download of .* failed|Couldn't connect|spurious network error/,
    cure: "check the network and the [source] and [registries] tables of ~/.cargo/config.toml, then start again",
  },
  {
    found: /linker `[^`]*` not found|link\.exe` not found/,
    cure: "install a C linker (Debian: apt-get install gcc; macOS: xcode-select --install; Windows: the Visual Studio build tools)",
  },
  { found: /ENOSPC|No space left on device/, cure: "free some disk space, then start again" },
  {
    found: /Cannot find package 'esbuild'|package "@esbuild\/[^"]*" could not be found/,
    cure: "delete node_modules, then start again: npm has left out a part of esbuild",
  },
  { found: /can only install packages when/, cure: "run `npm install` to bring package-lock.json up to date" },
];

/** Installs, builds and compiles what is missing or out of date. @throws SetupError with the cure */
export async function setup() {
  checkNode(process.versions.node, manifest.engines.node);
  await withLock(join(stamps, "lock"), async () => {
    await ensureInstalled();
    await ensureNative();
    await ensureTypeScript();
  });
}

/**
 * Runs the main function of a script: an expected error is one line, anything else keeps its stack; both end with code 1.
 * @param {() => Promise<number>} main returns the exit code
 */
export async function runMain(main) {
  try {
    process.exitCode = await main();
  } catch (error) {
    console.error(error instanceof SetupError ? error.message : error);
    process.exitCode = 1;
  }
}

/**
 * @param {string} version of the running Node
 * @param {string} range `>=MAJOR.MINOR`
 */
export function checkNode(version, range) {
  if (isOlder(version, range.replace(">=", ""))) {
    throw new SetupError(`node: must be ${range}, got ${version}; install a newer Node.js from https://nodejs.org`);
  }
}

/** Whether version `a` comes before `b`, by its numbers. @param {string} a @param {string} b */
function isOlder(a, b) {
  const left = numbersOf(a);
  for (const [i, number] of numbersOf(b).entries()) {
    if ((left[i] ?? 0) !== number) return (left[i] ?? 0) < number;
  }
  return false;
}

/** @param {string} version */
function numbersOf(version) {
  return version.split(".").map((part) => Number.parseInt(part, 10));
}

async function ensureInstalled() {
  const { dependencies, devDependencies, overrides } = manifest;
  const facts = [
    process.version,
    process.platform,
    process.arch,
    JSON.stringify({ dependencies, devDependencies, overrides }),
  ];
  await ensureBuilt({
    stamp: join(stamps, "install.stamp"),
    hash: hashInputs(root, [join(root, "package-lock.json")], facts),
    results: [join(root, "node_modules", ".package-lock.json")],
    build: async () => {
      say("installing the npm packages");
      const args = ["ci", "--include=dev", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=notice"];
      // npm is a script for cmd on Windows, and Node starts those only through a shell.
      await runTool("npm", args, { cwd: root, shell: process.platform === "win32" });
    },
  });
}

async function ensureNative() {
  const rustc = await findRust();
  const sources = listFiles(native, (path) => path !== cargoEnv.CARGO_TARGET_DIR && !path.endsWith(".node"));
  const library = join(native, "fathom.node");
  await ensureBuilt({
    stamp: join(stamps, "native.stamp"),
    hash: hashInputs(root, sources, [rustc]),
    results: [library],
    build: async () => {
      say("building the native kernels with cargo");
      await runTool("cargo", ["build", "--release", "--locked", "-p", "fathom-node"], { cwd: native, env: cargoEnv });
      replaceFile(join(cargoEnv.CARGO_TARGET_DIR, "release", libraryName(process.platform)), library);
    },
  });
}

/** The version of rustc in full. @throws SetupError when there is no Rust, or an old one */
async function findRust() {
  const needed = /rust-version = "([^"]+)"/.exec(readFileSync(join(native, "Cargo.toml"), "utf8"))?.[1] ?? "";
  const { output } = await runTool("rustc", ["--version", "--verbose"], { cwd: native, env: cargoEnv, echo: false });
  const version = /release: (\S+)/.exec(output)?.[1] ?? "";
  if (isOlder(version, needed)) {
    throw new SetupError(
      `rustc: must be >=${needed}, got ${version}; run \`rustup update\` or install from https://rustup.rs`,
    );
  }
  return output;
}

/** The file that cargo makes of a `cdylib`. @param {string} platform */
function libraryName(platform) {
  if (platform === "win32") return "fathom_node.dll";
  return platform === "darwin" ? "libfathom_node.dylib" : "libfathom_node.so";
}

/** Copies, then renames: a process that has the old library open keeps it whole. @param {string} from @param {string} to */
function replaceFile(from, to) {
  const part = `${to}.${process.pid}.node`;
  copyFileSync(from, part);
  renameSync(part, to);
}

async function ensureTypeScript() {
  const sources = listFiles(join(root, "src"), (path) => !path.endsWith(".test.ts"));
  const settings = ["tsconfig.json", "tsconfig.build.json", "package-lock.json", join("scripts", "bundle.mjs")].map(
    (name) => join(root, name),
  );
  const dist = join(root, "dist");
  const program = join(dist, "cli", "main.js");
  await ensureBuilt({
    stamp: join(stamps, "dist.stamp"),
    hash: hashInputs(root, [...sources, ...settings], []),
    results: [program],
    build: async () => {
      say("compiling the TypeScript");
      rmSync(dist, { recursive: true, force: true });
      await runTool(process.execPath, [toolPath("typescript", "tsc"), "-p", "tsconfig.build.json"], { cwd: root });
      await joinCommandLine(dist, Object.keys(manifest.dependencies));
      // npx does this for the first build that it meets, and for none after it.
      chmodSync(program, 0o755);
    },
  });
}

/**
 * `bundleCommandLine`, its failure as one line below what esbuild itself has said.
 * @param {string} dist
 * @param {readonly string[]} packages
 */
export async function joinCommandLine(dist, packages) {
  await bundleCommandLine(dist, packages).catch((error) => {
    const said = error instanceof Error ? error.message : String(error);
    const got = said.split(/:?\n/, 1)[0];
    throw new SetupError(`${join(dist, "cli")}: must be joined by esbuild, got ${got}; ${findCure(said)}`);
  });
}

/**
 * The script behind a command of an installed package.
 * @param {string} packageName
 * @param {string} command
 */
export function toolPath(packageName, command = packageName) {
  const folder = join(root, "node_modules", packageName);
  const { bin } = JSON.parse(readFileSync(join(folder, "package.json"), "utf8"));
  return join(folder, typeof bin === "string" ? bin : bin[command]);
}

/**
 * Runs a tool to its end. @throws SetupError when it is missing or fails, with the cure where its output tells it
 * @param {string} command
 * @param {readonly string[]} args
 * @param {{ cwd: string, env?: NodeJS.ProcessEnv, echo?: boolean, shell?: boolean }} options
 */
async function runTool(command, args, { echo = true, ...options }) {
  const call = [command === process.execPath ? "node" : command, ...args].join(" ");
  const ended = await runCollected(command, args, { ...options, echo }).catch((error) => {
    if (errorCode(error) === "ENOENT") throw new SetupError(missingTool(command));
    throw error;
  });
  if (ended.code === 0) return ended;
  if (!echo) process.stderr.write(ended.output);
  throw new SetupError(`${call}: must end with code 0, got ${ended.code}; ${findCure(ended.output)}`);
}

/** @param {string} command */
export function missingTool(command) {
  const place =
    command === "npm"
      ? "Node.js with npm from https://nodejs.org"
      : "Rust from https://rustup.rs and open a new terminal";
  return `${command}: must be on the PATH, got no such program; install ${place}`;
}

/** The cure for the first known complaint in the output of a failed tool. @param {string} output */
export function findCure(output) {
  return CURES.find(({ found }) => found.test(output))?.cure ?? "its own output above says why";
}

/** @param {string} text */
function say(text) {
  console.error(`setup: ${text}`);
}
