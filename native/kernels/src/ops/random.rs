//! Counter-based normal numbers.

use std::f64::consts::TAU;

use super::chunks::{Shared, each_rows};
use crate::Ctx;

/// Standard normal numbers times `std`. Philox4x32-10 with key (lo, hi) and counter (i / 4, 0, 0, 0); Box–Muller on word
/// pairs (0, 1) and (2, 3).
pub fn random_normal(ctx: Ctx, y: &mut [f32], n: usize, std: f64, key: [u32; 2]) {
    let y = Shared::new(&mut y[..n]);
    let quads = n.div_ceil(4);
    // A quad costs about as much as 64 additions.
    each_rows(ctx, quads, 64, |range| {
        for quad in range {
            let first = quad * 4;
            // SAFETY: quads do not overlap.
            let y = unsafe { y.part(first, 4.min(n - first)) };
            let words = philox([quad as u32, (quad as u64 >> 32) as u32, 0, 0], key);
            let normals = [box_muller(words[0], words[1]), box_muller(words[2], words[3])];
            for (y, value) in y.iter_mut().zip(normals.as_flattened()) {
                *y = (value * std) as f32;
            }
        }
    });
}

fn box_muller(word0: u32, word1: u32) -> [f64; 2] {
    let unit = |word: u32| (f64::from(word) + 0.5) / 4_294_967_296.0;
    let radius = (-2.0 * unit(word0).ln()).sqrt();
    let (sin, cos) = (TAU * unit(word1)).sin_cos();
    [radius * cos, radius * sin]
}

/// Source: Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3", Philox4x32 with ten rounds.
fn philox(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    let multiply = |a: u32, b: u32| {
        let product = u64::from(a) * u64::from(b);
        ((product >> 32) as u32, product as u32)
    };
    for _ in 0..10 {
        let (high0, low0) = multiply(0xd251_1f53, counter[0]);
        let (high1, low1) = multiply(0xcd9e_8d57, counter[2]);
        counter = [high1 ^ counter[1] ^ key[0], low1, high0 ^ counter[3] ^ key[1], low0];
        key = [key[0].wrapping_add(0x9e37_79b9), key[1].wrapping_add(0xbb67_ae85)];
    }
    counter
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{assert_close, on_every_isa};

    #[test]
    fn philox_gives_the_vectors_of_random123() {
        let cases = [
            ([0; 4], [0; 2], [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]),
            ([u32::MAX; 4], [u32::MAX; 2], [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]),
            (
                [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344],
                [0xa409_3822, 0x299f_31d0],
                [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1],
            ),
        ];
        for (counter, key, want) in cases {
            assert_eq!(philox(counter, key), want);
        }
    }

    #[test]
    fn a_value_depends_on_its_place_alone() {
        let run = |n: usize| {
            move |ctx: Ctx| {
                let mut y = vec![0.0; n];
                random_normal(ctx, &mut y, n, 0.5, [1, 2]);
                y
            }
        };
        on_every_isa(run(5003), |long| {
            for n in [1, 2, 3, 4, 5, 100] {
                on_every_isa(run(n), |short| assert_eq!(short, &long[..n]));
            }
        });
    }

    #[test]
    fn the_first_values_follow_box_muller() {
        let unit = |word: u32| (f64::from(word) + 0.5) / 2f64.powi(32);
        let pair = |u0: f64, u1: f64| {
            let radius = (-2.0 * u0.ln()).sqrt();
            [radius * (TAU * u1).cos(), radius * (TAU * u1).sin()]
        };
        let first = pair(unit(0x6627_e8d5), unit(0xe169_c58d));
        let second = pair(unit(0xbc57_ac4c), unit(0x9b00_dbd8));
        let run = |ctx: Ctx| {
            let mut y = vec![0.0; 4];
            random_normal(ctx, &mut y, 4, 1.0, [0, 0]);
            y
        };
        on_every_isa(run, |y| assert_close("y", y, &[first, second].concat(), 1e-7));
    }

    #[test]
    fn moments_are_those_of_the_normal_distribution() {
        const N: usize = 400_000;
        let run = |ctx: Ctx| {
            let mut y = vec![0.0; N];
            random_normal(ctx, &mut y, N, 1.0, [7, 11]);
            y
        };
        on_every_isa(run, |y| {
            let moment = |k: i32| y.iter().map(|&v| f64::from(v).powi(k)).sum::<f64>() / N as f64;
            // Five standard errors of each.
            let error = |variance: f64| 5.0 * (variance / N as f64).sqrt();
            assert!(moment(1).abs() < error(1.0) && (moment(2) - 1.0).abs() < error(2.0));
            assert!(moment(3).abs() < error(15.0) && (moment(4) - 3.0).abs() < error(96.0));
        });
    }
}
