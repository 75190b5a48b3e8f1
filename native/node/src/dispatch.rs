//! The table of kernels: how the words of a call become the arguments of a function. The names, the order of operands
//! and numbers and the opcodes are those of the contract; a test on the JavaScript side compares the two.

use crate::call::{Call, Operand, Result, StoredShape, area, span};
use fathom_kernels::gemm::{
    self, Compute, GroupedMatmul, GroupedMatmulBackwardW, MatIn, Matmul, Product, grouped_matmul,
    grouped_matmul_backward_w,
};
use fathom_kernels::stored::{Item, Products, products, rows_from};
use fathom_kernels::{Ctx, ops};

pub struct Kernel {
    pub op: u32,
    pub name: &'static str,
    pub operands: usize,
    pub numbers: usize,
    run: fn(Ctx, &Call) -> Result<()>,
}

/// Runs a list of encoded calls in order.
pub fn run(ctx: Ctx, words: &[f64]) -> Result<()> {
    let mut rest = words;
    while let [op, length, ..] = *rest {
        let Some(kernel) = KERNELS.iter().find(|kernel| kernel.op as f64 == op) else {
            return Err(format!("run: the opcode must be known, got {op}"));
        };
        let want = 2 + 3 * kernel.operands + kernel.numbers;
        if length != want as f64 || rest.len() < want {
            let (name, got) = (kernel.name, rest.len());
            return Err(format!("{name}: a call must have {want} words, got {length} of {got}"));
        }
        let (call, next) = rest.split_at(want);
        (kernel.run)(ctx, &Call::new(kernel.name, &call[2..], kernel.operands))?;
        rest = next;
    }
    if rest.is_empty() {
        Ok(())
    } else {
        Err("run: a call must begin with opcode and length, got one word".to_string())
    }
}

/// `opcode name(operands) [numbers] { body }`: an operand is `x` or `x maybe` (then an `Option`); a number is `x` (a usize),
/// `x: flag`, `x: real` (f64) or `x: choice(n)`. The body has all of them by name.
macro_rules! kernels {
    ($($op:literal $name:ident($($operand:ident $($maybe:ident)?),*) [$($number:ident $(: $kind:ident $(($count:literal))?)?),*]
        |$ctx:ident, $call:ident| $body:block)*) => {
        pub const KERNELS: &[Kernel] = &[$(Kernel {
            op: $op,
            name: stringify!($name),
            operands: count!($($operand)*),
            numbers: count!($($number)*),
            run: {
                #[allow(non_snake_case)]
                fn $name($ctx: Ctx, $call: &Call) -> Result<()> {
                    let mut operand = 0..;
                    let mut number = 0..;
                    $(let $operand = operand!($call, operand.next().unwrap_or(0), $operand $($maybe)?);)*
                    $(let $number = number!($call, number.next().unwrap_or(0), $number $($kind $($count)?)?);)*
                    let _ = (operand, number);
                    $body
                    Ok(())
                }
                $name
            },
        }),*];
    };
}

macro_rules! count {
    () => { 0 };
    ($first:ident $($rest:ident)*) => { 1 + count!($($rest)*) };
}

macro_rules! operand {
    ($call:ident, $i:expr, $name:ident) => {
        $call.required($i, stringify!($name))?
    };
    ($call:ident, $i:expr, $name:ident maybe) => {
        $call.optional($i, stringify!($name))?
    };
}

macro_rules! number {
    ($call:ident, $i:expr, $name:ident) => {
        $call.size($i, stringify!($name))?
    };
    ($call:ident, $i:expr, $name:ident flag) => {
        $call.flag($i, stringify!($name))?
    };
    ($call:ident, $i:expr, $name:ident real) => {
        $call.real($i)
    };
    ($call:ident, $i:expr, $name:ident choice $count:literal) => {
        $call.choice($i, stringify!($name), $count)?
    };
}

kernels! {
    1 fill(y) [n, value: real] |ctx, call| {
        ops::fill(ctx, y.f32_mut(n)?, n, value as f32);
    }

    2 copy2d(x, y) [rows, cols, x_stride, y_stride, accumulate: flag] |ctx, call| {
        let (x, y) = (x.source(span(&[(rows, x_stride)], cols))?, y.target(span(&[(rows, y_stride)], cols))?);
        ops::copy2d(ctx, x, y, ops::Copy2d { rows, cols, x_stride, y_stride, accumulate });
    }

    3 add(a, b, y) [n] |ctx, call| {
        ops::add(ctx, a.f32(n)?, b.f32(n)?, y.f32_mut(n)?, n);
    }

    4 axpy(x, y) [n, scale: real] |ctx, call| {
        ops::axpy(ctx, x.f32(n)?, y.f32_mut(n)?, n, scale as f32);
    }

    5 sum(x, y) [n, scale: real, accumulate: flag] |ctx, call| {
        ops::sum(ctx, x.f32(n)?, y.f32_mut(1)?, n, scale, accumulate);
    }

    6 sumSquares(x, y) [n] |ctx, call| {
        ops::sum_squares(ctx, x.f32(n)?, y.f32_mut(1)?, n);
    }

    7 gatherRows(x, index, y) [rows, d, x_rows] |ctx, call| {
        let (x, index, y) = (x.f32(area(&[x_rows, d]))?, index.i32(rows)?, y.f32_mut(area(&[rows, d]))?);
        ops::gather_rows(ctx, x, index, y, rows, d, x_rows);
    }

    8 randomNormal(y) [n, std: real, key_lo, key_hi] |ctx, call| {
        ops::random_normal(ctx, y.f32_mut(n)?, n, std, [word(call, key_lo)?, word(call, key_hi)?]);
    }

    10 embedding(ids, table, y, scale maybe) [n, d, vocab, scale_rows, scale_cols] |ctx, call| {
        let shape = StoredShape { len: area(&[vocab, d]), stride: d, cols: d, scale_rows, scale_cols };
        let table = table.stored(scale.as_ref(), shape)?;
        // SAFETY: the range is checked.
        unsafe { ops::embedding(ctx, ids.i32(n)?, table, y.f32_mut(area(&[n, d]))?, n, d, vocab) };
    }

    11 embeddingBackward(ids, dy, d_table) [n, d, vocab, accumulate: flag] |ctx, call| {
        let d_table = d_table.f32_mut(area(&[vocab, d]))?;
        let shape = ops::EmbeddingBackward { n, d, vocab, accumulate };
        ops::embedding_backward(ctx, ids.i32(n)?, dy.f32(area(&[n, d]))?, d_table, shape);
    }

    12 rmsNorm(x, w, y, rstd) [n, d, x_stride, eps: real] |ctx, call| {
        let x = x.f32(span(&[(n, x_stride)], d))?;
        let (y, rstd) = (y.f32_mut(area(&[n, d]))?, rstd.f32_mut(n)?);
        ops::rms_norm(ctx, x, w.f32(d)?, y, rstd, ops::RmsNorm { n, d, x_stride, eps: eps as f32 });
    }

    13 rmsNormBackward(x, w, rstd, dy, dx, dw maybe)
        [n, d, x_stride, dx_stride, accumulate_x: flag, accumulate_w: flag] |ctx, call| {
        let x = x.f32(span(&[(n, x_stride)], d))?;
        let saved = ops::RmsNormSaved { x, w: w.f32(d)?, rstd: rstd.f32(n)?, dy: dy.f32(area(&[n, d]))? };
        let dx = dx.f32_mut(span(&[(n, dx_stride)], d))?;
        let dw = dw.as_ref().map(|dw| dw.f32_mut(d)).transpose()?;
        let shape = ops::RmsNormBackward { n, d, x_stride, dx_stride, accumulate_x, accumulate_w };
        ops::rms_norm_backward(ctx, saved, dx, dw, shape);
    }

    20 matmul(a, b, c, b_scale maybe)
        [m, n, k, trans_a: flag, trans_b: flag, lda, ldb, ldc, batch, stride_a, stride_b, stride_c, accumulate: flag, compute: choice(3), scale_rows, scale_cols]
        |ctx, call| {
        let stored = |trans: bool, rows: usize, cols: usize, stride: usize, step: usize| {
            let (rows, cols) = if trans { (cols, rows) } else { (rows, cols) };
            span(&[(batch, step), (rows, stride)], cols)
        };
        let a = oriented(a.matrix(stored(trans_a, m, k, lda, stride_a), lda)?, trans_a);
        let one = span(&[(m, ldc)], n);
        let apart = (m < 2 || ldc >= n) && (batch < 2 || stride_c >= one || (stride_c >= n && ldc >= span(&[(batch, stride_c)], n)));
        call.require(apart, || format!("rows of C must not overlap, got ldc {ldc} and strideC {stride_c} for {m} x {n}"))?;
        let c = c.f32_mut(span(&[(batch, stride_c), (m, ldc)], n))?.as_mut_ptr();
        let b_len = stored(trans_b, k, n, ldb, stride_b);
        if !b.is_plain(b_scale.as_ref()) {
            let shape = StoredShape { len: b_len, stride: ldb, cols: if trans_b { k } else { n }, scale_rows, scale_cols };
            let b = b.stored(b_scale.as_ref(), shape)?;
            let step = if b.scale.is_some() { ldb } else { b.format.block_elements() };
            let whole = batch < 2 || stride_b.is_multiple_of(step);
            call.require(whole, || format!("strideB must be a multiple of {step}, got {stride_b}"))?;
            // Nothing to write, however long the batch.
            if m == 0 || n == 0 {
                return Ok(());
            }
            let bytes = a.dtype.bytes();
            let item = |i: usize| Item {
                m,
                a: MatIn { ptr: a.ptr.wrapping_add(i * stride_a * bytes), ..a },
                w: b.skip(i * stride_b),
                c: c.wrapping_add(i * stride_c),
            };
            let items: Vec<Item> = (0..batch).map(item).collect();
            // SAFETY: all ranges are checked, and C is apart from A and B.
            unsafe { products(ctx, &items, &Products { n, k, ldc, trans: trans_b, accumulate, compute }) };
            return Ok(());
        }
        let b = oriented(b.matrix(b_len, ldb)?, trans_b);
        let first = Product { m, n, k, a, b, c, ldc, accumulate };
        // SAFETY: all ranges are checked, and C is apart from A and B.
        unsafe { gemm::matmul(ctx, &Matmul { first, batch, stride_a, stride_b, stride_c, compute: multiplication(compute) }) };
    }

    21 groupedMatmul(x, w, offsets, row_index maybe, y, w_scale maybe)
        [experts, rows, x_rows, out_dim, in_dim, trans_w: flag, accumulate: flag, compute: choice(3), scale_rows, scale_cols, list: flag]
        |ctx, call| {
        let (x_dim, y_dim) = if trans_w { (out_dim, in_dim) } else { (in_dim, out_dim) };
        let offsets = offsets.i32(experts.saturating_add(1))?;
        rising(call, "offsets", offsets, rows)?;
        let index = row_index.as_ref().map(|index| index.i32(rows)).transpose()?;
        indexed(call, "row_index", index, rows, x_rows)?;
        let x = x.matrix(area(&[x_rows, x_dim]), x_dim)?.gather(index);
        let y = y.f32_mut(area(&[rows, y_dim]))?.as_mut_ptr();
        if list || !w.is_plain(w_scale.as_ref()) {
            let shape = StoredShape { len: area(&[out_dim, in_dim]), stride: in_dim, cols: in_dim, scale_rows, scale_cols };
            let held = if list { Some(experts_apart(&w, w_scale.as_ref(), offsets)?) } else { None };
            let weights = match &held {
                Some(held) => held.iter().map(|(w, scale)| w.stored(scale.as_ref(), shape)).collect::<Result<Vec<_>>>()?,
                None => {
                    let whole = StoredShape { len: area(&[experts, out_dim, in_dim]), ..shape };
                    let stack = w.stored(w_scale.as_ref(), whole)?;
                    with_rows(offsets).map(|(e, _)| stack.skip(e * shape.len)).collect()
                }
            };
            let items: Vec<Item> = with_rows(offsets)
                .zip(weights)
                .map(|((_, rows), w)| {
                    let (a, c) = (rows_from(x, rows.start), y.wrapping_add(rows.start * y_dim));
                    Item { m: rows.len(), a, w, c }
                })
                .collect();
            let shared = Products { n: y_dim, k: x_dim, ldc: y_dim, trans: !trans_w, accumulate, compute };
            // SAFETY: as below.
            unsafe { products(ctx, &items, &shared) };
            return Ok(());
        }
        let w = w.matrix(area(&[experts, out_dim, in_dim]), in_dim)?;
        let compute = multiplication(compute);
        // SAFETY: ranges, offsets and indices are checked, and y is apart from the others.
        unsafe { grouped_matmul(ctx, &GroupedMatmul { x, w, offsets, y, out_dim, in_dim, trans_w, accumulate, compute }) };
    }

    22 groupedMatmulBackwardW(x, dy, offsets, x_index maybe, dy_index maybe, dw)
        [experts, rows, x_rows, dy_rows, out_dim, in_dim, accumulate: flag, compute: choice(3)] |ctx, call| {
        let offsets = offsets.i32(experts.saturating_add(1))?;
        rising(call, "offsets", offsets, rows)?;
        let x_index = x_index.as_ref().map(|index| index.i32(rows)).transpose()?;
        let dy_index = dy_index.as_ref().map(|index| index.i32(rows)).transpose()?;
        indexed(call, "x_index", x_index, rows, x_rows)?;
        indexed(call, "dy_index", dy_index, rows, dy_rows)?;
        let x = x.matrix(area(&[x_rows, in_dim]), in_dim)?.gather(x_index);
        let dy = dy.matrix(area(&[dy_rows, out_dim]), out_dim)?.gather(dy_index);
        let dw = dw.f32_mut(area(&[experts, out_dim, in_dim]))?.as_mut_ptr();
        let compute = multiplication(compute);
        // SAFETY: as for `groupedMatmul`.
        unsafe {
            grouped_matmul_backward_w(
                ctx,
                &GroupedMatmulBackwardW { x, dy, offsets, dw, out_dim, in_dim, accumulate, compute },
            )
        };
    }

    30 siluMul(gate, up, scale maybe, y) [n, d] |ctx, call| {
        let scale = scale.as_ref().map(|scale| scale.f32(n)).transpose()?;
        let size = area(&[n, d]);
        ops::silu_mul(ctx, gate.f32(size)?, up.f32(size)?, scale, y.f32_mut(size)?, n, d);
    }

    31 siluMulBackward(gate, up, scale maybe, dy, d_gate, d_up, d_scale maybe) [n, d] |ctx, call| {
        let size = area(&[n, d]);
        let scale = scale.as_ref().map(|scale| scale.f32(n)).transpose()?;
        let saved = ops::SiluMulSaved { gate: gate.f32(size)?, up: up.f32(size)?, scale, dy: dy.f32(size)? };
        let d_scale = d_scale.as_ref().map(|d_scale| d_scale.f32_mut(n)).transpose()?;
        ops::silu_mul_backward(ctx, saved, d_gate.f32_mut(size)?, d_up.f32_mut(size)?, d_scale, n, d);
    }

    32 rope(x, table, positions, y)
        [n, heads, head_dim, rope_dim, x_stride, y_stride, max_pos, interleave: flag, inverse: flag, accumulate: flag]
        |ctx, call| {
        let row = area(&[heads, head_dim]);
        let (x, y) = (x.f32(span(&[(n, x_stride)], row))?, y.f32_mut(span(&[(n, y_stride)], row))?);
        let table = table.f32(area(&[max_pos, rope_dim]))?;
        let shape = ops::Rope {
            n, heads, head_dim, rope_dim, x_stride, y_stride, max_pos, interleave, inverse, accumulate,
        };
        ops::rope(ctx, x, table, positions.i32(n)?, y, shape);
    }

    40 route(logits, bias maybe, scores, idx, weights)
        [n, experts, topk, groups, limited_groups, score_func: choice(2), group_score: choice(3), normalize: flag, route_scale: real]
        |ctx, call| {
        let (all, chosen) = (area(&[n, experts]), area(&[n, topk]));
        let bias = bias.as_ref().map(|bias| bias.f32(experts)).transpose()?;
        let logits = logits.f32(all)?;
        let routed = ops::Routed { scores: scores.f32_mut(all)?, idx: idx.i32_mut(chosen)?, weights: weights.f32_mut(chosen)? };
        let group_score = match group_score {
            0 => ops::GroupScore::NoGroups,
            1 => ops::GroupScore::Largest,
            _ => ops::GroupScore::TwoLargest,
        };
        let (score_func, route_scale) = (scoring(score_func), route_scale as f32);
        let shape = ops::Route {
            n, experts, topk, groups, limited_groups, score_func, group_score, normalize, route_scale,
        };
        ops::route(ctx, logits, bias, routed, shape);
    }

    41 routeBackward(scores, idx, d_weights maybe, d_scores maybe, d_logits)
        [n, experts, topk, score_func: choice(2), normalize: flag, route_scale: real] |ctx, call| {
        let (all, chosen) = (area(&[n, experts]), area(&[n, topk]));
        let d_weights = d_weights.as_ref().map(|d| d.f32(chosen)).transpose()?;
        let d_scores = d_scores.as_ref().map(|d| d.f32(all)).transpose()?;
        let gradients = ops::RouteGradients { scores: scores.f32(all)?, idx: idx.i32(chosen)?, d_weights, d_scores };
        let (score_func, route_scale) = (scoring(score_func), route_scale as f32);
        let shape = ops::RouteBackward { n, experts, topk, score_func, normalize, route_scale };
        ops::route_backward(ctx, gradients, d_logits.f32_mut(all)?, shape);
    }

    42 moePlan(idx, offsets, row_token, row_slot, slot_row) [n, topk, experts] |ctx, call| {
        let slots = area(&[n, topk]);
        let plan = ops::MoePlan {
            offsets: offsets.i32_mut(experts.saturating_add(1))?,
            row_token: row_token.i32_mut(slots)?,
            row_slot: row_slot.i32_mut(slots)?,
            slot_row: slot_row.i32_mut(slots)?,
        };
        ops::moe_plan(ctx, idx.i32(slots)?, plan, n, topk, experts);
    }

    43 combine(ys, slot_row, base maybe, y) [n, topk, d, accumulate: flag] |ctx, call| {
        let (ys, slot_row) = (ys.f32(area(&[n, topk, d]))?, slot_row.i32(area(&[n, topk]))?);
        let base = base.as_ref().map(|base| base.f32(area(&[n, d]))).transpose()?;
        ops::combine(ctx, ys, slot_row, base, y.f32_mut(area(&[n, d]))?, ops::Combine { n, topk, d, accumulate });
    }

    44 balanceLoss(scores, idx, segments, loss, d_scores) [n, experts, topk, segment_count, alpha: real] |ctx, call| {
        let load = ops::Load {
            scores: scores.f32(area(&[n, experts]))?,
            idx: idx.i32(area(&[n, topk]))?,
            segments: segments.i32(segment_count.saturating_add(1))?,
        };
        let shape = ops::BalanceLoss { n, experts, topk, segments: segment_count, alpha };
        ops::balance_loss(ctx, load, loss.f32_mut(1)?, d_scores.f32_mut(area(&[n, experts]))?, shape);
    }

    45 expertCounts(idx, counts) [n, experts, accumulate: flag] |ctx, call| {
        ops::expert_counts(ctx, idx.i32(n)?, counts.f32_mut(experts)?, n, experts, accumulate);
    }

    46 routerBiasInto(counts, bias) [experts, speed: real] |ctx, call| {
        ops::router_bias_into(ctx, counts.f32(experts)?, bias.f32_mut(experts)?, experts, speed as f32);
    }

    50 attention(q, k1, k2 maybe, v, seq_starts, out, lse)
        [n, heads, kv_heads, nope_dim, rope_dim, value_dim, seqs, q_stride, k1_row, k1_head, k2_row, k2_head, v_row, v_head,
         scale: real, compute: choice(3)] |ctx, call| {
        let shape = ops::Attention {
            n, heads, kv_heads, nope_dim, rope_dim, value_dim, seqs, q_stride, k1_row, k1_head, k2_row, k2_head, v_row, v_head,
            scale: scale as f32,
            compute: multiplication(compute),
        };
        let k2 = k2.as_ref().map(|k2| k2.f32(span(&[(n, k2_row), (heads, k2_head)], rope_dim))).transpose()?;
        let qkv = ops::Qkv {
            q: q.f32(span(&[(n, q_stride)], area(&[heads, nope_dim.saturating_add(rope_dim)])))?,
            k1: k1.f32(span(&[(n, k1_row), (kv_heads, k1_head)], nope_dim))?,
            k2,
            v: v.f32(span(&[(n, v_row), (kv_heads, v_head)], value_dim))?,
            seq_starts: seq_starts.i32(seqs.saturating_add(1))?,
        };
        let (out, lse) = (out.f32_mut(area(&[n, heads, value_dim]))?, lse.f32_mut(area(&[n, heads]))?);
        ops::attention(ctx, qkv, out, lse, shape);
    }

    51 attentionBackward(q, k1, k2 maybe, v, seq_starts, out, lse, d_out, delta, dq, dk1, dk2 maybe, dv)
        [n, heads, kv_heads, nope_dim, rope_dim, value_dim, seqs, q_stride, k1_row, k1_head, k2_row, k2_head, v_row, v_head,
         scale: real, compute: choice(3)] |ctx, call| {
        let shape = ops::Attention {
            n, heads, kv_heads, nope_dim, rope_dim, value_dim, seqs, q_stride, k1_row, k1_head, k2_row, k2_head, v_row, v_head,
            scale: scale as f32,
            compute: multiplication(compute),
        };
        let q_len = span(&[(n, q_stride)], area(&[heads, nope_dim.saturating_add(rope_dim)]));
        let k1_len = span(&[(n, k1_row), (kv_heads, k1_head)], nope_dim);
        let k2_len = span(&[(n, k2_row), (heads, k2_head)], rope_dim);
        let v_len = span(&[(n, v_row), (kv_heads, v_head)], value_dim);
        let out_len = area(&[n, heads, value_dim]);
        let rows = area(&[n, heads]);
        let k2 = k2.as_ref().map(|k2| k2.f32(k2_len)).transpose()?;
        let seq_starts = seq_starts.i32(seqs.saturating_add(1))?;
        let qkv = ops::Qkv { q: q.f32(q_len)?, k1: k1.f32(k1_len)?, k2, v: v.f32(v_len)?, seq_starts };
        let saved = ops::AttentionSaved { qkv, out: out.f32(out_len)?, lse: lse.f32(rows)?, d_out: d_out.f32(out_len)? };
        let gradients = ops::AttentionGradients {
            delta: delta.interleaved(rows)?,
            dq: dq.interleaved(q_len)?,
            dk1: dk1.interleaved(k1_len)?,
            dk2: dk2.as_ref().map(|dk2| dk2.interleaved(k2_len)).transpose()?,
            dv: dv.interleaved(v_len)?,
        };
        ops::attention_backward(ctx, saved, gradients, shape);
    }

    52 cacheWrite(latent, rope, slots, pool) [n, latent_dim, rope_dim, latent_stride, rope_stride, pool_rows] |ctx, call| {
        let (latent, rope) = (latent.f32(span(&[(n, latent_stride)], latent_dim))?, rope.f32(span(&[(n, rope_stride)], rope_dim))?);
        let pool = pool.f32_mut(area(&[pool_rows, latent_dim.saturating_add(rope_dim)]))?;
        let shape = ops::CacheWrite { n, latent_dim, rope_dim, latent_stride, rope_stride, pool_rows };
        ops::cache_write(ctx, latent, rope, slots.i32(n)?, pool, shape);
    }

    53 mlaDecode(q_latent, q_rope, pool, block_table, seq_lens, out)
        [batch, heads, latent_dim, rope_dim, rope_row, rope_head, block_size, max_blocks, pool_rows, scale: real]
        |ctx, call| {
        let cache = ops::MlaCache {
            q_latent: q_latent.f32(area(&[batch, heads, latent_dim]))?,
            q_rope: q_rope.f32(span(&[(batch, rope_row), (heads, rope_head)], rope_dim))?,
            pool: pool.f32(area(&[pool_rows, latent_dim.saturating_add(rope_dim)]))?,
            block_table: block_table.i32(area(&[batch, max_blocks]))?,
            seq_lens: seq_lens.i32(batch)?,
        };
        let shape = ops::MlaDecode {
            batch, heads, latent_dim, rope_dim, rope_row, rope_head, block_size, max_blocks, pool_rows,
            scale: scale as f32,
        };
        ops::mla_decode(ctx, cache, out.f32_mut(area(&[batch, heads, latent_dim]))?, shape);
    }

    54 gqaDecode(q, pool, block_table, seq_lens, out)
        [batch, heads, kv_heads, head_dim, block_size, max_blocks, pool_rows, scale: real] |ctx, call| {
        let size = area(&[batch, heads, head_dim]);
        let cache = ops::GqaCache {
            q: q.f32(size)?,
            pool: pool.f32(area(&[pool_rows, 2, kv_heads, head_dim]))?,
            block_table: block_table.i32(area(&[batch, max_blocks]))?,
            seq_lens: seq_lens.i32(batch)?,
        };
        let shape = ops::GqaDecode {
            batch, heads, kv_heads, head_dim, block_size, max_blocks, pool_rows,
            scale: scale as f32,
        };
        ops::gqa_decode(ctx, cache, out.f32_mut(size)?, shape);
    }

    60 softmaxCrossEntropy(logits, targets, losses, d_logits maybe) [rows, vocab, scale: real] |ctx, call| {
        let size = area(&[rows, vocab]);
        let logits = match &d_logits {
            None => ops::Logits::LossOnly(logits.f32(size)?),
            Some(d_logits) if d_logits.is_same(&logits) => ops::Logits::InPlace(d_logits.f32_mut(size)?),
            Some(d_logits) => ops::Logits::Gradient(logits.f32(size)?, d_logits.f32_mut(size)?),
        };
        ops::softmax_cross_entropy(ctx, logits, targets.i32(rows)?, losses.f32_mut(rows)?, rows, vocab, scale as f32);
    }

    70 adamwInto(p, g, m, v, copy maybe)
        [n, lr: real, beta1: real, beta2: real, eps: real, weight_decay: real, correction1: real, correction2: real, grad_scale: real]
        |ctx, call| {
        let copy = copy.as_ref().map(|copy| copy.bf16_mut(n)).transpose()?;
        let state = ops::AdamwState { p: p.f32_mut(n)?, m: m.f32_mut(n)?, v: v.f32_mut(n)?, copy };
        let rule = ops::Adamw { n, lr, beta1, beta2, eps, weight_decay, correction1, correction2, grad_scale };
        ops::adamw_into(ctx, g.f32(n)?, state, rule);
    }
}

fn oriented(x: MatIn, trans: bool) -> MatIn {
    if trans { x.t() } else { x }
}

fn multiplication(compute: usize) -> Compute {
    if compute == 0 { Compute::F32 } else { Compute::Bf16 }
}

/// The experts that have rows, and those rows.
fn with_rows(offsets: &[i32]) -> impl Iterator<Item = (usize, std::ops::Range<usize>)> {
    let rows = offsets.windows(2).map(|pair| pair[0] as usize..pair[1] as usize);
    rows.enumerate().filter(|(_, rows)| !rows.is_empty())
}

/// Matrices and scales of the experts that have rows, from operands that hold handles.
fn experts_apart<'c>(
    w: &Operand<'c>,
    scale: Option<&Operand<'c>>,
    offsets: &[i32],
) -> Result<Vec<(Operand<'c>, Option<Operand<'c>>)>> {
    let count = offsets.len() - 1;
    let matrices = w.handles(count)?;
    let scales = match scale {
        Some(scale) => Some((scale, scale.handles(count)?)),
        None => None,
    };
    let expert = |e: usize| {
        let scale = scales.map(|(scale, handles)| scale.at(handles[e])).transpose()?;
        Ok((w.at(matrices[e])?, scale))
    };
    with_rows(offsets).map(|(e, _)| expert(e)).collect()
}

fn scoring(score_func: usize) -> ops::ScoreFunc {
    if score_func == 0 { ops::ScoreFunc::Softmax } else { ops::ScoreFunc::Sigmoid }
}

fn word(call: &Call, value: usize) -> Result<u32> {
    let word = u32::try_from(value);
    call.require(word.is_ok(), || format!("a key must be below 2^32, got {value}"))?;
    Ok(word.unwrap_or(0))
}

/// Offsets of experts rise from 0 or more to `rows` or less.
fn rising(call: &Call, name: &str, offsets: &[i32], rows: usize) -> Result<()> {
    let rises = offsets[0] >= 0 && offsets.windows(2).all(|pair| pair[0] <= pair[1]);
    let fits = offsets.last().is_some_and(|&last| last as usize <= rows);
    call.require(rises && fits, || format!("{name} must rise within 0 to {rows}, got {offsets:?}"))
}

/// Row numbers lie within their matrix; without an index the rows themselves do.
fn indexed(call: &Call, name: &str, index: Option<&[i32]>, rows: usize, count: usize) -> Result<()> {
    match index {
        None => call.require(rows <= count, || format!("without {name}, x must have {rows} rows, got {count}")),
        Some(index) => match index.iter().find(|&&i| i < 0 || i as usize >= count) {
            Some(bad) => call.require(false, || format!("{name} must be within 0 to {count} (exclusive), got {bad}")),
            None => Ok(()),
        },
    }
}
