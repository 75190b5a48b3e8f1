/** Files that appear whole or not at all. */

import * as fs from "node:fs";
import * as path from "node:path";
import { diskError, nodeFiles } from "../formats/node.ts";
import { isLeftBehind, ownerName } from "./owner.ts";

/** Begins the name of every unfinished folder; its owner's name follows. */
const UNFINISHED = ".tmp-";

/**
 * Runs `write` with a new, empty folder beside `target` and renames what it returns (a file in that folder, or the folder
 * itself) to `target`. Several processes may make the same target at once: each writes its own, one of them stays.
 * Nothing is left behind when `write` fails; what a killed process left beside `target` goes at the next call.
 *
 * @throws IoError when the disk refuses.
 */
export async function createWhole(target: string, write: (folder: string) => Promise<string>): Promise<void> {
  const parent = path.dirname(target);
  let folder: string | undefined;
  try {
    await nodeFiles.makeFolder(parent);
    removeLeftBehind(parent);
    folder = fs.mkdtempSync(path.join(parent, `${UNFINISHED}${ownerName()}.`));
    replace(await write(folder), target);
    if (process.platform !== "win32") syncPath(parent);
  } catch (error) {
    throw diskError(target, "must be writable", error);
  } finally {
    if (folder !== undefined) fs.rmSync(folder, { recursive: true, force: true });
  }
}

/** Deletes the unfinished work of processes that are gone. */
function removeLeftBehind(parent: string): void {
  for (const name of fs.readdirSync(parent)) {
    if (!name.startsWith(UNFINISHED) || !isLeftBehind(name.slice(UNFINISHED.length))) continue;
    fs.rmSync(path.join(parent, name), { recursive: true, force: true, maxRetries: 3 });
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
