/** Keys of what is kept between runs. */

import { createHash } from "node:crypto";

/** The SHA-256 of a value's JSON in 64 hexadecimal digits. */
export function digest(value: unknown): string {
  return createHash("sha256").update(JSON.stringify(value)).digest("hex");
}
