/** One process at a time in a run folder: what two of them write would mix. */

import { readdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { IoError } from "../core/errors.ts";
import { isLeftBehind, ownerName, parseOwner } from "../data/node.ts";
import { diskError } from "../formats/node.ts";

/** Begins a lock's name; the name of the process that holds it follows. */
const LOCK = "lock.";

/**
 * Claims an existing run folder for this process until the result is disposed. The lock of a process that was killed is
 * taken over. Each process first writes a lock of its own and then looks for others', so that of two that come at the
 * same time at most one goes on.
 *
 * @throws IoError when another process, or one on another machine, holds the folder, or the disk refuses.
 */
export function lockRun(folder: string): Disposable {
  const mine = `${LOCK}${ownerName()}`;
  writeLock(folder, mine);
  const release = (): void => rmSync(join(folder, mine), { force: true });
  try {
    for (const name of locksIn(folder).filter((name) => name !== mine)) {
      if (!isLeftBehind(name.slice(LOCK.length))) throw inUse(folder, name);
      rmSync(join(folder, name), { force: true });
    }
  } catch (error) {
    release();
    throw diskError(folder, "must be a writable folder", error);
  }
  return { [Symbol.dispose]: release };
}

function writeLock(folder: string, name: string): void {
  try {
    writeFileSync(join(folder, name), "", { flag: "wx" });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "EEXIST") throw inUse(folder, name);
    throw diskError(folder, "must be a writable folder", error);
  }
}

function locksIn(folder: string): string[] {
  return readdirSync(folder).filter(
    (name) => name.startsWith(LOCK) && parseOwner(name.slice(LOCK.length)) !== undefined,
  );
}

function inUse(folder: string, name: string): IoError {
  const { pid, host } = parseOwner(name.slice(LOCK.length))!;
  return new IoError(folder, "must be trained by one process at a time", {
    got: `process ${pid} on ${host}`,
    cure: `wait for that process or end it, or choose another folder; if it is gone for certain, delete ${join(folder, name)}`,
  });
}
