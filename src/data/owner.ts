/** Names that tell which process a file belongs to, so that what a killed one left behind is known from work in progress. */

import { readFileSync } from "node:fs";
import { hostname } from "node:os";

export interface Owner {
  readonly pid: number;
  /** When the process began, in the system's own count; "0" where the system does not tell. */
  readonly start: string;
  /** The machine's name with `_` for what a file name may not hold. */
  readonly host: string;
}

const UNKNOWN = "0";

/** `PID.START.HOST` of this process, fit to be a part of a file name. */
export function ownerName(): string {
  return `${process.pid}.${startOf(process.pid) ?? UNKNOWN}.${thisHost()}`;
}

/** The owner whose name `text` begins with, or undefined when it begins with none. */
export function parseOwner(text: string): Owner | undefined {
  const match = /^(\d+)\.(\d+)\.([\w-]+)/.exec(text);
  return match === null ? undefined : { pid: Number(match[1]), start: match[2]!, host: match[3]! };
}

/** Whether `text` begins with the name of a process of this machine that is gone. Of other machines nothing is known. */
export function isLeftBehind(text: string): boolean {
  const owner = parseOwner(text);
  return owner !== undefined && owner.host === thisHost() && !isAlive(owner);
}

function thisHost(): string {
  return hostname().replaceAll(/[^\w-]/g, "_") || "_";
}

/** A number that has been given to another process since is told by that one's start. */
function isAlive({ pid, start }: Owner): boolean {
  try {
    process.kill(pid, 0);
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "EPERM";
  }
  const now = startOf(pid);
  return now === undefined || start === UNKNOWN || now === start;
}

/** Clock ticks from the machine's start to the process's, which Linux tells in the 22nd field of its `stat`. */
function startOf(pid: number): string | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "latin1");
    // The second field, the program's name, may hold spaces; the third follows its bracket.
    return stat.slice(stat.lastIndexOf(")") + 2).split(" ")[19];
  } catch {
    return undefined;
  }
}
