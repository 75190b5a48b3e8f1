/** Python literals of plain values. */

export type Literal = string | number | boolean | null | readonly Literal[];

/** `True`, `None`, `"text"`, `[1, 2]`. JSON's strings are Python's, too. */
export function literal(value: Literal): string {
  if (value === null) return "None";
  if (typeof value === "boolean") return value ? "True" : "False";
  if (Array.isArray(value)) return `[${value.map(literal).join(", ")}]`;
  return JSON.stringify(value);
}
