import { apply, valueOf, type OpRow } from "../op.ts";
import type { Scope } from "../scope.ts";
import { inputOf, weightOperands, type Weight } from "../stored-matrix.ts";
import type { Tensor } from "../tensor.ts";

const embeddingRow: OpRow<{ table: Weight }> = {
  name: "embedding",
  source: "y[n] = table[ids[n]]",
  outputs: ([ids], { table }) => [{ shape: [valueOf(ids).size, table.shape[1]!] }],
  forward: ({ scope, inputs, outputs: [y], attrs: { table } }) => {
    const ids = valueOf(inputs[0]);
    const [vocab, d] = table.shape as [number, number];
    const { weight, scale, numbers } = weightOperands(table, "f32");
    scope.run("embedding", { ids, table: weight, y: y!, scale }, { n: ids.size, d, vocab, ...numbers });
  },
  backward: (call) => {
    const target = call.into(1);
    if (target === null) return;
    const [ids, table] = call.inputs.map(valueOf);
    call.scope.run(
      "embeddingBackward",
      { ids: ids!, dy: call.grad(0)!, dTable: target.tensor },
      { n: ids!.size, d: table!.columns, vocab: table!.rows, accumulate: target.accumulate },
    );
  },
  saves: { inputs: [0], outputs: [] },
  flops: () => ({ forward: 0, backward: 0 }),
};

/** Rows of a table [V, D] by token ids [N] (i32). */
export function embedding(scope: Scope, ids: Tensor, table: Weight): Tensor {
  return apply(embeddingRow, scope, [ids, inputOf(table)], { table })[0]!;
}
