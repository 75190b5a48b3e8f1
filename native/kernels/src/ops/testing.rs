//! What the tests of the kernels share: every instruction set, random operands, tolerances, central differences.

use crate::{Ctx, Isa, Pool};

/// Lengths around the edges of vectors and lane blocks.
pub const LENGTHS: [usize; 13] = [1, 3, 7, 8, 15, 16, 17, 31, 33, 64, 65, 100, 129];

/// Runs `kernel` on every instruction set of this machine with one thread and with two, demands the same bits, and hands
/// the result to `check`.
pub fn on_every_isa(kernel: impl Fn(Ctx) -> Vec<f32>, check: impl Fn(&[f32])) {
    let (one, two) = (Pool::new(1), Pool::new(2));
    for isa in Isa::available() {
        let result = kernel(Ctx { isa, pool: &one });
        let again = kernel(Ctx { isa, pool: &two });
        let bits = |values: &[f32]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        assert!(bits(&result) == bits(&again), "{}: bits differ between one thread and two", isa.name());
        check(&result);
    }
}

/// The best context, for tests of errors.
pub fn with_best(kernel: impl FnOnce(Ctx)) {
    kernel(Ctx { isa: Isa::detect(), pool: &Pool::new(1) });
}

/// SplitMix64.
pub struct Rng(pub u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform in [0, limit).
    pub fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    /// Uniform in [−range, range).
    pub fn uniform(&mut self, range: f32) -> f32 {
        ((self.next() >> 40) as f32 / (1 << 23) as f32 - 1.0) * range
    }

    pub fn values(&mut self, n: usize, range: f32) -> Vec<f32> {
        (0..n).map(|_| self.uniform(range)).collect()
    }

    pub fn indices(&mut self, n: usize, limit: usize) -> Vec<i32> {
        (0..n).map(|_| self.below(limit) as i32).collect()
    }
}

pub fn wide(x: &[f32]) -> Vec<f64> {
    x.iter().map(|&v| f64::from(v)).collect()
}

/// Demands |got − want| ≤ tolerance · (1 + |want|), NaN for NaN and infinities as they are.
pub fn assert_close(name: &str, got: &[f32], want: &[f64], tolerance: f64) {
    assert_eq!(got.len(), want.len(), "{name}: length");
    for (i, (&got, &want)) in got.iter().zip(want).enumerate() {
        let got = f64::from(got);
        let same =
            got == want || (got.is_nan() && want.is_nan()) || (got - want).abs() <= tolerance * (1.0 + want.abs());
        assert!(same, "{name}[{i}]: got {got}, want {want}, tolerance {tolerance}");
    }
}

/// The gradient of `f` at x by central differences.
pub fn differences(x: &[f32], f: impl Fn(&[f64]) -> f64) -> Vec<f64> {
    const STEP: f64 = 1e-5;
    let mut x = wide(x);
    (0..x.len())
        .map(|i| {
            let at = x[i];
            x[i] = at + STEP;
            let above = f(&x);
            x[i] = at - STEP;
            let below = f(&x);
            x[i] = at;
            (above - below) / (2.0 * STEP)
        })
        .collect()
}

/// `Σ a · b`.
pub fn inner(a: &[f64], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(&a, &b)| a * f64::from(b)).sum()
}
