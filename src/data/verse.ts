/** The form of Chinese regulated verse: two or four couplets whose lines all have five or all have seven characters. */

const COUPLET = /^(\p{Script=Han}+)[，？！；](\p{Script=Han}+)[。？！；]$/u;
const LINES_WITH_MARK = /\p{Script=Han}+[，。？！；]/gu;

export interface VerseForm {
  readonly lines: 4 | 8;
  /** Characters in every line. */
  readonly chars: 5 | 7;
}

/**
 * The form of a poem written one couplet per row (`白日依山盡，黃河入海流。`), or undefined when it is no regulated verse:
 * another number of lines, uneven lines, other characters than Han, or other marks than `，` (or `？！；`) in a couplet's
 * middle and `。` (or `？！；`) at its end. White space around the poem is allowed.
 */
export function verseForm(poem: string): VerseForm | undefined {
  const couplets = poem.trim().split("\n");
  const lengths = new Set<number>();
  for (const couplet of couplets) {
    const match = COUPLET.exec(couplet);
    if (match === null) return undefined;
    for (const line of match.slice(1)) lengths.add(Array.from(line).length);
  }
  const [chars] = lengths;
  const lines = couplets.length * 2;
  if (lengths.size !== 1 || (chars !== 5 && chars !== 7) || (lines !== 4 && lines !== 8)) return undefined;
  return { lines, chars };
}

/** The same text with one couplet per row, whatever its paragraphs were. */
export function asCouplets(paragraphs: readonly string[]): string {
  const text = paragraphs.join("");
  const lines = text.match(LINES_WITH_MARK) ?? [];
  if (lines.join("") !== text) return text;
  const rows: string[] = [];
  for (let i = 0; i < lines.length; i += 2) rows.push(lines.slice(i, i + 2).join(""));
  return rows.join("\n");
}
