/**
 * A weight as rows of f32 that are made when they are asked for, and how rows are put together from others. Nothing here
 * holds a whole matrix, so that a checkpoint of any size passes through little memory.
 */

/** A tensor of any rank seen as a matrix: its last axis are the columns, all others the rows. */
export interface WeightRows {
  readonly rows: number;
  readonly columns: number;
  /** `[count, columns]` f32: rows [first, first + count). The array is the caller's. */
  read(first: number, count: number): Promise<Float32Array>;
}

/** Rows of a tensor with this shape; a scalar or a vector is one row. */
export function matrixShape(shape: readonly number[]): { rows: number; columns: number } {
  return { rows: shape.slice(0, -1).reduce((product, n) => product * n, 1), columns: shape.at(-1) ?? 1 };
}

/** Parts of equal width one below the other. */
export function stackRows(parts: readonly WeightRows[]): WeightRows {
  const { columns } = parts[0]!;
  const rows = parts.reduce((sum, part) => sum + part.rows, 0);
  return {
    rows,
    columns,
    read: async (first, count) => {
      const out = new Float32Array(count * columns);
      let start = 0;
      for (const part of parts) {
        const from = Math.max(first, start);
        const end = Math.min(first + count, start + part.rows);
        if (from < end) out.set(await part.read(from - start, end - from), (from - first) * columns);
        start += part.rows;
      }
      return out;
    },
  };
}

/** `count` rows from `first` on. */
export function sliceRows(whole: WeightRows, first: number, count: number): WeightRows {
  return { rows: count, columns: whole.columns, read: (from, n) => whole.read(first + from, n) };
}

/** Columns [first, first + count). */
export function sliceColumns(whole: WeightRows, first: number, columns: number): WeightRows {
  return {
    rows: whole.rows,
    columns,
    read: async (from, count) => {
      const wide = await whole.read(from, count);
      const out = new Float32Array(count * columns);
      for (let row = 0; row < count; row++) {
        const start = row * whole.columns + first;
        out.set(wide.subarray(start, start + columns), row * columns);
      }
      return out;
    },
  };
}

/** Parts of equal height side by side. */
export function joinColumns(parts: readonly WeightRows[]): WeightRows {
  const columns = parts.reduce((sum, part) => sum + part.columns, 0);
  return {
    rows: parts[0]!.rows,
    columns,
    read: async (first, count) => {
      const out = new Float32Array(count * columns);
      let left = 0;
      for (const part of parts) {
        const narrow = await part.read(first, count);
        for (let row = 0; row < count; row++) {
          out.set(narrow.subarray(row * part.columns, (row + 1) * part.columns), row * columns + left);
        }
        left += part.columns;
      }
      return out;
    },
  };
}

/** A small block that is only made as a whole, such as the part of one head. */
function wholeBlock(rows: number, columns: number, make: () => Promise<Float32Array>): WeightRows {
  return {
    rows,
    columns,
    read: async (first, count) => (await make()).slice(first * columns, (first + count) * columns),
  };
}

/** The columns of a small block as rows. */
export function transposeBlock(block: WeightRows): WeightRows {
  const { rows, columns } = block;
  return wholeBlock(columns, rows, async () => {
    const values = await block.read(0, rows);
    const out = new Float32Array(values.length);
    for (let row = 0; row < rows; row++) {
      for (let column = 0; column < columns; column++) out[column * rows + row] = values[row * columns + column]!;
    }
    return out;
  });
}

/** A small block whose row `i` is row `sourceOf(i)` of another. */
export function reorderBlock(block: WeightRows, sourceOf: (row: number) => number): WeightRows {
  const { rows, columns } = block;
  return wholeBlock(rows, columns, async () => {
    const values = await block.read(0, rows);
    const out = new Float32Array(values.length);
    for (let row = 0; row < rows; row++) {
      const from = sourceOf(row) * columns;
      out.set(values.subarray(from, from + columns), row * columns);
    }
    return out;
  });
}
