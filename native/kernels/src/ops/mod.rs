//! Every kernel of the contract except the matrix products.
//!
//! Operands stand first, in the contract's order, as slices that start at the operand's offset; then the numbers. A
//! kernel panics when an index or a length does not fit; the caller turns that into an error.

// Loops over several arrays of one length read like their formula.
#![allow(clippy::needless_range_loop)]

mod adamw;
mod attention;
mod attention_backward;
mod cache;
mod chunks;
mod cross_entropy;
mod elementwise;
mod embedding;
mod gqa_decode;
mod mla_decode;
mod moe;
mod paged;
mod random;
mod rms_norm;
mod rope;
mod route;
mod silu_mul;
pub(crate) mod simd;
#[cfg(test)]
pub(crate) mod testing;

pub use adamw::{Adamw, AdamwState, adamw_into};
pub use attention::{Attention, Qkv, attention};
pub use attention_backward::{AttentionGradients, AttentionSaved, attention_backward};
pub use cache::{CacheWrite, cache_write};
pub use chunks::Shared;
pub use cross_entropy::{Logits, softmax_cross_entropy};
pub use elementwise::{Copy2d, Source, Target, add, axpy, copy2d, fill, gather_rows, sum, sum_squares};
pub use embedding::{EmbeddingBackward, embedding, embedding_backward};
pub use gqa_decode::{GqaCache, GqaDecode, gqa_decode};
pub use mla_decode::{MlaCache, MlaDecode, mla_decode};
pub use moe::{BalanceLoss, Combine, Load, MoePlan, balance_loss, combine, expert_counts, moe_plan, router_bias_into};
pub use random::random_normal;
pub use rms_norm::{RmsNorm, RmsNormBackward, RmsNormSaved, rms_norm, rms_norm_backward};
pub use rope::{Rope, rope};
pub use route::{GroupScore, Route, RouteBackward, RouteGradients, Routed, ScoreFunc, route, route_backward};
pub use silu_mul::{SiluMulSaved, silu_mul, silu_mul_backward};
