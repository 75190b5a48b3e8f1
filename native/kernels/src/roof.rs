//! The measured roof of this machine: what the cores can do at best, so that speeds can be told as a share of it.

use crate::scratch::Scratch;
use crate::{Ctx, Isa, Pool};
use std::hint::black_box;
use std::time::Instant;

/// Best rates over all threads together.
#[derive(Clone, Copy, Debug)]
pub struct Roof {
    pub threads: usize,
    /// Bytes per second of reading memory much larger than the caches.
    pub read_bytes_per_sec: f64,
    /// f32 multiply-adds, two operations each.
    pub f32_flops: f64,
    /// bf16 dot products on vector registers; 0 where the CPU has none.
    pub bf16_flops: f64,
    /// int8 dot products on vector registers; 0 where the CPU has none.
    pub int8_ops: f64,
    /// bf16 products on AMX tiles; 0 where the CPU has none.
    pub amx_flops: f64,
}

/// Measures for about half a second.
pub fn measure(threads: usize) -> Roof {
    let pool = Pool::new(threads);
    let ctx = Ctx {
        isa: Isa::detect(),
        pool: &pool,
    };
    Roof {
        threads: pool.threads(),
        read_bytes_per_sec: read_rate(ctx),
        f32_flops: peak(ctx, Isa::Portable, |isa| work::f32_fma(isa)),
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
    let threads = ctx.pool.threads();
    let chunks = 16 * threads;
    best_rate(|| {
        let ops = std::sync::Mutex::new(0.0);
        ctx.pool.run(chunks, &|_| {
            let done = burst(ctx.isa);
            *ops.lock().expect("no chunk panics") += done;
        });
        ops.into_inner().expect("no chunk panics")
    })
}

fn read_rate(ctx: Ctx) -> f64 {
    const CHUNK: usize = 1 << 18;
    let memory = Scratch::<f32>::take(64 << 20);
    let chunks = memory.len() / CHUNK;
    best_rate(|| {
        ctx.pool.run(chunks, &|i| {
            black_box(work::read(ctx.isa, &memory[i * CHUNK..][..CHUNK]));
        });
        size_of_val(&*memory) as f64
    })
}

/// The best of several runs: what the machine can do when nobody disturbs it.
fn best_rate(mut run: impl FnMut() -> f64) -> f64 {
    (0..8).fold(0.0, |best: f64, _| {
        let start = Instant::now();
        let amount = run();
        best.max(amount / start.elapsed().as_secs_f64())
    })
}

#[cfg(target_arch = "x86_64")]
mod work {
    use crate::Isa;
    use crate::gemm::amx;
    use std::arch::x86_64::*;
    use std::hint::black_box;

    const ROUNDS: usize = 50_000;
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
        let (a, b) = (
            _mm256_set1_ps(black_box(0.5)),
            _mm256_set1_ps(black_box(0.25)),
        );
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
        let (a, b) = (
            _mm512_set1_ps(black_box(0.5)),
            _mm512_set1_ps(black_box(0.25)),
        );
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
        const TILES: usize = 20_000;
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
            _mm512_reduce_add_ps(_mm512_add_ps(
                _mm512_add_ps(acc[0], acc[1]),
                _mm512_add_ps(acc[2], acc[3]),
            ))
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
        const ROUNDS: usize = 50_000;
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
