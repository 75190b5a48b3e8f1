//! Added tokens: strings that stand for themselves and are cut out of the text before it is split into words.

use rustc_hash::FxHashMap;

/// A set of strings with an id each, searched leftmost first and longest first.
pub struct AddedTokens {
    /// A byte trie: (node, byte) to the child node.
    children: FxHashMap<(u32, u8), u32>,
    /// The id of the token that ends at each node.
    ids: Vec<Option<u32>>,
    starts: [bool; 256],
}

/// A part of a text: words to split further, or one added token.
#[derive(Debug, PartialEq)]
pub enum Part<'a> {
    Text(&'a str),
    Added(u32),
}

impl AddedTokens {
    /// The tokens must not be empty.
    pub fn new(tokens: impl IntoIterator<Item = (String, u32)>) -> Self {
        let mut added = Self { children: FxHashMap::default(), ids: vec![None], starts: [false; 256] };
        for (content, id) in tokens {
            added.insert(content.as_bytes(), id);
        }
        added
    }

    fn insert(&mut self, content: &[u8], id: u32) {
        self.starts[usize::from(content[0])] = true;
        let mut node = 0;
        for &byte in content {
            let fresh = self.ids.len() as u32;
            node = *self.children.entry((node, byte)).or_insert(fresh);
            if node == fresh {
                self.ids.push(None);
            }
        }
        self.ids[node as usize] = Some(id);
    }

    /// Calls `emit` with each part of `text`, in order, no text part empty.
    pub fn for_each_part<'a>(&self, text: &'a str, mut emit: impl FnMut(Part<'a>)) {
        let (mut from, mut at) = (0, 0);
        while at < text.len() {
            let Some((id, len)) = self.longest_at(&text.as_bytes()[at..]) else {
                at += 1;
                continue;
            };
            if at > from {
                emit(Part::Text(&text[from..at]));
            }
            emit(Part::Added(id));
            at += len;
            from = at;
        }
        if from < text.len() {
            emit(Part::Text(&text[from..]));
        }
    }

    #[inline]
    fn longest_at(&self, bytes: &[u8]) -> Option<(u32, usize)> {
        if !self.starts[usize::from(bytes[0])] {
            return None;
        }
        let mut longest = None;
        let mut node = 0;
        for (i, &byte) in bytes.iter().enumerate() {
            node = match self.children.get(&(node, byte)) {
                Some(&child) => child,
                None => break,
            };
            longest = self.ids[node as usize].map(|id| (id, i + 1)).or(longest);
        }
        longest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_leftmost_and_longest_token_is_cut_out() {
        let added = AddedTokens::new([("<a>".into(), 7), ("<a>b".into(), 8), ("é".into(), 9)]);
        let mut parts = Vec::new();
        added.for_each_part("x<a<a>b<a>cé", |part| parts.push(part));
        assert_eq!(parts, [Part::Text("x<a"), Part::Added(8), Part::Added(7), Part::Text("c"), Part::Added(9),]);
    }
}
