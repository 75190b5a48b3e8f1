import { spawnSync } from "node:child_process";
import { expect, test } from "vitest";
import { isLeftBehind, ownerName, parseOwner } from "./owner.ts";

/** The name of a process that has ended. */
function goneName(): string {
  const { pid } = spawnSync(process.execPath, ["-e", ""]);
  const { start, host } = parseOwner(ownerName())!;
  return `${pid}.${start}.${host}`;
}

test("an owner's name is read back from the beginning of a file's name", () => {
  const { pid, host } = parseOwner(`${ownerName()}.x7Yz`)!;
  expect(pid).toBe(process.pid);
  expect(host).toMatch(/^[\w-]+$/);
  expect(parseOwner("x7Yz")).toBeUndefined();
});

test("only what a process of this machine left that is gone is left behind", () => {
  const { host } = parseOwner(ownerName())!;
  expect(isLeftBehind(goneName())).toBe(true);
  expect(isLeftBehind(`${goneName()}.x7Yz`)).toBe(true);
  expect(isLeftBehind(ownerName())).toBe(false);
  expect(isLeftBehind(goneName().replace(host, `${host}-other`))).toBe(false);
  expect(isLeftBehind("x7Yz")).toBe(false);
});

test("a process that got the number of one that is gone is not taken for it", () => {
  const { pid, start, host } = parseOwner(ownerName())!;
  // Where the system does not tell when a process began, its number is all there is.
  expect(isLeftBehind(`${pid}.${Number(start) - 1}.${host}`)).toBe(start !== "0");
});
