/** A folder of launch files on the local disk: written whole, and replaced only where it is still what was written. */

import { createHash } from "node:crypto";
import { dirname, join, resolve } from "node:path";
import { IoError } from "../core/errors.ts";
import { readText, writeWhole, type FilePort } from "../formats/index.ts";
import type { LaunchFile } from "../planner/index.ts";

/** Names and digests of what an export wrote, by which a later one knows its own folder. */
const MANIFEST = ".fathom-export.json";

/**
 * Writes the files into a new folder beside `folder` and renames it.
 *
 * @throws IoError when `folder` holds anything but an unchanged earlier export.
 */
export async function writeLaunchFolder(port: FilePort, folder: string, files: readonly LaunchFile[]): Promise<void> {
  const target = resolve(folder);
  await checkOwn(port, target);
  const temporary = `${target}.tmp`;
  const manifest = JSON.stringify(Object.fromEntries(files.map(({ path, text }) => [path, digestOf(text)])), null, 2);
  await port.remove(temporary);
  try {
    await port.makeFolder(temporary);
    for (const { path, text } of [...files, { path: MANIFEST, text: `${manifest}\n` }]) {
      await writeWhole(port, join(temporary, path), [new TextEncoder().encode(text)]);
    }
    await replaceFolder(port, temporary, target);
  } catch (error) {
    await port.remove(temporary).catch(() => undefined);
    throw error;
  }
}

/** What stood there goes last: until then it is there under its own name or beside it. */
async function replaceFolder(port: FilePort, from: string, to: string): Promise<void> {
  const former = `${to}.old`;
  await port.remove(former);
  const names = await port.list(to).catch((): string[] => []);
  if (names.length > 0) await port.rename(to, former);
  await port.rename(from, to);
  await port.syncFolder(dirname(to));
  await port.remove(former);
}

function digestOf(text: string): string {
  return createHash("sha256").update(text).digest("hex");
}

const CURE = "choose another --out, or remove the folder yourself";

async function checkOwn(port: FilePort, folder: string): Promise<void> {
  if (await port.isFile(folder)) throw new IoError(folder, "must be a folder or absent", { got: "a file", cure: CURE });
  const names = await port.list(folder).catch((): string[] => []);
  if (names.length === 0) return;
  const rule = "must be absent, empty or an earlier export";
  if (!names.includes(MANIFEST)) throw new IoError(folder, rule, { got: `a folder with ${names[0]!}`, cure: CURE });
  const written = JSON.parse(await readText(port, join(folder, MANIFEST))) as Readonly<Record<string, string>>;
  for (const name of names.filter((each) => each !== MANIFEST)) {
    const path = join(folder, name);
    if (!Object.hasOwn(written, name)) throw new IoError(path, rule, { got: "a file of somebody else", cure: CURE });
    if (digestOf(await readText(port, path)) === written[name]) continue;
    throw new IoError(path, "must be as the earlier export wrote it", { got: "a changed file", cure: CURE });
  }
}
