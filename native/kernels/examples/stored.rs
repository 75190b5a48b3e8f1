//! Times products of one row with weights in stored types: `cargo run --release --example stored [threads] [size]`.
//! A line reads: type, least and median time, and bytes of weights a second at the least time.

use std::time::Instant;

use fathom_kernels::gemm::MatIn;
use fathom_kernels::stored::{Format, Item, Products, Stored, products};
use fathom_kernels::{Ctx, Isa, Pool};

fn main() {
    let mut args = std::env::args().skip(1).filter_map(|arg| arg.parse::<usize>().ok());
    let (threads, size) = (args.next().unwrap_or(1), args.next().unwrap_or(4096));
    let pool = Pool::new(threads);
    let ctx = Ctx { isa: Isa::detect(), pool: &pool };
    println!("{} with {threads} threads, {size} x {size}", ctx.isa.name());
    let x: Vec<f32> = (0..size).map(|i| ((i * 7919) % 1009) as f32 / 504.5 - 1.0).collect();
    for (compute, name) in [(0, "f32"), (1, "bf16")] {
        for format in (0..17).filter_map(|id| Format::of_id(f64::from(id))) {
            // No byte makes a scale so small that the products leave the normal range.
            let bytes: Vec<u8> = (0..format.bytes(size * size)).map(|i| 100 + (i % 19) as u8).collect();
            let mut c = vec![0.0f32; size];
            let w = Stored { format, base: bytes.as_ptr(), offset: 0, stride: size, scale: None };
            let item = Item { m: 1, a: MatIn::f32(x.as_ptr(), size), w, c: c.as_mut_ptr() };
            let shared = Products { n: size, k: size, ldc: size, trans: true, accumulate: false, compute };
            let mut times: Vec<f64> = (0..15)
                .map(|_| {
                    let start = Instant::now();
                    // SAFETY: all lies within the vectors.
                    unsafe { products(ctx, &[item], &shared) };
                    start.elapsed().as_secs_f64()
                })
                .collect();
            times.sort_by(f64::total_cmp);
            let (least, median) = (times[0], times[times.len() / 2]);
            let rate = bytes.len() as f64 / least / 1e9;
            let label = format!("{} in {name}", format.name());
            println!("{label:16} {:8.3} ms {:8.3} ms {rate:8.1} GB/s", least * 1e3, median * 1e3);
        }
    }
}
