/** The file port of Node. */

import { open, mkdir, readdir, rename, rm, stat, type FileHandle } from "node:fs/promises";
import { dirname } from "node:path";
import { diskError } from "./disk-error.ts";
import type { FilePort, ReadableFile, WritableFile } from "./file-port.ts";

/** @throws IoError in place of every error of the system. */
async function attempt<T>(path: string, rule: string, action: () => Promise<T>): Promise<T> {
  try {
    return await action();
  } catch (cause) {
    throw diskError(path, rule, cause);
  }
}

async function openRead(path: string): Promise<ReadableFile> {
  const handle = await attempt(path, "must be a readable file", () => open(path, "r"));
  const { size } = await attempt(path, "must be a readable file", () => handle.stat()).catch(async (error: unknown) => {
    await handle.close();
    throw error;
  });
  return {
    path,
    bytes: size,
    read: (offset, length) => attempt(path, "must be readable", () => readAt(handle, offset, length, size)),
    close: () => handle.close(),
  };
}

async function readAt(handle: FileHandle, offset: number, length: number, size: number): Promise<Uint8Array> {
  const bytes = new Uint8Array(Math.max(0, Math.min(length, size - offset)));
  let done = 0;
  while (done < bytes.length) {
    const { bytesRead } = await handle.read(bytes, done, bytes.length - done, offset + done);
    if (bytesRead === 0) return bytes.subarray(0, done);
    done += bytesRead;
  }
  return bytes;
}

async function openWrite(path: string): Promise<WritableFile> {
  const handle = await attempt(path, "must be a writable file", () => open(path, "w"));
  return {
    write: (bytes) => attempt(path, "must be writable", () => writeAll(handle, bytes)),
    sync: () => attempt(path, "must be writable", () => handle.sync()),
    close: () => attempt(path, "must be writable", () => handle.close()),
  };
}

async function writeAll(handle: FileHandle, bytes: Uint8Array): Promise<void> {
  let done = 0;
  while (done < bytes.length) done += (await handle.write(bytes, done, bytes.length - done)).bytesWritten;
}

async function isFile(path: string): Promise<boolean> {
  return stat(path).then(
    (found) => found.isFile(),
    () => false,
  );
}

async function isFolder(path: string): Promise<boolean> {
  return stat(path).then(
    (found) => found.isDirectory(),
    () => false,
  );
}

/** Node's own recursion never ends below a folder that exists and takes none, as those of /proc do. */
async function makeFolders(path: string): Promise<void> {
  try {
    await makeOne(path);
  } catch (error) {
    const parent = dirname(path);
    if ((error as NodeJS.ErrnoException).code !== "ENOENT" || parent === path) throw error;
    await makeFolders(parent);
    await makeOne(path);
  }
}

async function makeOne(path: string): Promise<void> {
  try {
    await mkdir(path);
  } catch (error) {
    if (!(await isFolder(path))) throw error;
  }
}

/** A folder can be synced on POSIX systems only; Windows keeps names safe by itself. */
async function syncFolder(path: string): Promise<void> {
  if (process.platform === "win32") return;
  const handle = await open(path, "r");
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

export const nodeFiles: FilePort = {
  openRead,
  openWrite,
  isFile,
  list: (folder) => attempt(folder, "must be a readable folder", async () => (await readdir(folder)).toSorted()),
  makeFolder: (path) => attempt(path, "must be a writable folder", () => makeFolders(path)),
  rename: (from, to) => attempt(to, "must be writable", () => rename(from, to)),
  remove: (path) => attempt(path, "must be removable", () => rm(path, { recursive: true, force: true })),
  syncFolder: (path) => attempt(path, "must be a writable folder", () => syncFolder(path)),
};
