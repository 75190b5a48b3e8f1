//! The pre-tokenizers of the family, by the names that GGUF gives them.

use crate::pieces;
use crate::staged::{CODER, LLM, Staged};

pub enum PreTokenizer {
    V3,
    Staged(&'static Staged),
}

impl PreTokenizer {
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "deepseek-v3" => Some(Self::V3),
            "deepseek-llm" => Some(Self::Staged(&LLM)),
            "deepseek-coder" => Some(Self::Staged(&CODER)),
            _ => None,
        }
    }

    /// Calls `emit` with each piece of `text`, in order; the pieces joined are `text`.
    pub fn for_each_piece<'a>(&self, text: &'a str, emit: impl FnMut(&'a [u8])) {
        match self {
            Self::V3 => pieces::for_each_piece(text, emit),
            Self::Staged(staged) => staged.for_each_piece(text, emit),
        }
    }
}
