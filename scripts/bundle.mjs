/**
 * Joins the compiled command line into few files: a verb that answers at once would wait longer for its hundred modules
 * than for its numbers. Each verb stays a file of its own, loaded when it is called; the rooms in `dist/` stay as they
 * are, for who imports them.
 */
import { mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join, relative, sep } from "node:path";

/** Small and needed by every verb; the other packages stay where npm has put them. */
const JOINED_PACKAGE = "commander";

/**
 * Replaces `dist/cli/` by the joined files, with source maps for `node --enable-source-maps`.
 * @param {string} dist
 * @param {readonly string[]} packages those that the program uses at run time
 */
export async function bundleCommandLine(dist, packages) {
  // Not installed yet when a fresh clone reads this file.
  const { build } = await import("esbuild");
  const folder = join(dist, "cli");
  const { outputFiles } = await build({
    entryPoints: [join(folder, "main.js")],
    outdir: folder,
    bundle: true,
    splitting: true,
    format: "esm",
    platform: "node",
    target: "node20",
    sourcemap: true,
    write: false,
    logLevel: "warning",
    external: packages.filter((name) => name !== JOINED_PACKAGE),
    // The joined package is CommonJS and asks for nothing but modules of Node.
    banner: { js: "const require = process.getBuiltinModule;" },
    plugins: [placesOf(folder)],
  });
  rmSync(folder, { recursive: true });
  mkdirSync(folder);
  for (const { path, contents } of outputFiles) writeFileSync(path, contents);
}

/**
 * Keeps `import.meta.url` the place of the module in which it stands: the native library is found from there.
 * @param {string} folder of the joined files
 * @returns {import("esbuild").Plugin}
 */
function placesOf(folder) {
  return {
    name: "places",
    setup: (build) =>
      build.onLoad({ filter: /\.js$/ }, ({ path }) => {
        const text = readFileSync(path, "utf8");
        if (!text.includes("import.meta.url")) return undefined;
        const place = `new URL(${JSON.stringify(relative(folder, path).split(sep).join("/"))}, import.meta.url).href`;
        return { contents: text.replaceAll("import.meta.url", place), resolveDir: dirname(path) };
      }),
  };
}
