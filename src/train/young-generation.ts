/** How much memory the JavaScript of long work takes. */

import { setFlagsFromString } from "node:v8";

/**
 * Keeps V8's young generation as small as it is now. Every training step leaves about a megabyte of short-lived objects,
 * for which V8 would let it grow to 48 MB over some hundred steps, although next to nothing in it is alive.
 */
export function keepYoungGenerationSmall(): void {
  setFlagsFromString("--semi-space-growth-factor=1");
}
