/** Files that appear whole or not at all, and file system errors in Fathom's words. */

import * as fs from "node:fs";
import * as path from "node:path";
import { FathomError, IoError } from "../core/errors.ts";

/** The same failure as an IoError; an error of Fathom's own family stays as it is. */
export function asIoError(place: string, rule: string, cause: unknown): FathomError {
  if (cause instanceof FathomError) return cause;
  const { code, message } = cause as NodeJS.ErrnoException;
  const cure = code === "ENOSPC" ? "free some disk space and run again" : undefined;
  return new IoError(place, rule, { got: code ?? message, cause, ...(cure === undefined ? {} : { cure }) });
}

/**
 * Runs `write` with a new, empty folder beside `target` and renames what it returns (a file in that folder, or the folder
 * itself) to `target`. Several processes may make the same target at once: each writes its own, one of them stays.
 * Nothing is left behind when `write` fails.
 */
export async function createWhole(target: string, write: (folder: string) => Promise<string>): Promise<void> {
  const parent = path.dirname(target);
  let folder: string | undefined;
  try {
    fs.mkdirSync(parent, { recursive: true });
    folder = fs.mkdtempSync(path.join(parent, ".tmp-"));
    replace(await write(folder), target);
    if (process.platform !== "win32") syncPath(parent);
  } catch (error) {
    throw asIoError(target, "must be writable", error);
  } finally {
    if (folder !== undefined) fs.rmSync(folder, { recursive: true, force: true });
  }
}

/** A folder can not replace one that another process has put there meanwhile; that one is as good. */
function replace(from: string, target: string): void {
  try {
    fs.renameSync(from, target);
  } catch (error) {
    if (!fs.existsSync(target)) throw error;
  }
}

/** Waits until a file, or (not on Windows) the names in a folder, are on the disk. */
export function syncPath(target: string): void {
  const fd = fs.openSync(target, "r");
  try {
    fs.fsyncSync(fd);
  } finally {
    fs.closeSync(fd);
  }
}
