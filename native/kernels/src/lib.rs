//! Pure mathematics: slices in, slices out. No FFI, no JavaScript, testable with `cargo test` alone.

pub mod gemm;
pub mod isa;
pub mod ops;
pub mod pool;
pub mod roof;
pub mod scratch;
pub mod stored;

pub use isa::Isa;
pub use pool::Pool;

/// What every kernel is handed: the instruction set to use and the threads to use it on.
#[derive(Clone, Copy)]
pub struct Ctx<'a> {
    pub isa: Isa,
    pub pool: &'a Pool,
}
