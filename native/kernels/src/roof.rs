//! The measured roof of this machine: what the cores can do at best, and what the matrix products reach of it.

use crate::gemm::{Compute, GroupedMatmul, MatIn, Matmul, Product, grouped_matmul, matmul};
use crate::scratch::Scratch;
use crate::{Ctx, Isa, Pool};
use std::hint::black_box;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Best rates over all threads together; a multiply-add is two operations. 0 where the CPU lacks the unit.
#[derive(Clone, Copy, Debug)]
pub struct Peaks {
    pub f32_flops: f64,
    /// Dot products on vector registers.
    pub bf16_flops: f64,
    /// Dot products on vector registers.
    pub int8_ops: f64,
    /// bf16 products on AMX tiles.
    pub amx_flops: f64,
}

/// One measured speed.
pub struct Row {
    pub name: String,
    pub value: f64,
    pub unit: &'static str,
    /// Of the measured peak of the same arithmetic.
    pub percent_of_peak: Option<f64>,
    /// The name of the row of that peak.
    pub peak: Option<&'static str>,
}

/// The arithmetic peaks, in about half a second.
pub fn measure_peaks(threads: usize) -> Peaks {
    peaks(Ctx { isa: Isa::detect(), pool: &Pool::new(threads) })
}

const FMA: &str = "f32 multiply-add";
const DOT: &str = "bf16 dot";
const TILES: &str = "bf16 tiles";

/// Peaks, bandwidth and products with an instruction set, in some seconds.
pub fn measure(isa: Isa, threads: usize) -> Vec<Row> {
    let pool = Pool::new(threads);
    let ctx = Ctx { isa, pool: &pool };
    let peaks = peaks(ctx);
    let rate =
        |name: &str, value: f64, unit| Row { name: name.to_string(), value, unit, percent_of_peak: None, peak: None };
    let mut rows = vec![
        rate("memory read", read_rate(ctx) / 1e9, "GB/s"),
        rate(FMA, peaks.f32_flops / 1e9, "GFLOP/s"),
        rate(DOT, peaks.bf16_flops / 1e9, "GFLOP/s"),
        rate("int8 dot", peaks.int8_ops / 1e9, "GOP/s"),
        rate(TILES, peaks.amx_flops / 1e9, "GFLOP/s"),
    ];
    rows.retain(|row| row.value > 0.0);
    for compute in [Compute::F32, Compute::Bf16] {
        // f32 products on tiles are six of bf16, and can come out above the peak of the f32 instruction.
        let (of, peak) = match (compute, isa) {
            (Compute::Bf16, Isa::Amx) => (TILES, peaks.amx_flops),
            (Compute::Bf16, Isa::Avx512Bf16) => (DOT, peaks.bf16_flops),
            _ => (FMA, peaks.f32_flops),
        };
        for shape in SHAPES {
            let flops = product_rate(ctx, shape, compute);
            let (name, share) = (shape.name(compute), flops / peak * 100.0);
            rows.push(Row { name, value: flops / 1e9, unit: "GFLOP/s", percent_of_peak: Some(share), peak: Some(of) });
        }
    }
    rows
}

/// x · Wᵀ for each expert, with `m` rows of x each.
#[derive(Clone, Copy)]
struct Shape {
    experts: usize,
    m: usize,
    n: usize,
    k: usize,
}

const SHAPES: [Shape; 6] = [
    Shape { experts: 1, m: 512, n: 512, k: 512 },
    Shape { experts: 1, m: 1024, n: 1024, k: 1024 },
    Shape { experts: 1, m: 2048, n: 2048, k: 2048 },
    Shape { experts: 1, m: 2048, n: 5472, k: 1024 },
    Shape { experts: 1, m: 2048, n: 1024, k: 256 },
    Shape { experts: 16, m: 64, n: 1024, k: 1024 },
];

impl Shape {
    fn name(&self, compute: Compute) -> String {
        let dtype = if compute == Compute::Bf16 { "bf16" } else { "f32" };
        let Shape { experts, m, n, k } = self;
        let grouped = if *experts > 1 { format!("{experts} experts of ") } else { String::new() };
        format!("{dtype} {grouped}[{m}, {k}] x [{k}, {n}]")
    }
}

/// f32 activations and weights, bf16 weights where products are bf16.
fn product_rate(ctx: Ctx, shape: Shape, compute: Compute) -> f64 {
    let Shape { experts, m, n, k } = shape;
    let (mut x, mut w) = (Scratch::<f32>::take(experts * m * k), Scratch::<u32>::take(experts * n * k));
    let mut c = Scratch::<f32>::take(experts * m * n);
    x.fill(0.75);
    // Two bf16 1.0, or one f32 of about 1.
    w.fill(0x3f80_3f80);
    let y = c.as_mut_ptr();
    let x = MatIn::f32(x.as_ptr(), k);
    let w = match compute {
        Compute::F32 => MatIn::f32(w.as_ptr().cast(), k),
        Compute::Bf16 => MatIn::bf16(w.as_ptr().cast(), k),
    };
    let offsets: Vec<i32> = (0..=experts).map(|e| (e * m) as i32).collect();
    let grouped =
        GroupedMatmul { x, w, offsets: &offsets, y, out_dim: n, in_dim: k, trans_w: false, accumulate: false, compute };
    let first = Product { m, n, k, a: x, b: w.t(), c: y, ldc: n, accumulate: false };
    let plain = Matmul { first, batch: 1, stride_a: 0, stride_b: 0, stride_c: 0, compute };
    best_rate(|| {
        // SAFETY: the scratch holds all operands.
        unsafe { if experts > 1 { grouped_matmul(ctx, &grouped) } else { matmul(ctx, &plain) } }
        2.0 * (experts * m * n * k) as f64
    })
}

fn peaks(ctx: Ctx) -> Peaks {
    Peaks {
        f32_flops: peak(ctx, Isa::Portable, work::f32_fma),
        bf16_flops: peak(ctx, Isa::Avx512Bf16, |_| work::bf16_dot()),
        int8_ops: peak(ctx, Isa::Avx512Bf16, |_| work::int8_dot()),
        amx_flops: peak(ctx, Isa::Amx, |_| work::amx()),
    }
}

/// Operations per second of `burst`, which returns how many it did, on all threads at once; 0 below `needs`.
fn peak(ctx: Ctx, needs: Isa, burst: impl Fn(Isa) -> f64 + Sync) -> f64 {
    if ctx.isa < needs {
        return 0.0;
    }
    best_rate(|| {
        let ops = Mutex::new(0.0);
        ctx.pool.run(8 * ctx.pool.threads(), &|_| {
            let done = burst(ctx.isa);
            *ops.lock().expect("no chunk panics") += done;
        });
        ops.into_inner().expect("no chunk panics")
    })
}

fn read_rate(ctx: Ctx) -> f64 {
    const CHUNK: usize = 1 << 18;
    let mut memory = Scratch::<f32>::take(64 << 20);
    // Untouched memory would all be one page of zeros.
    memory.fill(1.0);
    let chunks = memory.len() / CHUNK;
    best_rate(|| {
        ctx.pool.run(chunks, &|i| {
            black_box(work::read(ctx.isa, &memory[i * CHUNK..][..CHUNK]));
        });
        size_of_val(&*memory) as f64
    })
}

/// The best of several runs: what the machine does when nobody disturbs it.
fn best_rate(mut run: impl FnMut() -> f64) -> f64 {
    const RUNS: usize = 24;
    const BUDGET: Duration = Duration::from_millis(400);
    let begin = Instant::now();
    let mut best = 0.0f64;
    for _ in 0..RUNS {
        let start = Instant::now();
        let amount = run();
        best = best.max(amount / start.elapsed().as_secs_f64());
        if begin.elapsed() > BUDGET {
            break;
        }
    }
    best
}

#[cfg(target_arch = "x86_64")]
mod work {
    use crate::Isa;
    use crate::gemm::amx;
    use std::arch::x86_64::*;
    use std::hint::black_box;

    const ROUNDS: usize = 20_000;
    /// Independent chains; enough to hide the latency of a multiply-add.
    const CHAINS: usize = 12;

    pub fn f32_fma(isa: Isa) -> f64 {
        // SAFETY: the instruction set is available.
        unsafe {
            match isa {
                Isa::Portable => f32_portable(),
                Isa::Avx2 => f32_avx2(),
                _ => f32_avx512(),
            }
        }
    }

    fn f32_portable() -> f64 {
        let (a, b) = (black_box([0.5f32; 4]), black_box([0.25f32; 4]));
        let mut acc = [[0.0f32; 4]; CHAINS];
        for _ in 0..ROUNDS {
            for c in &mut acc {
                for i in 0..4 {
                    c[i] = c[i] * a[i] + b[i];
                }
            }
        }
        black_box(acc);
        (ROUNDS * CHAINS * 4 * 2) as f64
    }

    #[target_feature(enable = "avx2,fma")]
    fn f32_avx2() -> f64 {
        let (a, b) = (_mm256_set1_ps(black_box(0.5)), _mm256_set1_ps(black_box(0.25)));
        let mut acc = [_mm256_setzero_ps(); CHAINS];
        for _ in 0..ROUNDS {
            for c in &mut acc {
                *c = _mm256_fmadd_ps(a, b, *c);
            }
        }
        black_box(acc);
        (ROUNDS * CHAINS * 8 * 2) as f64
    }

    #[target_feature(enable = "avx512f")]
    fn f32_avx512() -> f64 {
        let (a, b) = (_mm512_set1_ps(black_box(0.5)), _mm512_set1_ps(black_box(0.25)));
        let mut acc = [_mm512_setzero_ps(); CHAINS];
        for _ in 0..ROUNDS {
            for c in &mut acc {
                *c = _mm512_fmadd_ps(a, b, *c);
            }
        }
        black_box(acc);
        (ROUNDS * CHAINS * 16 * 2) as f64
    }

    pub fn bf16_dot() -> f64 {
        #[target_feature(enable = "avx512f,avx512bf16")]
        fn burst() -> f64 {
            let half = _mm512_set1_ps(black_box(0.5));
            let pair = _mm512_cvtne2ps_pbh(half, half);
            let mut acc = [_mm512_setzero_ps(); CHAINS];
            for _ in 0..ROUNDS {
                for c in &mut acc {
                    *c = _mm512_dpbf16_ps(*c, pair, pair);
                }
            }
            black_box(acc);
            (ROUNDS * CHAINS * 32 * 2) as f64
        }
        // SAFETY: the instruction set is available.
        unsafe { burst() }
    }

    pub fn int8_dot() -> f64 {
        #[target_feature(enable = "avx512f,avx512vnni")]
        fn burst() -> f64 {
            let ones = _mm512_set1_epi8(black_box(1));
            let mut acc = [_mm512_setzero_si512(); CHAINS];
            for _ in 0..ROUNDS {
                for c in &mut acc {
                    *c = _mm512_dpbusd_epi32(*c, ones, ones);
                }
            }
            black_box(acc);
            (ROUNDS * CHAINS * 64 * 2) as f64
        }
        // SAFETY: the instruction set is available.
        unsafe { burst() }
    }

    pub fn amx() -> f64 {
        const TILES: usize = 2_000;
        // SAFETY: the instruction set is available.
        unsafe { amx::products_of_zero(TILES) };
        (TILES * 4 * 16 * 16 * 32 * 2) as f64
    }

    pub fn read(isa: Isa, data: &[f32]) -> f32 {
        #[target_feature(enable = "avx512f")]
        fn wide(data: &[f32]) -> f32 {
            let mut acc = [_mm512_setzero_ps(); 4];
            for block in data.chunks_exact(64) {
                for (i, a) in acc.iter_mut().enumerate() {
                    // SAFETY: the block holds 64 values.
                    *a = _mm512_add_ps(*a, unsafe { _mm512_loadu_ps(block.as_ptr().add(16 * i)) });
                }
            }
            _mm512_reduce_add_ps(_mm512_add_ps(_mm512_add_ps(acc[0], acc[1]), _mm512_add_ps(acc[2], acc[3])))
        }
        if isa >= Isa::Avx512 {
            // SAFETY: the instruction set is available.
            return unsafe { wide(data) };
        }
        let mut acc = [0.0f32; 16];
        for block in data.chunks_exact(16) {
            for (a, x) in acc.iter_mut().zip(block) {
                *a += x;
            }
        }
        acc.iter().sum()
    }
}

#[cfg(not(target_arch = "x86_64"))]
mod work {
    use crate::Isa;
    use std::hint::black_box;

    pub fn f32_fma(_isa: Isa) -> f64 {
        const ROUNDS: usize = 20_000;
        let (a, b) = (black_box([0.5f32; 4]), black_box([0.25f32; 4]));
        let mut acc = [[0.0f32; 4]; 12];
        for _ in 0..ROUNDS {
            for c in &mut acc {
                for i in 0..4 {
                    c[i] = c[i] * a[i] + b[i];
                }
            }
        }
        black_box(acc);
        (ROUNDS * 12 * 4 * 2) as f64
    }

    pub fn bf16_dot() -> f64 {
        0.0
    }

    pub fn int8_dot() -> f64 {
        0.0
    }

    pub fn amx() -> f64 {
        0.0
    }

    pub fn read(_isa: Isa, data: &[f32]) -> f32 {
        data.iter().sum()
    }
}
