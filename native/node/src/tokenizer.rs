//! The tokenizer for JavaScript: strings in, ids out. Ids are copied into JavaScript's own memory.

use fathom_tokenizer::{AddedTokens, Encoder, PreTokenizer, Trainer};
use napi::bindgen_prelude::{Env, Int32ArraySlice, Result, Uint32ArraySlice};
use napi::{Error, Status};
use napi_derive::napi;

/// Learns merges from texts that are fed one by one.
#[napi]
pub struct BpeTrainer {
    /// Taken by `train`.
    trainer: Option<Trainer>,
}

#[napi]
impl BpeTrainer {
    #[napi(constructor, catch_unwind)]
    pub fn new(vocab_size: u32, special_tokens: Vec<String>) -> Self {
        let trainer = Some(Trainer::new(vocab_size, special_tokens));
        Self { trainer }
    }

    /// Counts the pieces of one text.
    #[napi(catch_unwind)]
    pub fn feed(&mut self, text: String) -> Result<()> {
        let trainer = self.trainer.as_mut().ok_or_else(already_trained)?;
        trainer.feed(&text);
        Ok(())
    }

    /// (left, right, merged) ids of each merge, in the order of their ranks. The trainer is used up.
    #[napi(catch_unwind)]
    pub fn train<'env>(&mut self, env: &'env Env) -> Result<Uint32ArraySlice<'env>> {
        let trainer = self.trainer.take().ok_or_else(already_trained)?;
        Uint32ArraySlice::from_data(env, trainer.train().into_flattened())
    }
}

fn already_trained() -> Error {
    Error::new(Status::GenericFailure, "the trainer has been used up by train()")
}

/// A vocabulary, ready to encode.
#[napi]
pub struct BpeEncoder {
    encoder: Encoder,
}

/// The ids of several texts, one behind the other; text `i` has those from `starts[i]` to `starts[i + 1]`.
#[napi(object, object_from_js = false)]
pub struct EncodedTexts<'env> {
    pub ids: Int32ArraySlice<'env>,
    pub starts: Vec<u32>,
}

#[napi]
impl BpeEncoder {
    /// `byte_ids` holds the id of each byte, `merges` (left, right, merged) ids in the order of their ranks.
    #[napi(constructor, catch_unwind)]
    pub fn new(
        byte_ids: &[u32],
        merges: &[u32],
        added: Vec<String>,
        added_ids: &[u32],
        pre_tokenizer: String,
    ) -> Result<Self> {
        let pre_tokenizer = PreTokenizer::named(&pre_tokenizer)
            .ok_or_else(|| Error::new(Status::InvalidArg, "the pre-tokenizer must be known"))?;
        let byte_ids =
            byte_ids.try_into().map_err(|_| Error::new(Status::InvalidArg, "byte ids must be 256 numbers"))?;
        let added = AddedTokens::new(added.into_iter().zip(added_ids.iter().copied()));
        let (merges, _) = merges.as_chunks::<3>();
        let encoder = Encoder::new(pre_tokenizer, byte_ids, merges, added);
        Ok(Self { encoder })
    }

    #[napi(catch_unwind)]
    pub fn encode<'env>(&self, env: &'env Env, text: String, allow_special: bool) -> Result<Int32ArraySlice<'env>> {
        Int32ArraySlice::copy_from(env, signed(self.encoder.encode(&text, allow_special)))
    }

    /// Encodes on all cores.
    #[napi(catch_unwind)]
    pub fn encode_many<'env>(
        &self,
        env: &'env Env,
        texts: Vec<String>,
        allow_special: bool,
    ) -> Result<EncodedTexts<'env>> {
        let (ids, starts) = self.encoder.encode_many(&texts, allow_special);
        let ids = Int32ArraySlice::copy_from(env, signed(ids))?;
        Ok(EncodedTexts { ids, starts })
    }
}

fn signed(ids: Vec<u32>) -> Vec<i32> {
    ids.into_iter().map(|id| id as i32).collect()
}
