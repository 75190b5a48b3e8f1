//! The pre-tokenizers of DeepSeek LLM (also MoE-16B, V2) and DeepSeek Coder: a row of isolated splits, each over the
//! pieces of the one before it.
//!
//! LLM: `[\r\n]`, `\s?[cased letters]+`, `\s?[!-/:-~！-／：-～‘-‟　-。]+`, `\s+$`, `[一-龥ࠀ-一가-퟿]+`, one number.
//! Coder: `[\r\n]`, `\s?\p{L}+`, `\s?\p{P}+`, `[一-龥ࠀ-一가-퟿]+`, one number.
//!
//! **Source:** their tokenizer.json files; llama.cpp src/llama-vocab.cpp, which writes `\p{N}+` for the numbers of LLM.

use std::sync::LazyLock;

use crate::pieces::decode;
use crate::unicode::{self, classes};

/// One isolated split: each match is a piece, and so is what lies between two matches.
#[derive(Clone, Copy)]
pub enum Split {
    /// One character of the class.
    One(u8),
    /// The longest run of the class.
    Run(u8),
    /// The same with one whitespace character before it, if there is one.
    SpacedRun(u8),
    /// Whitespace at the end.
    TrailingSpace,
}

const NEWLINE: u8 = 1;
const SPACE: u8 = 2;
const LETTER: u8 = 4;
const PUNCTUATION: u8 = 8;
const CJK: u8 = 16;
const NUMBER: u8 = 32;

/// A row of splits and the classes of the code points that they ask for.
pub struct Staged {
    splits: &'static [Split],
    classes: Box<[u8]>,
}

pub static LLM: LazyLock<Staged> = LazyLock::new(|| Staged {
    splits: &[
        Split::One(NEWLINE),
        Split::SpacedRun(LETTER),
        Split::SpacedRun(PUNCTUATION),
        Split::TrailingSpace,
        Split::Run(CJK),
        Split::One(NUMBER),
    ],
    classes: class_table(|code, _| match code {
        _ if is_in(LLM_PUNCTUATION, code) && is_in(CASED_LETTERS, code) => PUNCTUATION | LETTER,
        _ if is_in(LLM_PUNCTUATION, code) => PUNCTUATION,
        _ if is_in(CASED_LETTERS, code) => LETTER,
        _ => 0,
    }),
});

pub static CODER: LazyLock<Staged> = LazyLock::new(|| Staged {
    splits: &[
        Split::One(NEWLINE),
        Split::SpacedRun(LETTER),
        Split::SpacedRun(PUNCTUATION),
        Split::Run(CJK),
        Split::One(NUMBER),
    ],
    classes: class_table(|_, class| match class {
        unicode::LETTER => LETTER,
        unicode::PUNCTUATION => PUNCTUATION,
        _ => 0,
    }),
});

impl Staged {
    /// Calls `emit` with each piece of `text`, in order; the pieces joined are `text`.
    pub fn for_each_piece<'a>(&self, text: &'a str, mut emit: impl FnMut(&'a [u8])) {
        self.split(text.as_bytes(), self.splits, &mut emit);
    }

    fn split<'a>(&self, bytes: &'a [u8], splits: &[Split], emit: &mut dyn FnMut(&'a [u8])) {
        let Some((split, rest)) = splits.split_first() else { return emit(bytes) };
        if let Split::TrailingSpace = split {
            let (head, tail) = bytes.split_at(self.trimmed_len(bytes));
            for part in [head, tail].into_iter().filter(|part| !part.is_empty()) {
                self.split(part, rest, emit);
            }
            return;
        }
        let (mut from, mut at) = (0, 0);
        while at < bytes.len() {
            let end = self.match_end(*split, bytes, at);
            if end == at {
                at += decode(bytes, at).1;
                continue;
            }
            if at > from {
                self.split(&bytes[from..at], rest, emit);
            }
            self.split(&bytes[at..end], rest, emit);
            (from, at) = (end, end);
        }
        if from < bytes.len() {
            self.split(&bytes[from..], rest, emit);
        }
    }

    /// The end of the match at `at`; `at` itself when there is none.
    fn match_end(&self, split: Split, bytes: &[u8], at: usize) -> usize {
        match split {
            Split::One(mask) => at + self.len_of(bytes, at, mask),
            Split::Run(mask) => self.run_end(bytes, at, mask),
            Split::SpacedRun(mask) => {
                let word = at + self.len_of(bytes, at, SPACE);
                let end = self.run_end(bytes, word, mask);
                if end > word { end } else { self.run_end(bytes, at, mask) }
            }
            Split::TrailingSpace => at,
        }
    }

    fn run_end(&self, bytes: &[u8], mut at: usize, mask: u8) -> usize {
        loop {
            let len = self.len_of(bytes, at, mask);
            if len == 0 {
                return at;
            }
            at += len;
        }
    }

    /// The length of the character at `at`; 0 when its class is not in `mask`, and at the end.
    #[inline]
    fn len_of(&self, bytes: &[u8], at: usize, mask: u8) -> usize {
        if at == bytes.len() {
            return 0;
        }
        let (code, len) = decode(bytes, at);
        if self.classes[code as usize] & mask == 0 { 0 } else { len }
    }

    /// The length without the whitespace at the end.
    fn trimmed_len(&self, bytes: &[u8]) -> usize {
        let mut end = bytes.len();
        while end > 0 {
            let start = (0..end).rev().find(|&i| bytes[i] & 0xC0 != 0x80).unwrap_or(0);
            if self.len_of(bytes, start, SPACE) == 0 {
                return end;
            }
            end = start;
        }
        0
    }
}

/// The classes that both rows share, with those that `more` adds from a code point and its Unicode class.
fn class_table(more: impl Fn(u32, u8) -> u8) -> Box<[u8]> {
    let own = |(code, &class): (u32, &u8)| {
        let newline = if class & unicode::NEWLINE != 0 { NEWLINE } else { 0 };
        let space = if class & unicode::WHITESPACE != 0 { SPACE } else { 0 };
        let number = if class & unicode::NUMBER != 0 { NUMBER } else { 0 };
        let cjk = if is_in(CJK_RANGES, code) { CJK } else { 0 };
        newline | space | number | cjk | more(code, class)
    };
    (0..).zip(classes()).map(own).collect()
}

fn is_in(ranges: &[(u32, u32)], code: u32) -> bool {
    ranges.iter().any(|&(first, last)| (first..=last).contains(&code))
}

const CJK_RANGES: &[(u32, u32)] = &[(0x4E00, 0x9FA5), (0x800, 0x4E00), (0xAC00, 0xD7FF)];

const LLM_PUNCTUATION: &[(u32, u32)] =
    &[(0x21, 0x2F), (0x3A, 0x7E), (0xFF01, 0xFF0F), (0xFF1A, 0xFF5E), (0x2018, 0x201F), (0x3000, 0x3002)];

/// Letters that have case, as Unicode 12 lists them.
#[rustfmt::skip]
const CASED_LETTERS: &[(u32, u32)] = &[
    (0x41, 0x5A), (0x61, 0x7A), (0xB5, 0xB5), (0xC0, 0xD6), (0xD8, 0xF6), (0xF8, 0x1BA), (0x1BC, 0x1BF),
    (0x1C4, 0x293), (0x295, 0x2AF), (0x370, 0x373), (0x376, 0x376), (0x377, 0x377), (0x37B, 0x37D), (0x37F, 0x37F),
    (0x386, 0x386), (0x388, 0x38A), (0x38C, 0x38C), (0x38E, 0x3A1), (0x3A3, 0x3F5), (0x3F7, 0x481), (0x48A, 0x52F),
    (0x531, 0x556), (0x10A0, 0x10C5), (0x13A0, 0x13F5), (0x13F8, 0x13FD), (0x1C90, 0x1CBA), (0x1CBD, 0x1CBF),
    (0x1D00, 0x1D2B), (0x1D6B, 0x1D77), (0x1D79, 0x1D9A), (0x1E00, 0x1F15), (0x1F18, 0x1F1D), (0x1F20, 0x1F45),
    (0x1F48, 0x1F4D), (0x1F50, 0x1F57), (0x1F59, 0x1F59), (0x1F5B, 0x1F5B), (0x1F5D, 0x1F5D), (0x1F5F, 0x1F7D),
    (0x1F80, 0x1FB4), (0x1FB6, 0x1FBC), (0x1FBE, 0x1FBE), (0x1FC2, 0x1FC4), (0x1FC6, 0x1FCC), (0x1FD0, 0x1FD3),
    (0x1FD6, 0x1FDB), (0x1FE0, 0x1FEC), (0x1FF2, 0x1FF4), (0x1FF6, 0x1FFC), (0x2102, 0x2102), (0x2107, 0x2107),
    (0x210A, 0x2113), (0x2115, 0x2115), (0x2119, 0x211D), (0x2124, 0x2124), (0x2126, 0x2126), (0x2128, 0x2128),
    (0x212A, 0x212D), (0x212F, 0x2134), (0x2139, 0x2139), (0x213C, 0x213F), (0x2145, 0x2149), (0x214E, 0x214E),
    (0x2183, 0x2183), (0x2184, 0x2184), (0x2C00, 0x2C7B), (0x2C7E, 0x2CE4), (0x2CEB, 0x2CEE), (0x2CF2, 0x2CF2),
    (0x2CF3, 0x2CF3), (0xA640, 0xA66D), (0xA680, 0xA69B), (0xA722, 0xA76F), (0xA771, 0xA787), (0xA78B, 0xA78E),
    (0xAB70, 0xABBF), (0xFB00, 0xFB06), (0xFB13, 0xFB17), (0xFF21, 0xFF3A), (0xFF41, 0xFF5A), (0x10400, 0x1044F),
    (0x104B0, 0x104D3), (0x104D8, 0x104FB), (0x10C80, 0x10CB2), (0x10CC0, 0x10CF2), (0x118A0, 0x118DF),
    (0x1E900, 0x1E943),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces<'a>(staged: &Staged, text: &'a str) -> Vec<&'a str> {
        let mut out = Vec::new();
        staged.for_each_piece(text, |piece| out.push(std::str::from_utf8(piece).unwrap()));
        out
    }

    #[test]
    fn llm_cuts_letters_marks_han_and_numbers() {
        assert_eq!(pieces(&LLM, "Hello world, 12"), ["Hello", " world", ",", " ", "1", "2"]);
        assert_eq!(pieces(&LLM, "a\r\n\r\n  b"), ["a", "\r", "\n", "\r", "\n", " ", " b"]);
        assert_eq!(pieces(&LLM, "你好，世界。"), ["你好", "，", "世界", "。"]);
    }

    #[test]
    fn the_marks_of_llm_reach_over_the_ascii_letters() {
        assert_eq!(pieces(&LLM, " étude"), [" é", "tude"]);
    }

    #[test]
    fn coder_takes_letters_of_any_script_and_leaves_symbols() {
        assert_eq!(pieces(&CODER, " étude = 42;"), [" étude", " = ", "4", "2", ";"]);
        assert_eq!(pieces(&CODER, "x  y"), ["x", " ", " y"]);
    }

    #[test]
    fn whitespace_at_the_end_is_a_piece_of_its_own() {
        assert_eq!(pieces(&LLM, "²  "), ["²", "  "]);
        assert_eq!(pieces(&LLM, "\u{1F999}  "), ["\u{1F999}", "  "]);
    }
}
