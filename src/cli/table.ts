/** Tables for the terminal and in Markdown. */

/** Rows of cells under a head; columns after the first are aligned to the right unless `left` names them. */
export interface Table {
  readonly head: readonly string[];
  readonly rows: readonly (readonly string[])[];
  /** Columns, counted from 0, that hold text. */
  readonly left?: readonly number[];
}

export type TableFormat = "text" | "md";

export function formatTable({ head, rows, left = [0] }: Table, format: TableFormat): string {
  const isLeft = (column: number): boolean => left.includes(column);
  if (format === "md") {
    const rule = head.map((_, column) => (isLeft(column) ? "---" : "---:"));
    return [head, rule, ...rows].map((cells) => `| ${cells.join(" | ")} |`).join("\n");
  }
  const widths = head.map((_, column) => Math.max(...[head, ...rows].map((cells) => cells[column]!.length)));
  const line = (cells: readonly string[]): string =>
    cells
      .map((cell, column) => (isLeft(column) ? cell.padEnd(widths[column]!) : cell.padStart(widths[column]!)))
      .join("  ")
      .trimEnd();
  return [head, ...rows].map(line).join("\n");
}
