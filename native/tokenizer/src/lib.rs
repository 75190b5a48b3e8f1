//! Byte-level BPE with the pre-tokenizers of the DeepSeek family: training and encoding. No FFI; decoding is done in
//! TypeScript.

mod added;
mod encoder;
mod merges;
mod piece_cache;
mod pieces;
mod pre_tokenizer;
mod row;
mod staged;
mod trainer;
mod unicode;

pub use added::AddedTokens;
pub use encoder::Encoder;
pub use pieces::for_each_piece;
pub use pre_tokenizer::PreTokenizer;
pub use trainer::Trainer;
