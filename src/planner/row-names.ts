/** Rows of a sheet by what people call them: `mfu`, `step time`, `tokens per day`. */

const wordsOf = (name: string): string[] => name.toLowerCase().split(/[^a-z0-9]+/);

/** The row that is printed under these words, if the labels have them; else as `findRowName`. */
export function findLabelled(
  names: readonly string[],
  labels: Readonly<Record<string, string>>,
  wanted: string,
): string | undefined {
  const text = wanted.trim().toLowerCase();
  const label = Object.keys(labels).find((printed) => printed.toLowerCase() === text);
  return label === undefined ? findRowName(names, wanted) : labels[label];
}

/** The row of this name, or the one row with all its words and the fewest others; undefined when there is none. */
export function findRowName(names: readonly string[], wanted: string): string | undefined {
  if (names.includes(wanted)) return wanted;
  const words = wordsOf(wanted);
  const rows = names
    .map((name) => ({ name, words: wordsOf(name) }))
    .filter((row) => words.every((word) => row.words.includes(word)));
  const fewest = Math.min(...rows.map((row) => row.words.length));
  const nearest = rows.filter((row) => row.words.length === fewest);
  return nearest.length === 1 ? nearest[0]!.name : undefined;
}
