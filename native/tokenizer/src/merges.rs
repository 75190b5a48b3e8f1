//! The merges of a vocabulary, and merging one piece with them: the pair of lowest rank first, the leftmost among equals.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use rustc_hash::{FxHashMap, FxHashSet};

use crate::row::Row;

pub const NONE: u32 = u32::MAX;
/// Pieces up to this many bytes are searched for their lowest rank again after each merge; longer ones are swept and queued.
const MAX_SEARCHED_BYTES: usize = 64;
/// Tokens of long pieces for which memory is kept, 8 bytes each: those of most.
const MAX_KEPT_TOKENS: usize = 1 << 12;

/// (left id, right id) to (rank, merged id): open addressing, at most half full.
pub struct Merges {
    slots: Box<[Slot]>,
    shift: u32,
    /// The token that each rank makes.
    merged: Box<[u32]>,
    is_ordered: bool,
}

#[derive(Clone, Copy)]
struct Slot {
    left: u32,
    right: u32,
    rank: u32,
    merged: u32,
}

const FREE: Slot = Slot { left: NONE, right: NONE, rank: NONE, merged: NONE };

impl Merges {
    /// `merges` holds (left, right, merged) ids in the order of their ranks; the first of equal pairs counts.
    pub fn new(merges: &[[u32; 3]]) -> Self {
        let size = (merges.len() * 2).next_power_of_two().max(2);
        let shift = u64::BITS - size.trailing_zeros();
        let merged = merges.iter().map(|&[_, _, merged]| merged).collect();
        let mut table = Self { slots: vec![FREE; size].into(), shift, merged, is_ordered: is_ordered(merges) };
        for (rank, &[left, right, merged]) in merges.iter().enumerate() {
            let at = table.slot_of(left, right);
            if table.slots[at].rank == NONE {
                table.slots[at] = Slot { left, right, rank: rank as u32, merged };
            }
        }
        table
    }

    /// Rank and merged id of a pair; `NONE` and `NONE` when it does not merge.
    #[inline]
    pub fn get(&self, left: u32, right: u32) -> (u32, u32) {
        let slot = &self.slots[self.slot_of(left, right)];
        (slot.rank, slot.merged)
    }

    /// The token that the merge of this rank makes.
    pub fn merged_by(&self, rank: u32) -> u32 {
        self.merged[rank as usize]
    }

    /// Whether every merge makes a token that only later ones merge further. Then no merge makes a pair of lower rank than
    /// its own, as in every vocabulary that was trained.
    pub fn is_ordered(&self) -> bool {
        self.is_ordered
    }

    /// The slot of the pair, or the free one where it belongs.
    #[inline]
    fn slot_of(&self, left: u32, right: u32) -> usize {
        let key = u64::from(left) << 32 | u64::from(right);
        let mut at = (key.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> self.shift) as usize;
        loop {
            let slot = &self.slots[at];
            if slot.rank == NONE || (slot.left == left && slot.right == right) {
                return at;
            }
            at = (at + 1) & (self.slots.len() - 1);
        }
    }
}

fn is_ordered(merges: &[[u32; 3]]) -> bool {
    let mut made = FxHashSet::default();
    // From the last merge on: `made` holds what this one and later ones make.
    merges.iter().rev().all(|[left, right, merged]| {
        made.insert(merged);
        !made.contains(left) && !made.contains(right)
    })
}

/// What merging keeps between pieces, so that it does not allocate.
#[derive(Default)]
pub struct Merger {
    symbols: Vec<Symbol>,
    row: Row,
    slots: Vec<ListSlot>,
    queue: Queue,
}

/// A token of a short piece, with rank and merged id of the pair that begins here.
#[derive(Clone, Copy)]
struct Symbol {
    id: u32,
    rank: u32,
    merged: u32,
}

impl Merger {
    /// Appends the ids of `piece` to `out`.
    pub fn merge(&mut self, merges: &Merges, byte_ids: &[u32; 256], piece: &[u8], out: &mut Vec<u32>) {
        if piece.len() > MAX_SEARCHED_BYTES {
            return self.merge_long(merges, byte_ids, piece, out);
        }
        let ids = piece.iter().map(|&byte| byte_ids[usize::from(byte)]);
        self.symbols.clear();
        self.symbols.extend(ids.map(|id| Symbol { id, rank: NONE, merged: NONE }));
        self.merge_by_search(merges);
        out.extend(self.symbols.iter().map(|symbol| symbol.id));
    }

    fn merge_long(&mut self, merges: &Merges, byte_ids: &[u32; 256], piece: &[u8], out: &mut Vec<u32>) {
        if self.row.sweep(merges, byte_ids, piece) {
            out.extend(self.row.tokens().iter().map(|token| token.id));
        } else {
            self.merge_by_queue(merges);
            out.extend(self.slots.iter().map(|slot| slot.id).filter(|&id| id != NONE));
        }
        self.trim();
    }

    /// Gives memory back that only very long pieces need.
    fn trim(&mut self) {
        self.row.trim(MAX_KEPT_TOKENS);
        self.slots.clear();
        self.slots.shrink_to(MAX_KEPT_TOKENS);
        self.queue.trim();
    }

    fn merge_by_search(&mut self, merges: &Merges) {
        let symbols = &mut self.symbols;
        for i in 1..symbols.len() {
            (symbols[i - 1].rank, symbols[i - 1].merged) = merges.get(symbols[i - 1].id, symbols[i].id);
        }
        while let Some(at) = lowest(symbols) {
            symbols[at].id = symbols[at].merged;
            symbols.remove(at + 1);
            for left in [at.wrapping_sub(1), at] {
                let Some(symbol) = symbols.get(left) else { continue };
                let next = symbols.get(left + 1).map(|next| merges.get(symbol.id, next.id));
                (symbols[left].rank, symbols[left].merged) = next.unwrap_or((NONE, NONE));
            }
        }
    }

    fn merge_by_queue(&mut self, merges: &Merges) {
        let Self { row, slots, queue, .. } = self;
        slots.clear();
        slots.extend(row.tokens().iter().zip(1..).map(|(token, link)| ListSlot { id: token.id, link }));
        for (token, left) in row.tokens().iter().zip(0..).filter(|(token, _)| token.rank != NONE) {
            queue.push(token.rank, left);
        }
        row.trim(MAX_KEPT_TOKENS);
        let mut list = List { slots, merges };
        while let Some((rank, places)) = queue.pop() {
            list.merge_all(queue, rank, places);
        }
    }
}

/// The place of the lowest rank, the leftmost among equals; none when no pair merges.
#[inline]
fn lowest(symbols: &[Symbol]) -> Option<usize> {
    let (mut at, mut rank) = (0, NONE);
    for (i, symbol) in symbols.iter().enumerate() {
        if symbol.rank < rank {
            (at, rank) = (i, symbol.rank);
        }
    }
    (rank != NONE).then_some(at)
}

/// What the sweeps have left becomes a list with a slot for each of its tokens. Merged tokens keep their slots: the first one
/// of a token holds its id and, as `link`, where the next token begins; all others hold `NONE`, and the last one as `link`
/// where its token begins.
#[derive(Clone, Copy)]
struct ListSlot {
    id: u32,
    link: u32,
}

/// A long piece as a list that can be walked both ways; 8 bytes a slot, since memory decides its speed.
struct List<'a> {
    slots: &'a mut [ListSlot],
    merges: &'a Merges,
}

impl List<'_> {
    /// Merges the pairs of one rank from the left, then queues the pairs that came of it: most neighbours of a merge are
    /// merged themselves. A new pair of lower rank goes first: then what is left of this rank is queued again.
    fn merge_all(&mut self, queue: &mut Queue, rank: u32, mut places: Vec<u32>) {
        let mut kept = 0;
        for i in 0..places.len() {
            let left = places[i];
            if self.pair_at(left).0 != rank {
                continue;
            }
            self.merge_at(left);
            places[kept] = left;
            kept += 1;
            if self.pair_at(left).0.min(self.rank_before(left)) < rank {
                queue.put_back(rank, places[i + 1..].to_vec());
                break;
            }
        }
        places.truncate(kept);
        self.enqueue_around(queue, &places);
        queue.recycle(places);
    }

    fn merge_at(&mut self, left: u32) {
        let ListSlot { id, link } = self.slots[left as usize];
        let right = link as usize;
        let (_, merged) = self.merges.get(id, self.slots[right].id);
        let after = self.slots[right].link;
        self.slots[right].id = NONE;
        self.slots[after as usize - 1].link = left;
        self.slots[left as usize] = ListSlot { id: merged, link: after };
    }

    /// Queues the pairs to both sides of new tokens, which are given from the left.
    fn enqueue_around(&self, queue: &mut Queue, lefts: &[u32]) {
        let mut done = NONE;
        for &left in lefts {
            if left > 0 && self.start_of_token(left - 1) != done {
                self.enqueue(queue, self.start_of_token(left - 1));
            }
            self.enqueue(queue, left);
            done = left;
        }
    }

    fn rank_before(&self, left: u32) -> u32 {
        if left == 0 { NONE } else { self.pair_at(self.start_of_token(left - 1)).0 }
    }

    /// The first slot of the token whose last slot is `last`.
    fn start_of_token(&self, last: u32) -> u32 {
        let ListSlot { id, link } = self.slots[last as usize];
        if id == NONE { link } else { last }
    }

    /// Queues the pair at `left` if it merges.
    fn enqueue(&self, queue: &mut Queue, left: u32) {
        let (rank, _) = self.pair_at(left);
        if rank != NONE {
            queue.push(rank, left);
        }
    }

    fn pair_at(&self, left: u32) -> (u32, u32) {
        let ListSlot { id, link: next } = self.slots[left as usize];
        match self.slots.get(next as usize) {
            Some(right) if id != NONE => self.merges.get(id, right.id),
            _ => (NONE, NONE),
        }
    }
}

/// Places by rank. A long piece of few different pairs has few ranks, each with many places: those are kept in plain
/// lists, and only the ranks are in a heap.
#[derive(Default)]
struct Queue {
    ranks: BinaryHeap<Reverse<u32>>,
    places: FxHashMap<u32, Vec<u32>>,
    spare: Vec<Vec<u32>>,
}

impl Queue {
    fn push(&mut self, rank: u32, place: u32) {
        let Self { ranks, places, spare } = self;
        let list = places.entry(rank).or_insert_with(|| {
            ranks.push(Reverse(rank));
            spare.pop().unwrap_or_default()
        });
        list.push(place);
    }

    /// The places of the lowest rank, from the left.
    fn pop(&mut self) -> Option<(u32, Vec<u32>)> {
        let Reverse(rank) = self.ranks.pop()?;
        let mut places = self.places.remove(&rank).unwrap_or_default();
        if !places.is_sorted() {
            places.sort_unstable();
        }
        Some((rank, places))
    }

    fn put_back(&mut self, rank: u32, places: Vec<u32>) {
        if !places.is_empty() {
            self.ranks.push(Reverse(rank));
            self.places.insert(rank, places);
        }
    }

    fn recycle(&mut self, mut places: Vec<u32>) {
        places.clear();
        self.spare.push(places);
    }

    /// Gives long lists back, which would only hold memory until the next long piece.
    fn trim(&mut self) {
        const MAX_SPARE_PLACES: usize = 1024;
        self.spare.retain(|places| places.capacity() <= MAX_SPARE_PLACES);
        self.spare.truncate(MAX_SPARE_PLACES);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The rule itself: all pairs looked at anew for each merge.
    fn plain(merges: &[[u32; 3]], piece: &[u8]) -> Vec<u32> {
        let mut ids: Vec<u32> = piece.iter().map(|&byte| u32::from(byte)).collect();
        loop {
            let rank_at = |i: usize| merges.iter().position(|m| m[..2] == ids[i..i + 2]);
            let best = (0..ids.len().saturating_sub(1)).filter_map(|i| Some((rank_at(i)?, i))).min();
            let Some((rank, at)) = best else { return ids };
            ids[at] = merges[rank][2];
            ids.remove(at + 1);
        }
    }

    /// Merges of short letter strings in an order that no training gives: later ones can make pairs of lower rank.
    fn merges() -> Vec<[u32; 3]> {
        let (a, b, c) = (u32::from(b'a'), u32::from(b'b'), u32::from(b'c'));
        let made =
            [[258, a, 262], [256, 257, 261], [a, b, 256], [c, a, 257], [256, a, 258], [256, 256, 259], [a, a, 260]];
        made.to_vec()
    }

    /// Merges as training gives them: a token is made before it is merged further.
    fn ordered_merges() -> Vec<[u32; 3]> {
        let (a, b, c) = (u32::from(b'a'), u32::from(b'b'), u32::from(b'c'));
        vec![[a, a, 256], [256, 256, 257], [a, b, 258], [258, c, 259], [257, 258, 260], [b, c, 261], [256, a, 262]]
    }

    #[test]
    fn short_and_long_pieces_merge_by_the_plain_rule() {
        assert!(Merges::new(&ordered_merges()).is_ordered && !Merges::new(&merges()).is_ordered);
        check(&merges());
        check(&ordered_merges());
    }

    #[test]
    fn runs_merge_by_the_plain_rule() {
        let table = Merges::new(&ordered_merges());
        let bytes = std::array::from_fn(|byte| byte as u32);
        let mut merger = Merger::default();
        for unit in ["a", "ab", "aab", "abc", "aaaaaaab"] {
            for repeats in 60..90 {
                let piece = unit.repeat(repeats);
                let mut out = Vec::new();
                merger.merge(&table, &bytes, piece.as_bytes(), &mut out);
                assert_eq!(out, plain(&ordered_merges(), piece.as_bytes()), "{repeats} times {unit}");
            }
        }
    }

    #[test]
    fn a_very_long_piece_leaves_little_memory_behind() {
        let bytes = std::array::from_fn(|byte| byte as u32);
        let queued = drawn(20 * MAX_KEPT_TOKENS, &mut 1);
        let swept = b"a".repeat(20 * MAX_KEPT_TOKENS);
        for (table, piece) in [(merges(), &queued), (ordered_merges(), &swept)] {
            let (mut merger, mut out) = (Merger::default(), Vec::new());
            merger.merge(&Merges::new(&table), &bytes, piece, &mut out);
            assert!(!out.is_empty() && out.len() < piece.len());
            assert!(merger.row.capacity() <= MAX_KEPT_TOKENS, "{}", merger.row.capacity());
            assert!(merger.slots.capacity() <= MAX_KEPT_TOKENS, "{}", merger.slots.capacity());
        }
    }

    fn drawn(length: usize, state: &mut u32) -> Vec<u8> {
        let letter = |_| {
            *state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            b"aabbc"[(*state >> 16) as usize % 5]
        };
        (0..length).map(letter).collect()
    }

    fn check(merges: &[[u32; 3]]) {
        let table = Merges::new(merges);
        let bytes = std::array::from_fn(|byte| byte as u32);
        let mut merger = Merger::default();
        let mut state = 1_u32;
        for length in (1..200).chain([MAX_SEARCHED_BYTES, MAX_SEARCHED_BYTES + 1]) {
            let piece = drawn(length, &mut state);
            let mut out = Vec::new();
            merger.merge(&table, &bytes, &piece, &mut out);
            assert_eq!(out, plain(merges, &piece), "{length}");
        }
    }
}
