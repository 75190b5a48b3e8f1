//! Times the kernels that a training step spends its time in: `cargo run --release --example ops [threads] [filter]`.
//! A line reads: kernel, least and median time, and the rate that the least time gives.

use std::time::Instant;

use fathom_kernels::gemm::Compute;
use fathom_kernels::ops::*;
use fathom_kernels::{Ctx, Isa, Pool};

struct Bench<'a> {
    ctx: Ctx<'a>,
    filter: String,
}

impl Bench<'_> {
    /// `amount` is in units of 10⁹ per call.
    fn time(&self, name: &str, amount: f64, unit: &str, mut call: impl FnMut(Ctx)) {
        if !name.contains(&self.filter) {
            return;
        }
        call(self.ctx);
        let mut times: Vec<f64> = (0..15)
            .map(|_| {
                let start = Instant::now();
                call(self.ctx);
                start.elapsed().as_secs_f64()
            })
            .collect();
        times.sort_by(f64::total_cmp);
        let (least, median) = (times[0], times[times.len() / 2]);
        println!("{name:42} {:9.3} ms {:9.3} ms {:9.1} {unit}", least * 1e3, median * 1e3, amount / least);
    }
}

fn main() {
    let mut args = std::env::args().skip(1);
    let threads = args.next().and_then(|a| a.parse().ok()).unwrap_or(2);
    let pool = Pool::new(threads);
    let ctx = Ctx { isa: Isa::detect(), pool: &pool };
    println!("{} with {threads} threads", ctx.isa.name());
    let bench = Bench { ctx, filter: args.next().unwrap_or_default() };
    simple(&bench);
    for compute in [Compute::F32, Compute::Bf16] {
        attend(&bench, "4 x 512, H 8", compute, 4, 512, 8, [128, 64, 128]);
        attend(&bench, "8 x 256, H 4", compute, 8, 256, 4, [32, 16, 32]);
        attend(&bench, "1 x 2048, H 8", compute, 1, 2048, 8, [128, 64, 128]);
        attend(&bench, "64 x 32, H 8", compute, 64, 32, 8, [128, 64, 128]);
    }
    decode(&bench);
}

fn values(n: usize) -> Vec<f32> {
    (0..n).map(|i| ((i * 7919) % 1009) as f32 / 504.5 - 1.0).collect()
}

fn simple(bench: &Bench) {
    let gb = |floats: usize| floats as f64 * 4.0 / 1e9;
    let big = 10_000_000;
    let (mut y, x) = (values(big), values(big));
    bench.time("fill 10M", gb(big), "GB/s", |ctx| fill(ctx, &mut y, big, 1.0));
    bench.time("axpy 10M", gb(3 * big), "GB/s", |ctx| axpy(ctx, &x, &mut y, big, 1e-3));
    bench.time("sumSquares 10M", gb(big), "GB/s", |ctx| sum_squares(ctx, &x, &mut y, big));
    bench.time("randomNormal 10M", gb(big), "GB/s", |ctx| random_normal(ctx, &mut y, big, 1.0, [1, 2]));
    let (mut m, mut v, mut copy) = (vec![0.0; big], vec![0.1; big], vec![0; big]);
    let rule = Adamw {
        n: big,
        lr: 1e-6,
        beta1: 0.9,
        beta2: 0.999,
        eps: 1e-8,
        weight_decay: 0.1,
        correction1: 0.1,
        correction2: 0.001,
        grad_scale: 1.0,
    };
    bench.time("adamwInto 10M with copy", big as f64 * 30.0 / 1e9, "GB/s", |ctx| {
        let state = AdamwState { p: &mut y, m: &mut m, v: &mut v, copy: Some(&mut copy) };
        adamw_into(ctx, &x, state, rule);
    });

    let (n, d) = (12288, 704);
    let (gate, up, dy) = (values(n * d), values(n * d), values(n * d));
    let (mut a, mut b, mut c) = (vec![0.0; n * d], vec![0.0; n * d], vec![0.0; n]);
    bench.time("siluMul 12288 x 704", gb(3 * n * d), "GB/s", |ctx| silu_mul(ctx, &gate, &up, None, &mut a, n, d));
    bench.time("siluMulBackward 12288 x 704", gb(5 * n * d), "GB/s", |ctx| {
        let saved = SiluMulSaved { gate: &gate, up: &up, scale: Some(&dy), dy: &dy };
        silu_mul_backward(ctx, saved, &mut a, &mut b, Some(&mut c), n, d);
    });

    let (n, d) = (2048, 1024);
    let (x, w, dy) = (values(n * d), values(d), values(n * d));
    let (mut y, mut rstd, mut dw) = (vec![0.0; n * d], vec![0.0; n], vec![0.0; d]);
    let shape = RmsNorm { n, d, x_stride: d, eps: 1e-6 };
    bench.time("rmsNorm 2048 x 1024", gb(2 * n * d), "GB/s", |ctx| rms_norm(ctx, &x, &w, &mut y, &mut rstd, shape));
    let shape = RmsNormBackward { n, d, x_stride: d, dx_stride: d, accumulate_x: true, accumulate_w: true };
    bench.time("rmsNormBackward 2048 x 1024", gb(4 * n * d), "GB/s", |ctx| {
        let saved = RmsNormSaved { x: &x, w: &w, rstd: &rstd, dy: &dy };
        rms_norm_backward(ctx, saved, &mut y, Some(&mut dw), shape);
    });

    let (n, heads, head_dim, rope_dim) = (2048, 8, 192, 64);
    let (x, table) = (values(n * heads * head_dim), values(n * rope_dim));
    let positions: Vec<i32> = (0..n as i32).collect();
    let mut y = vec![0.0; x.len()];
    for interleave in [true, false] {
        let shape = Rope {
            n,
            heads,
            head_dim,
            rope_dim,
            x_stride: heads * head_dim,
            y_stride: heads * head_dim,
            max_pos: n,
            interleave,
            inverse: false,
            accumulate: false,
        };
        let name = format!("rope 2048 x 8 x 192{}", if interleave { " interleaved" } else { "" });
        bench.time(&name, gb(2 * x.len()), "GB/s", |ctx| rope(ctx, &x, &table, &positions, &mut y, shape));
    }

    let (rows, vocab) = (512, 8192);
    let mut logits = values(rows * vocab);
    let (targets, mut losses) = (vec![7; rows], vec![0.0; rows]);
    bench.time("softmaxCrossEntropy 512 x 8192 in place", gb(2 * rows * vocab), "GB/s", |ctx| {
        softmax_cross_entropy(ctx, Logits::InPlace(&mut logits), &targets, &mut losses, rows, vocab, 1.0);
    });

    let (n, experts, topk, d) = (2048, 64, 6, 1024);
    let (logits, ys) = (values(n * experts), values(n * topk * d));
    let (mut scores, mut idx, mut weights) = (vec![0.0; n * experts], vec![0; n * topk], vec![0.0; n * topk]);
    let shape = Route {
        n,
        experts,
        topk,
        groups: 8,
        limited_groups: 4,
        score_func: ScoreFunc::Sigmoid,
        group_score: GroupScore::TwoLargest,
        normalize: true,
        route_scale: 1.0,
    };
    bench.time("route 2048 x 64, top 6", n as f64 / 1e9, "Gtokens/s", |ctx| {
        let routed = Routed { scores: &mut scores, idx: &mut idx, weights: &mut weights };
        route(ctx, &logits, None, routed, shape);
    });
    let [mut offsets, mut row_token, mut row_slot, mut slot_row] =
        [experts + 1, n * topk, n * topk, n * topk].map(|len| vec![0; len]);
    bench.time("moePlan 2048 x 64, top 6", n as f64 / 1e9, "Gtokens/s", |ctx| {
        let plan = MoePlan {
            offsets: &mut offsets,
            row_token: &mut row_token,
            row_slot: &mut row_slot,
            slot_row: &mut slot_row,
        };
        moe_plan(ctx, &idx, plan, n, topk, experts);
    });
    let mut y = vec![0.0; n * d];
    bench.time("combine 2048 x 6 x 1024", gb((topk + 1) * n * d), "GB/s", |ctx| {
        combine(ctx, &ys, &slot_row, None, &mut y, Combine { n, topk, d, accumulate: false });
    });
    let (n, vocab) = (2048, 32768);
    let ids: Vec<i32> = (0..n).map(|i| (i * 37 % vocab) as i32).collect();
    let mut table = vec![0.0; vocab * d];
    bench.time("embeddingBackward 2048 x 1024, accumulate", gb(3 * n * d), "GB/s", |ctx| {
        embedding_backward(ctx, &ids, &ys, &mut table, EmbeddingBackward { n, d, vocab, accumulate: true });
    });
}

fn attend(bench: &Bench, name: &str, compute: Compute, seqs: usize, len: usize, heads: usize, dims: [usize; 3]) {
    let [p, r, u] = dims;
    let n = seqs * len;
    let (q, kv, k2) = (values(n * heads * (p + r)), values(n * heads * (p + u)), values(n * r));
    let seq_starts: Vec<i32> = (0..=seqs).map(|s| (s * len) as i32).collect();
    let shape = Attention {
        n,
        heads,
        kv_heads: heads,
        nope_dim: p,
        rope_dim: r,
        value_dim: u,
        seqs,
        q_stride: heads * (p + r),
        k1_row: heads * (p + u),
        k1_head: p + u,
        k2_row: r,
        k2_head: 0,
        v_row: heads * (p + u),
        v_head: p + u,
        scale: 0.07,
        compute,
    };
    let qkv = Qkv { q: &q, k1: &kv, k2: Some(&k2), v: &kv[p..], seq_starts: &seq_starts };
    let (mut out, mut lse) = (vec![0.0; n * heads * u], vec![0.0; n * heads]);
    let pairs = (seqs * heads * len * (len + 1) / 2) as f64 / 1e9;
    let forward = 2.0 * pairs * (p + r + u) as f64;
    bench.time(&format!("attention {name}, {compute:?}"), forward, "GFLOP/s", |ctx| {
        attention(ctx, qkv, &mut out, &mut lse, shape);
    });
    let backward = 2.0 * pairs * (3 * (p + r) + 2 * u) as f64;
    let [mut dq, mut dkv, mut dk2] = [&q, &kv, &k2].map(|x| vec![0.0; x.len()]);
    let (mut delta, d_out) = (vec![0.0; n * heads], values(n * heads * u));
    bench.time(&format!("attentionBackward {name}, {compute:?}"), backward, "GFLOP/s", |ctx| {
        let (start, len) = (dkv.as_mut_ptr(), dkv.len());
        // SAFETY: dv begins p elements into the same matrix, and its columns are not those of dk1.
        let [dk1, dv] = unsafe { [Shared::from_raw(start, len), Shared::from_raw(start.add(p), len - p)] };
        let gradients = AttentionGradients {
            delta: Shared::new(&mut delta),
            dq: Shared::new(&mut dq),
            dk1,
            dk2: Some(Shared::new(&mut dk2)),
            dv,
        };
        attention_backward(ctx, AttentionSaved { qkv, out: &out, lse: &lse, d_out: &d_out }, gradients, shape);
    });
}

fn decode(bench: &Bench) {
    for (batch, heads, cached) in [(1, 16, 4096), (8, 8, 1024)] {
        let (latent_dim, rope_dim, block_size) = (512, 64, 64);
        let (width, max_blocks) = (latent_dim + rope_dim, cached / block_size);
        let pool_rows = batch * cached;
        let (pool, q_latent) = (values(pool_rows * width), values(batch * heads * latent_dim));
        let q_rope = values(batch * heads * rope_dim);
        let block_table: Vec<i32> = (0..(batch * max_blocks) as i32).collect();
        let (seq_lens, mut out) = (vec![cached as i32; batch], vec![0.0; batch * heads * latent_dim]);
        let shape = MlaDecode {
            batch,
            heads,
            latent_dim,
            rope_dim,
            rope_row: heads * rope_dim,
            rope_head: rope_dim,
            block_size,
            max_blocks,
            pool_rows,
            scale: 0.07,
        };
        let name = format!("mlaDecode {batch} x {cached}, H {heads}");
        bench.time(&name, (pool_rows * width) as f64 * 4.0 / 1e9, "GB/s", |ctx| {
            let cache = MlaCache {
                q_latent: &q_latent,
                q_rope: &q_rope,
                pool: &pool,
                block_table: &block_table,
                seq_lens: &seq_lens,
            };
            mla_decode(ctx, cache, &mut out, shape);
        });
    }
}
