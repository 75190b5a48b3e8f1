//! Training: the pair with the highest count is merged; among equal counts the one with the smallest (left id, right
//! id). A pair that occurs once is not merged. Ids: special tokens, 256 bytes in the order of the GPT-2 alphabet, merges.
//!
//! Texts are fed one by one and only their distinct pieces are kept, of a very large corpus only the more frequent ones,
//! so memory has a bound that no corpus exceeds.

use std::collections::{BinaryHeap, HashMap};

use rustc_hash::FxHashMap;

use crate::added::{AddedTokens, Part};
use crate::pieces::for_each_piece;

/// Longer pieces are counted in parts, so that a text without borders (base64, one letter) cannot make each merge slow.
const MAX_WORD_BYTES: usize = 256;
/// About what the distinct words may take in training before the rarest of them are forgotten: a million short ones.
const ROOM_BYTES: usize = 256 << 20;
/// A pair must occur this often to be merged.
const MIN_COUNT: i64 = 2;

type Pair = (u32, u32);

/// Counts pieces, then learns merges from the counts.
pub struct Trainer {
    vocab_size: u32,
    n_special: u32,
    special: AddedTokens,
    counts: Counts,
}

impl Trainer {
    /// `vocab_size` must be at least 256 plus the number of special tokens, which are cut out of the texts.
    pub fn new(vocab_size: u32, special: Vec<String>) -> Self {
        let n_special = special.len() as u32;
        Self {
            vocab_size,
            n_special,
            special: AddedTokens::new(special.into_iter().zip(0..)),
            counts: Counts::new(ROOM_BYTES),
        }
    }

    /// Counts the pieces of one text.
    pub fn feed(&mut self, text: &str) {
        let counts = &mut self.counts;
        self.special.for_each_part(text, |part| {
            if let Part::Text(words) = part {
                for_each_piece(words, |piece| counts.add(piece));
            }
        });
    }

    /// The merges as (left, right, merged) ids, in the order of their ranks. Fewer than asked for when no pair that
    /// occurs twice is left.
    pub fn train(self) -> Vec<[u32; 3]> {
        let first_byte = self.n_special;
        let mut vocab = Vocab::new(first_byte);
        let mut words = Words::new(self.counts.by_word, first_byte);
        let mut merges = Vec::new();
        while vocab.len() < self.vocab_size {
            let Some(pair) = words.pop_best() else { break };
            let merged = vocab.merge(pair);
            words.apply(pair, merged);
            merges.push([pair.0, pair.1, merged]);
        }
        merges
    }
}

/// How often each word occurs. When there are too many the rarest are forgotten: their counts begin anew.
struct Counts {
    by_word: HashMap<Box<[u8]>, i64>,
    bytes: usize,
    room: usize,
}

impl Counts {
    fn new(room: usize) -> Self {
        Self { by_word: HashMap::new(), bytes: 0, room }
    }

    fn add(&mut self, piece: &[u8]) {
        for word in piece.chunks(MAX_WORD_BYTES).filter(|word| word.len() > 1) {
            if let Some(count) = self.by_word.get_mut(word) {
                *count += 1;
                continue;
            }
            self.by_word.insert(word.into(), 1);
            self.bytes += training_bytes(word);
            if self.bytes > self.room {
                self.forget_rarest();
            }
        }
    }

    /// Forgets all words that occur once, twice or less, four times or less …, until half of the room is free.
    fn forget_rarest(&mut self) {
        let mut rarest = 1;
        while self.bytes > self.room / 2 {
            self.by_word.retain(|_, count| *count > rarest);
            self.bytes = self.by_word.keys().map(|word| training_bytes(word)).sum();
            rarest *= 2;
        }
    }
}

/// What a word takes while merges are learned: its bytes, a token id for each, its places in the lists of its pairs.
fn training_bytes(word: &[u8]) -> usize {
    100 + 16 * word.len()
}

/// The place of a byte in the GPT-2 alphabet: printable Latin-1 characters first, then the other bytes.
fn alphabet_index(byte: u8) -> u32 {
    let byte = u32::from(byte);
    match byte {
        0x21..=0x7E => byte - 0x21,
        0xA1..=0xAC => byte - 0xA1 + 94,
        0xAE..=0xFF => byte - 0xAE + 106,
        0..=0x20 => byte + 188,
        0x7F..=0xA0 => byte - 0x7F + 221,
        _ => 255,
    }
}

/// The bytes of each token and the id of each byte string. Two merges can spell the same token: it has one id.
struct Vocab {
    first: u32,
    tokens: Vec<Box<[u8]>>,
    ids: HashMap<Box<[u8]>, u32>,
}

impl Vocab {
    fn new(first: u32) -> Self {
        let mut tokens = vec![Box::default(); 256];
        for byte in 0..=255 {
            tokens[alphabet_index(byte) as usize] = Box::from([byte]);
        }
        Self { first, tokens, ids: HashMap::new() }
    }

    fn len(&self) -> u32 {
        self.first + self.tokens.len() as u32
    }

    fn bytes(&self, id: u32) -> &[u8] {
        &self.tokens[(id - self.first) as usize]
    }

    fn merge(&mut self, (left, right): Pair) -> u32 {
        let bytes: Box<[u8]> = [self.bytes(left), self.bytes(right)].concat().into();
        let fresh = self.len();
        let id = *self.ids.entry(bytes.clone()).or_insert(fresh);
        if id == fresh {
            self.tokens.push(bytes);
        }
        id
    }
}

/// Where a pair occurs: how often, and in which words (some may have lost it since).
#[derive(Default)]
struct Occurrences {
    count: i64,
    words: Vec<u32>,
}

/// The distinct words as token ids, the counts of all neighbouring pairs, and a queue of the pairs.
struct Words {
    words: Vec<(Vec<u32>, i64)>,
    pairs: FxHashMap<Pair, Occurrences>,
    /// (count, pair) with the smallest pair on top among equals. An entry whose count has changed since is stale.
    queue: BinaryHeap<(i64, std::cmp::Reverse<Pair>)>,
}

impl Words {
    fn new(counts: HashMap<Box<[u8]>, i64>, first_byte: u32) -> Self {
        let to_ids = |word: &[u8]| word.iter().map(|&byte| first_byte + alphabet_index(byte)).collect();
        let words: Vec<(Vec<u32>, i64)> = counts.into_iter().map(|(word, count)| (to_ids(&word), count)).collect();
        let mut pairs = FxHashMap::<Pair, Occurrences>::default();
        for (i, (ids, count)) in words.iter().enumerate() {
            for pair in ids.windows(2) {
                add(&mut pairs, (pair[0], pair[1]), *count, i as u32);
            }
        }
        let queue = pairs.iter().map(|(&pair, at)| (at.count, std::cmp::Reverse(pair))).collect();
        Self { words, pairs, queue }
    }

    /// Takes the best pair out, or none when the best occurs too rarely.
    fn pop_best(&mut self) -> Option<Pair> {
        while let Some((count, std::cmp::Reverse(pair))) = self.queue.pop() {
            let now = self.pairs.get(&pair).map_or(0, |at| at.count);
            if now < MIN_COUNT {
                continue;
            }
            if now == count {
                return Some(pair);
            }
            if now < count {
                self.queue.push((now, std::cmp::Reverse(pair)));
            }
        }
        None
    }

    /// Replaces `pair` by `merged` in every word and brings the counts of the neighbouring pairs up to date.
    fn apply(&mut self, pair: Pair, merged: u32) {
        let at = self.pairs.remove(&pair).expect("the best pair has occurrences");
        let mut grown = Vec::new();
        for index in at.words {
            let (ids, count) = &mut self.words[index as usize];
            merge_word(ids, pair, merged, |neighbour, sign| {
                if sign > 0 {
                    add(&mut self.pairs, neighbour, *count, index);
                    grown.push(neighbour);
                } else if let Some(old) = self.pairs.get_mut(&neighbour) {
                    old.count -= *count;
                }
            });
        }
        grown.sort_unstable();
        grown.dedup();
        for pair in grown {
            if let Some(at) = self.pairs.get(&pair) {
                self.queue.push((at.count, std::cmp::Reverse(pair)));
            }
        }
    }
}

fn add(pairs: &mut FxHashMap<Pair, Occurrences>, pair: Pair, count: i64, word: u32) {
    let at = pairs.entry(pair).or_default();
    at.count += count;
    if at.words.last() != Some(&word) {
        at.words.push(word);
    }
}

/// Merges `pair` in `ids` from the left and reports each neighbouring pair that went (−1) or came (+1).
fn merge_word(ids: &mut Vec<u32>, pair: Pair, merged: u32, mut change: impl FnMut(Pair, i8)) {
    let (mut read, mut write) = (0, 0);
    while read < ids.len() {
        let here = ids[read];
        if here != pair.0 || ids.get(read + 1) != Some(&pair.1) {
            ids[write] = here;
            read += 1;
            write += 1;
            continue;
        }
        if write > 0 {
            change((ids[write - 1], pair.0), -1);
            change((ids[write - 1], merged), 1);
        }
        if let Some(&next) = ids.get(read + 2) {
            change((pair.1, next), -1);
            change((merged, next), 1);
        }
        ids[write] = merged;
        read += 2;
        write += 1;
    }
    ids.truncate(write);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The rule itself, with all counts taken anew for each merge.
    fn plain_merges(texts: &[&str], n_merges: usize) -> Vec<Pair> {
        let mut words: Vec<Vec<u32>> = Vec::new();
        for text in texts {
            for_each_piece(text, |piece| words.push(piece.iter().map(|&byte| alphabet_index(byte)).collect()));
        }
        let mut spelling: HashMap<Vec<u8>, u32> = HashMap::new();
        let mut bytes: Vec<Vec<u8>> = vec![Vec::new(); 256];
        (0..=255).for_each(|byte| bytes[alphabet_index(byte) as usize] = vec![byte]);
        let mut merges = Vec::new();
        while merges.len() < n_merges {
            let mut counts: HashMap<Pair, i64> = HashMap::new();
            words.iter().flat_map(|word| word.windows(2)).for_each(|w| *counts.entry((w[0], w[1])).or_default() += 1);
            let best = counts.iter().max_by_key(|(pair, count)| (**count, std::cmp::Reverse(**pair)));
            let Some((&pair, &count)) = best else { break };
            if count < MIN_COUNT {
                break;
            }
            let text = [bytes[pair.0 as usize].clone(), bytes[pair.1 as usize].clone()].concat();
            let merged = *spelling.entry(text.clone()).or_insert(bytes.len() as u32);
            if merged as usize == bytes.len() {
                bytes.push(text);
            }
            words.iter_mut().for_each(|word| merge_word(word, pair, merged, |_, _| ()));
            merges.push(pair);
        }
        merges
    }

    fn trained(texts: &[&str], n_merges: u32) -> Vec<[u32; 3]> {
        let mut trainer = Trainer::new(256 + n_merges, Vec::new());
        texts.iter().for_each(|text| trainer.feed(text));
        trainer.train()
    }

    #[test]
    fn incremental_counts_give_the_merges_of_the_plain_rule() {
        let texts = [include_str!("pieces.rs"), "aaaa aaaaa aaaaaa abab ababab \n\n  \n\n"];
        let pairs: Vec<Pair> = trained(&texts, 400).iter().map(|&[left, right, _]| (left, right)).collect();
        assert_eq!(pairs, plain_merges(&texts, 400));
    }

    #[test]
    fn equal_counts_go_to_the_smallest_pair() {
        let [b, c, x, y] = [b'b', b'c', b'x', b'y'].map(alphabet_index);
        assert_eq!(trained(&["xy\nbc\nxy\nbc"], 2), [[b, c, 256], [x, y, 257]]);
    }

    #[test]
    fn a_pair_that_occurs_once_is_not_merged() {
        assert_eq!(trained(&["ab\nab\ncd"], 100).len(), 1);
    }

    #[test]
    fn the_order_of_the_texts_does_not_matter() {
        let texts = ["one two three", "two three four", "three four five five"];
        let reversed: Vec<&str> = texts.iter().rev().copied().collect();
        assert_eq!(trained(&texts, 40), trained(&reversed, 40));
    }

    #[test]
    fn words_without_end_take_no_more_than_their_room_and_leave_the_frequent_ones() {
        let mut counts = Counts::new(100_000);
        for i in 0..20_000 {
            counts.add(format!(" once{i}").as_bytes());
            counts.add(b" often");
            assert!(counts.bytes <= counts.room);
        }
        assert_eq!(counts.by_word[b" often".as_slice()], 20_000);
        assert_eq!(counts.bytes, counts.by_word.keys().map(|word| training_bytes(word)).sum::<usize>());
    }

    #[test]
    fn room_is_made_among_words_of_any_count() {
        let mut counts = Counts::new(2000);
        for round in 0..50 {
            for i in 0..9 {
                counts.add(format!("word {i} of {round}").repeat(2).as_bytes());
            }
        }
        for _ in 0..3 {
            (0..20).for_each(|i| counts.add(format!("thrice {i}").as_bytes()));
        }
        assert!(counts.bytes <= counts.room);
    }

    #[test]
    fn special_tokens_are_not_learned_and_take_the_first_ids() {
        let mut trainer = Trainer::new(300, vec!["<s>".into()]);
        trainer.feed("<s>ab<s>ab<s>");
        let [a, b] = [b'a', b'b'].map(alphabet_index);
        assert_eq!(trainer.train(), [[a + 1, b + 1, 257]]);
    }

    #[test]
    fn the_alphabet_is_a_permutation_that_starts_with_the_printable_bytes() {
        let mut seen: Vec<u32> = (0..=255).map(alphabet_index).collect();
        assert_eq!(seen[usize::from(b'!')], 0);
        seen.sort_unstable();
        assert_eq!(seen, (0..256).collect::<Vec<u32>>());
    }
}
