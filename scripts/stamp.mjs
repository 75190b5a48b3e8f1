/**
 * Work that is repeated only when its inputs change. A stamp file holds the hash of the inputs of the last finished
 * build; a lock file keeps two processes from building at once. Plain JavaScript: it runs before anything is installed.
 */
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync, utimesSync, writeFileSync } from "node:fs";
import { dirname, join, relative, sep } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";

/** A holder touches its lock this often; a lock untouched for six beats belongs to a process that is gone. */
const LOCK_BEAT_MS = 5_000;

/** An error for the person at the terminal, in the form `place: rule, got value; cure`. */
export class SetupError extends Error {}

/**
 * Every file below `folder` for which `accept` says yes, sorted.
 * @param {string} folder
 * @param {(path: string) => boolean} accept asked for folders too: a folder that it declines is not entered
 * @returns {string[]}
 */
export function listFiles(folder, accept) {
  const entries = readdirSync(folder, { withFileTypes: true });
  const paths = entries.flatMap((entry) => {
    const path = join(folder, entry.name);
    if (!accept(path)) return [];
    return entry.isDirectory() ? listFiles(path, accept) : [path];
  });
  return paths.toSorted();
}

/**
 * A hash over facts (versions, platform) and the names and bytes of files.
 * @param {string} root file names are taken relative to it, so that a moved checkout keeps its hash
 * @param {readonly string[]} files
 * @param {readonly string[]} facts
 */
export function hashInputs(root, files, facts) {
  const hash = createHash("sha256").update(JSON.stringify(facts));
  for (const file of files) {
    const bytes = readFileSync(file);
    hash.update(JSON.stringify([relative(root, file).split(sep).join("/"), bytes.length])).update(bytes);
  }
  return hash.digest("hex");
}

/**
 * Runs `build` unless the stamp holds `hash` and every result exists. The stamp is removed before the build and written
 * after it, so an interrupted build is repeated.
 * @param {{ stamp: string, hash: string, results: readonly string[], build: () => Promise<void> }} work
 * @returns {Promise<boolean>} whether it built
 */
export async function ensureBuilt({ stamp, hash, results, build }) {
  const fresh = existsSync(stamp) && readFileSync(stamp, "utf8") === hash && results.every((path) => existsSync(path));
  if (fresh) return false;
  rmSync(stamp, { force: true });
  await build();
  for (const path of results) {
    if (!existsSync(path)) throw new SetupError(`${path}: must exist after its build, got no such file`);
  }
  mkdirSync(dirname(stamp), { recursive: true });
  writeFileSync(stamp, hash);
  return true;
}

/**
 * Runs `work` while holding the lock file; waits while a live process holds it.
 * @template T
 * @param {string} path
 * @param {() => Promise<T>} work
 * @returns {Promise<T>}
 */
export async function withLock(path, work) {
  mkdirSync(dirname(path), { recursive: true });
  for (let waited = false; !takeLock(path); waited = true) {
    if (!waited) console.error("setup: waiting for another process that is building here");
    await sleep(200);
  }
  const beat = setInterval(() => touch(path), LOCK_BEAT_MS);
  try {
    return await work();
  } finally {
    clearInterval(beat);
    rmSync(path, { force: true });
  }
}

/**
 * @param {string} path
 * @returns {boolean}
 */
function takeLock(path) {
  try {
    writeFileSync(path, String(process.pid), { flag: "wx" });
    return true;
  } catch (error) {
    if (errorCode(error) !== "EEXIST") throw error;
    if (!isAbandoned(path)) return false;
    rmSync(path, { force: true });
    return takeLock(path);
  }
}

/** @param {string} path */
function isAbandoned(path) {
  try {
    const ageMs = Date.now() - statSync(path).mtimeMs;
    const holder = Number(readFileSync(path, "utf8"));
    return ageMs > 6 * LOCK_BEAT_MS || (holder > 0 && !isAlive(holder));
  } catch (error) {
    if (errorCode(error) === "ENOENT") return false;
    throw error;
  }
}

/** @param {number} pid */
function isAlive(pid) {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return errorCode(error) === "EPERM";
  }
}

/** @param {string} path */
function touch(path) {
  const now = new Date();
  if (existsSync(path)) utimesSync(path, now, now);
}

/** @param {unknown} error */
export function errorCode(error) {
  return error instanceof Error && "code" in error ? error.code : undefined;
}
