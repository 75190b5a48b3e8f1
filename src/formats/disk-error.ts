/** File system errors in Fathom's words. */

import { FathomError, IoError } from "../core/errors.ts";

const CURES: Readonly<Record<string, string>> = {
  ENOSPC: "free some disk space",
  EDQUOT: "free some of your disk quota",
  EFBIG: "raise the limit on file size",
  ENOENT: "check the path",
  ENOTDIR: "choose a path below folders only",
  EACCES: "check the permissions",
  EPERM: "check the permissions",
  EROFS: "choose a folder on a writable disk",
};

/** The same failure as an IoError with its cure; an error of Fathom's own family stays as it is. */
export function diskError(path: string, rule: string, cause: unknown): FathomError {
  if (cause instanceof FathomError) return cause;
  const { code, message } = cause as NodeJS.ErrnoException;
  return new IoError(
    path,
    rule,
    code === undefined ? { got: message, cause } : { got: code, cure: CURES[code] ?? message, cause },
  );
}
