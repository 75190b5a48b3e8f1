//! Encoding: added tokens, pieces, then the merges of each piece in the order of their ranks.

use std::iter;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use crate::added::{AddedTokens, Part};
use crate::merges::{Merger, Merges};
use crate::piece_cache::PieceCache;
use crate::pre_tokenizer::PreTokenizer;

/// A byte-level BPE vocabulary, ready to encode. Shared by threads; the ids do not depend on their number.
pub struct Encoder {
    pre_tokenizer: PreTokenizer,
    byte_ids: [u32; 256],
    merges: Merges,
    added: AddedTokens,
    workers: Mutex<Vec<Worker>>,
}

/// What one thread keeps between pieces.
#[derive(Default)]
struct Worker {
    cache: PieceCache,
    merger: Merger,
}

impl Encoder {
    /// `merges` holds (left, right, merged) ids in the order of their ranks.
    pub fn new(pre_tokenizer: PreTokenizer, byte_ids: [u32; 256], merges: &[[u32; 3]], added: AddedTokens) -> Self {
        Self { pre_tokenizer, byte_ids, merges: Merges::new(merges), added, workers: Mutex::default() }
    }

    /// The ids of `text`. Without `allow_special`, added tokens in it are encoded as plain text.
    pub fn encode(&self, text: &str, allow_special: bool) -> Vec<u32> {
        let mut out = Vec::with_capacity(text.len() / 3);
        let mut worker = self.take_worker();
        self.encode_into(text, allow_special, &mut worker, &mut out);
        self.lock_workers().push(worker);
        out
    }

    /// The ids of all texts, one behind the other, and where each text starts in them, with the end as last entry.
    /// Works on all cores.
    pub fn encode_many(&self, texts: &[String], allow_special: bool) -> (Vec<u32>, Vec<u32>) {
        let next = AtomicUsize::new(0);
        let work = || self.encode_claimed(texts, allow_special, &next);
        let threads = thread::available_parallelism().map_or(1, NonZeroUsize::get).min(texts.len()).max(1);
        let shares: Vec<Share> = thread::scope(|scope| {
            let others: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
            let own = work();
            let others = others.into_iter().map(|other| other.join().expect("an encoding thread panicked"));
            iter::once(own).chain(others).collect()
        });
        in_order(&shares, texts.len())
    }

    /// Encodes texts until `next` says that all are claimed.
    fn encode_claimed(&self, texts: &[String], allow_special: bool, next: &AtomicUsize) -> Share {
        let mut share = Share::default();
        let mut worker = self.take_worker();
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(text) = texts.get(index) else { break };
            let start = share.ids.len();
            self.encode_into(text, allow_special, &mut worker, &mut share.ids);
            share.texts.push((index, start..share.ids.len()));
        }
        self.lock_workers().push(worker);
        share
    }

    fn take_worker(&self) -> Worker {
        self.lock_workers().pop().unwrap_or_default()
    }

    fn lock_workers(&self) -> std::sync::MutexGuard<'_, Vec<Worker>> {
        self.workers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn encode_into(&self, text: &str, allow_special: bool, worker: &mut Worker, out: &mut Vec<u32>) {
        if !allow_special {
            return self.pre_tokenizer.for_each_piece(text, |piece| self.encode_piece(piece, worker, out));
        }
        self.added.for_each_part(text, |part| match part {
            Part::Added(id) => out.push(id),
            Part::Text(words) => {
                self.pre_tokenizer.for_each_piece(words, |piece| self.encode_piece(piece, worker, out))
            }
        });
    }

    fn encode_piece(&self, piece: &[u8], worker: &mut Worker, out: &mut Vec<u32>) {
        if let [byte] = piece {
            return out.push(self.byte_ids[usize::from(*byte)]);
        }
        if let Some(ids) = worker.cache.get(piece) {
            return out.extend_from_slice(ids);
        }
        let start = out.len();
        worker.merger.merge(&self.merges, &self.byte_ids, piece, out);
        worker.cache.insert(piece, &out[start..]);
    }
}

/// What one thread has encoded: which texts, and where their ids stand.
#[derive(Default)]
struct Share {
    ids: Vec<u32>,
    texts: Vec<(usize, Range<usize>)>,
}

fn in_order(shares: &[Share], n_texts: usize) -> (Vec<u32>, Vec<u32>) {
    let mut parts: Vec<&[u32]> = vec![&[]; n_texts];
    for share in shares {
        for (index, range) in &share.texts {
            parts[*index] = &share.ids[range.clone()];
        }
    }
    let ends = parts.iter().scan(0, |end, part| {
        *end += part.len() as u32;
        Some(*end)
    });
    (parts.concat(), iter::once(0).chain(ends).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoder() -> Encoder {
        let bytes = std::array::from_fn(|byte| byte as u32);
        let (a, b) = (u32::from(b'a'), u32::from(b'b'));
        let merges = [[a, b, 256], [256, 256, 257], [b, a, 258], [a, a, 259]];
        Encoder::new(PreTokenizer::V3, bytes, &merges, AddedTokens::new([("<x>".into(), 260)]))
    }

    #[test]
    fn the_lowest_rank_merges_first_and_ties_go_left() {
        assert_eq!(encoder().encode("abab", true), [257]);
        assert_eq!(encoder().encode("ababab", true), [257, 256]);
        assert_eq!(encoder().encode("aba", true), [256, u32::from(b'a')]);
        assert_eq!(encoder().encode("aaa", true), [259, u32::from(b'a')]);
    }

    #[test]
    fn added_tokens_are_plain_text_unless_allowed() {
        assert_eq!(encoder().encode("ab<x>ab", true), [256, 260, 256]);
        assert_eq!(encoder().encode("<x>", false), [60, 120, 62]);
    }

    #[test]
    fn many_texts_give_what_each_gives_alone() {
        let texts: Vec<String> = (0..200).map(|i| "ab ba ".repeat(i)).collect();
        let (ids, starts) = encoder().encode_many(&texts, true);
        for (i, text) in texts.iter().enumerate() {
            assert_eq!(ids[starts[i] as usize..starts[i + 1] as usize], encoder().encode(text, true));
        }
        assert_eq!(encoder().encode_many(&[], true), (vec![], vec![0]));
    }
}
