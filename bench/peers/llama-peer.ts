/** llama.cpp's distributions, out of a process of its own. */

import { spawn } from "node:child_process";
import { once } from "node:events";
import { rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";

/**
 * The distribution after every token of each sequence, [tokens, vocabulary], while llama.cpp computes the next one.
 *
 * @param modules - a folder in which node-llama-cpp is installed.
 * @throws Error when llama.cpp ends otherwise than well, or its vocabulary has another size.
 */
export async function* llamaDistributions(
  modules: string,
  file: string,
  sequences: readonly (readonly number[])[],
  vocabulary: number,
): AsyncGenerator<Float32Array> {
  const list = `${file}.sequences`;
  writeFileSync(list, JSON.stringify(sequences));
  const script = join(import.meta.dirname, "llama_probabilities.mjs");
  const child = spawn(process.execPath, [script, modules, file, list], { stdio: ["ignore", "pipe", "inherit"] });
  const ended = once(child, "close") as Promise<[number | null]>;
  try {
    const read = byteReader(child.stdout);
    for (const { length } of sequences) yield new Float32Array((await read(4 * length * vocabulary)).buffer);
    if ((await read(1)).length > 0) throw new Error(`${file}: more than ${vocabulary} probabilities a token`);
    const [code] = await ended;
    if (code !== 0) throw new Error(`${file}: llama.cpp ended with ${code}`);
  } finally {
    child.kill();
    rmSync(list);
  }
}

/** Reads exactly `count` bytes, or none at the end. */
function byteReader(stream: AsyncIterable<Uint8Array>): (count: number) => Promise<Uint8Array> {
  const chunks = stream[Symbol.asyncIterator]();
  let rest: Uint8Array = new Uint8Array(0);
  return async (count) => {
    const out = new Uint8Array(count);
    for (let filled = 0; filled < count;) {
      if (rest.length === 0) {
        const { value, done } = await chunks.next();
        if (done !== true) rest = value;
        else if (filled === 0) return new Uint8Array(0);
        else throw new Error(`llama.cpp ended after ${filled} of ${count} bytes`);
      }
      const taken = rest.subarray(0, count - filled);
      out.set(taken, filled);
      filled += taken.length;
      rest = rest.subarray(taken.length);
    }
    return out;
  };
}
