//! The ids of the pieces seen last: a table of fixed size in which a piece has one place, so that no text can make it
//! grow or slow.

/// Pieces longer than this are rarely seen twice.
const MAX_BYTES: usize = 30;
const MAX_IDS: usize = 8;
const INDEX_BITS: u32 = 15;

/// One cache line.
#[derive(Clone, Copy)]
#[repr(align(64))]
struct Entry {
    ids: [u32; MAX_IDS],
    piece: [u8; MAX_BYTES],
    bytes: u8,
    n_ids: u8,
}

const EMPTY: Entry = Entry { ids: [0; MAX_IDS], piece: [0; MAX_BYTES], bytes: 0, n_ids: 0 };

pub struct PieceCache {
    entries: Box<[Entry]>,
}

impl Default for PieceCache {
    fn default() -> Self {
        Self { entries: vec![EMPTY; 1 << INDEX_BITS].into() }
    }
}

impl PieceCache {
    #[inline]
    pub fn get(&self, piece: &[u8]) -> Option<&[u32]> {
        if piece.len() > MAX_BYTES {
            return None;
        }
        let entry = &self.entries[place_of(piece)];
        (usize::from(entry.bytes) == piece.len() && entry.piece[..piece.len()] == *piece)
            .then(|| &entry.ids[..usize::from(entry.n_ids)])
    }

    /// Keeps the ids of a piece that is not empty, if both are short.
    pub fn insert(&mut self, piece: &[u8], ids: &[u32]) {
        if piece.len() > MAX_BYTES || ids.len() > MAX_IDS {
            return;
        }
        let entry = &mut self.entries[place_of(piece)];
        entry.piece[..piece.len()].copy_from_slice(piece);
        entry.ids[..ids.len()].copy_from_slice(ids);
        (entry.bytes, entry.n_ids) = (piece.len() as u8, ids.len() as u8);
    }
}

#[inline]
fn place_of(piece: &[u8]) -> usize {
    const FACTOR: u64 = 0x9E37_79B9_7F4A_7C15;
    let mut hash = piece.len() as u64;
    let (words, rest) = piece.as_chunks::<8>();
    for word in words {
        hash = (hash ^ u64::from_le_bytes(*word)).wrapping_mul(FACTOR).rotate_left(29);
    }
    let tail = rest.iter().fold(0, |tail, &byte| tail << 8 | u64::from(byte));
    ((hash ^ tail).wrapping_mul(FACTOR) >> (u64::BITS - INDEX_BITS)) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_piece_gives_the_ids_that_were_kept_for_it_or_none() {
        let mut cache = PieceCache::default();
        assert_eq!(cache.get(b"the"), None);
        for length in 1..40_usize {
            let piece = vec![b'x'; length];
            let ids = vec![length as u32; length.div_ceil(3)];
            cache.insert(&piece, &ids);
            let kept = length <= MAX_BYTES && ids.len() <= MAX_IDS;
            assert_eq!(cache.get(&piece), kept.then_some(ids.as_slice()));
        }
    }
}
