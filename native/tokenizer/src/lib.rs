//! Byte-level BPE with the DeepSeek-V3 pre-tokenizer: training and encoding. No FFI; decoding is done in TypeScript.

mod added;
mod encoder;
mod pieces;
mod trainer;
mod unicode;

pub use added::AddedTokens;
pub use encoder::Encoder;
pub use pieces::for_each_piece;
pub use trainer::Trainer;
