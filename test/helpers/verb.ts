/** A verb of the command line, run in this process. */

import type { Command } from "commander";
import { vi } from "vitest";

/** What the verb writes to standard output. */
export async function outputOf(verb: Command, ...words: string[]): Promise<string> {
  let output = "";
  const write = vi.spyOn(process.stdout, "write").mockImplementation((text) => {
    output += String(text);
    return true;
  });
  try {
    await verb.parseAsync(words, { from: "user" });
  } finally {
    write.mockRestore();
  }
  return output;
}
