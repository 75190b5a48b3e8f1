/** Disks that fail: full after some bytes, or gone with the process after some calls. */

import { IoError } from "../../src/core/errors.ts";
import type { FilePort } from "../../src/formats/index.ts";

/** Like `port`, but once `room` bytes are written in all, every write fails as on a full disk, a part of it done. */
export function fullAfter(port: FilePort, room: number): FilePort & { readonly written: number } {
  let written = 0;
  return {
    ...port,
    get written() {
      return written;
    },
    openWrite: async (path) => {
      const file = await port.openWrite(path);
      const write = async (bytes: Uint8Array): Promise<void> => {
        const fits = bytes.subarray(0, Math.max(0, room - written));
        await file.write(fits);
        written += fits.length;
        if (fits.length < bytes.length) {
          throw new IoError(path, "must be writable", { got: "ENOSPC", cure: "free some disk space" });
        }
      };
      return { ...file, write };
    },
  };
}

/** Like `port`, but after `calls` calls that change the disk every further one fails: the process is gone. */
export function diesAfter(port: FilePort, calls: number): FilePort & { readonly calls: number } {
  let done = 0;
  const alive = <T>(action: () => Promise<T>): Promise<T> =>
    done++ < calls ? action() : Promise.reject(new Error("killed"));
  return {
    ...port,
    get calls() {
      return done;
    },
    openWrite: async (path) => {
      const file = await alive(() => port.openWrite(path));
      return {
        write: (bytes) => alive(() => file.write(bytes)),
        sync: () => alive(() => file.sync()),
        // The system closes what a dead process held.
        close: () => file.close(),
      };
    },
    makeFolder: (path) => alive(() => port.makeFolder(path)),
    rename: (from, to) => alive(() => port.rename(from, to)),
    remove: (path) => alive(() => port.remove(path)),
    syncFolder: (path) => alive(() => port.syncFolder(path)),
  };
}
