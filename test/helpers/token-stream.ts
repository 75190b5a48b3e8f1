/** Token streams in memory. */

import type { TokenStream } from "../../src/data/index.ts";

/** Documents joined; each should begin with BOS and end with EOS. */
export function memoryStream(documents: readonly (readonly number[])[]): TokenStream {
  const tokens = Int32Array.from(documents.flat());
  const starts: number[] = [];
  let at = 0;
  for (const { length } of documents) {
    starts.push(at);
    at += length;
  }
  return {
    length: tokens.length,
    read: (start, count) => tokens.slice(start, start + count),
    documentStarts: (from, to) => starts.filter((start) => start >= from && start < to),
  };
}
