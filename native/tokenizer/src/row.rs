//! A long piece as a row of tokens, merged in sweeps. Where the pair of lowest rank is frequent, as in a run of one letter,
//! one sweep merges it everywhere and closes the gaps: memory is only walked from the left, and the time is that of a few
//! sweeps.

use crate::merges::{Merges, NONE};

/// The lowest rank must be that of one pair in this many: what all sweeps read is then bounded by the length of the piece.
const MAX_PAIRS_PER_PLACE: usize = 8;

/// A token, and the rank of its pair with the next one; 8 bytes, since memory decides the speed.
#[derive(Clone, Copy)]
pub struct RowToken {
    pub id: u32,
    pub rank: u32,
}

#[derive(Default)]
pub struct Row {
    tokens: Vec<RowToken>,
}

impl Row {
    pub fn tokens(&self) -> &[RowToken] {
        &self.tokens
    }

    /// Forgets the tokens, and gives back what is held for more than `kept` of them.
    pub fn trim(&mut self, kept: usize) {
        self.tokens.clear();
        self.tokens.shrink_to(kept);
    }

    #[cfg(test)]
    pub fn capacity(&self) -> usize {
        self.tokens.capacity()
    }

    /// Takes the bytes of a piece and merges while the lowest rank is frequent. False when pairs that merge are left.
    pub fn sweep(&mut self, merges: &Merges, byte_ids: &[u32; 256], piece: &[u8]) -> bool {
        let mut lowest = self.fill(merges, byte_ids, piece);
        while merges.is_ordered() && lowest.is_frequent(self.tokens.len()) {
            lowest = self.merge_all(merges, lowest.rank);
        }
        lowest.rank == NONE
    }

    fn fill(&mut self, merges: &Merges, byte_ids: &[u32; 256], piece: &[u8]) -> Lowest {
        let mut lowest = Lowest::default();
        let (mut last, mut rank): (&[u8], u32) = (&[], NONE);
        let ids = |byte: u8| byte_ids[usize::from(byte)];
        self.tokens.clear();
        self.tokens.extend(piece.windows(2).map(|pair| {
            // In a run all pairs are the same.
            if pair != last {
                (rank, _) = merges.get(ids(pair[0]), ids(pair[1]));
                last = pair;
            }
            lowest.see(rank);
            RowToken { id: ids(pair[0]), rank }
        }));
        self.tokens.extend(piece.last().map(|&byte| RowToken { id: ids(byte), rank: NONE }));
        lowest
    }

    /// Merges the pairs of one rank from the left. What is written never stands to the right of what is read.
    fn merge_all(&mut self, merges: &Merges, rank: u32) -> Lowest {
        let merged = merges.merged_by(rank);
        let (rank_of_two, _) = merges.get(merged, merged);
        let tokens = self.tokens.as_mut_slice();
        let mut lowest = Lowest::default();
        let (mut at, mut out, mut was_merged) = (0, 0, false);
        while at < tokens.len() {
            let token = tokens[at];
            let is_merged = token.rank == rank;
            let id = if is_merged { merged } else { token.id };
            if out > 0 {
                let left = &mut tokens[out - 1];
                if was_merged && is_merged {
                    left.rank = rank_of_two;
                } else if was_merged || is_merged {
                    (left.rank, _) = merges.get(left.id, id);
                }
                lowest.see(left.rank);
            }
            tokens[out] = RowToken { id, rank: token.rank };
            at += if is_merged { 2 } else { 1 };
            out += 1;
            was_merged = is_merged;
        }
        tokens[out - 1].rank = NONE;
        self.tokens.truncate(out);
        lowest
    }
}

/// The lowest rank of a row, and how many pairs have it.
struct Lowest {
    rank: u32,
    places: usize,
}

impl Default for Lowest {
    fn default() -> Self {
        Self { rank: NONE, places: 0 }
    }
}

impl Lowest {
    #[inline]
    fn see(&mut self, rank: u32) {
        if rank < self.rank {
            *self = Self { rank, places: 1 };
        } else if rank == self.rank {
            self.places += 1;
        }
    }

    fn is_frequent(&self, tokens: usize) -> bool {
        self.rank != NONE && self.places * MAX_PAIRS_PER_PLACE >= tokens
    }
}
