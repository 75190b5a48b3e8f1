import type { Parameter } from "../parameter.ts";
import { apply, valueOf, type OpRow } from "../op.ts";
import type { Scope } from "../scope.ts";
import type { Tensor } from "../tensor.ts";

const embeddingRow: OpRow<null> = {
  name: "embedding",
  source: "y[n] = table[ids[n]]",
  outputs: ([ids, table]) => [{ shape: [valueOf(ids).size, valueOf(table).columns] }],
  forward: ({ scope, inputs, outputs: [y] }) => {
    const [ids, table] = inputs.map(valueOf);
    const numbers = { n: ids!.size, d: table!.columns, vocab: table!.rows };
    scope.run("embedding", { ids: ids!, table: table!, y: y! }, numbers);
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
export function embedding(scope: Scope, ids: Tensor, table: Parameter): Tensor {
  return apply(embeddingRow, scope, [ids, table], null)[0]!;
}
