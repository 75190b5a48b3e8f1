import { existsSync, mkdirSync, mkdtempSync, rmSync, utimesSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { ensureBuilt, hashInputs, listFiles, withLock } from "../../scripts/stamp.mjs";

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "fathom-stamp-"));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

/** A build that counts its runs and writes one result. */
function countingBuild() {
  const result = join(folder, "out", "result");
  const work = { builds: 0, result, run: (hash: string) => ensureBuilt({ stamp, hash, results: [result], build }) };
  const stamp = join(folder, "stamps", "result.stamp");
  const build = async () => {
    work.builds++;
    mkdirSync(join(folder, "out"), { recursive: true });
    writeFileSync(result, "made");
  };
  return work;
}

describe("ensureBuilt", () => {
  test("builds once while the inputs stay the same", async () => {
    const work = countingBuild();
    expect([await work.run("a"), await work.run("a"), await work.run("b")]).toEqual([true, false, true]);
    expect(work.builds).toBe(2);
  });

  test("builds again when a result was deleted", async () => {
    const work = countingBuild();
    await work.run("a");
    rmSync(work.result);
    expect(await work.run("a")).toBe(true);
  });

  test("leaves no stamp behind a failed build", async () => {
    const stamp = join(folder, "failed.stamp");
    writeFileSync(stamp, "old");
    const build = () => Promise.reject(new Error("compiler says no"));
    await expect(ensureBuilt({ stamp, hash: "new", results: [], build })).rejects.toThrow("compiler says no");
    expect(existsSync(stamp)).toBe(false);
  });

  test("refuses a build that did not make its result", async () => {
    const work = { stamp: join(folder, "stamp"), hash: "a", results: [join(folder, "missing")], build: async () => {} };
    await expect(ensureBuilt(work)).rejects.toThrow(/missing: must exist after its build, got no such file$/);
  });
});

describe("hashInputs", () => {
  test("depends on names, bytes and facts, and not on the place of the checkout", () => {
    const hashes = ["one", "two"].map((name) => {
      const root = join(folder, name);
      mkdirSync(root);
      writeFileSync(join(root, "a.rs"), "fn a() {}");
      return hashInputs(root, [join(root, "a.rs")], ["rustc 1"]);
    });
    expect(hashes[0]).toBe(hashes[1]);
    const root = join(folder, "one");
    const file = join(root, "a.rs");
    writeFileSync(join(root, "b.rs"), "fn a() {}");
    writeFileSync(join(folder, "two", "a.rs"), "fn b() {}");
    expect(hashInputs(root, [file], ["rustc 2"])).not.toBe(hashes[0]);
    expect(hashInputs(root, [join(root, "b.rs")], ["rustc 1"])).not.toBe(hashes[0]);
    expect(hashInputs(join(folder, "two"), [join(folder, "two", "a.rs")], ["rustc 1"])).not.toBe(hashes[0]);
  });
});

test("listFiles is sorted and does not enter a declined folder", () => {
  mkdirSync(join(folder, "target"));
  for (const name of ["target/x.rs", "b.rs", "a.rs"]) writeFileSync(join(folder, name), "");
  expect(listFiles(folder, (path) => !path.endsWith("target"))).toEqual([join(folder, "a.rs"), join(folder, "b.rs")]);
});

describe("withLock", () => {
  test("lets one in at a time and the next one after it", async () => {
    const lock = join(folder, "lock");
    const events: string[] = [];
    let finishFirst = () => {};
    const first = withLock(lock, async () => {
      events.push("first in");
      await new Promise<void>((resolve) => (finishFirst = resolve));
      events.push("first out");
    });
    const second = withLock(lock, async () => events.push("second in"));
    finishFirst();
    await Promise.all([first, second]);
    expect(events).toEqual(["first in", "first out", "second in"]);
    expect(existsSync(lock)).toBe(false);
  });

  test("opens the lock of a dead process and one that nobody touches any more", async () => {
    const lock = join(folder, "lock");
    writeFileSync(lock, "999999999");
    expect(await withLock(lock, async () => "dead")).toBe("dead");
    writeFileSync(lock, String(process.pid));
    utimesSync(lock, new Date(0), new Date(0));
    expect(await withLock(lock, async () => "old")).toBe("old");
  });
});
