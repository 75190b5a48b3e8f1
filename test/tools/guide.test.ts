import { tmpdir } from "node:os";
import { expect, test } from "vitest";
import { renewPage, shell } from "../../scripts/guide.ts";

const page = (line: string): string => renewPage(`\`\`\`console\n$ ${line}\n\`\`\``, shell(tmpdir()));

test("a page shows both streams of a command and the exit code of one that fails", () => {
  expect(page("echo out; echo err >&2")).toBe("```console\n$ echo out; echo err >&2\nout\nerr\n```");
  expect(page("printf broken; exit 70")).toBe("```console\n$ printf broken; exit 70\nbroken\n(exit code 70)\n```");
  expect(page("false")).toBe("```console\n$ false\n(exit code 1)\n```");
});

test("the fence of a block is longer than one that a command prints, and such a page stays as it is", () => {
  const line = "printf '```sh\\nls\\n```\\n'";
  const renewed = page(line);
  expect(renewed).toBe(`\`\`\`\`console\n$ ${line}\n\`\`\`sh\nls\n\`\`\`\n\`\`\`\``);
  expect(renewPage(renewed, shell(tmpdir()))).toBe(renewed);
});
