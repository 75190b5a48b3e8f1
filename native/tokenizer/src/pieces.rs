//! The DeepSeek-V3 pre-tokenizer: three successive isolated splits, written as one scanner that runs in linear time.
//!
//! 1. `\p{N}{1,3}`
//! 2. `[一-龥぀-ゟ゠-ヿ]+`
//! 3. `[!-/:-@\[-`{-~][A-Za-z]+ | [^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+ |  ?[\p{P}\p{S}]+[\r\n]* | \s*[\r\n]+ | \s+(?!\S) | \s+`
//!
//! A split only sees the pieces of the one before it, so a number or the border of a CJK run is the end of the text
//! for split 3. Classes are those of Unicode 16.0, and `\s` is White_Space.

use crate::unicode::{LETTER, MARK, NEWLINE, NUMBER, PUNCTUATION, SYMBOL, WHITESPACE, classes};

/// No character: the end of the text or of the segment that split 3 sees.
const END: u8 = 0;

/// Calls `emit` with each piece of `text`, in order; the pieces joined are `text`.
pub fn for_each_piece<'a>(text: &'a str, mut emit: impl FnMut(&'a [u8])) {
    let bytes = text.as_bytes();
    let classes = classes();
    let mut at = 0;
    while at < bytes.len() {
        let (code, _) = decode(bytes, at);
        let end = if classes[code as usize] == NUMBER {
            number_end(bytes, at, classes)
        } else {
            let segment = Segment { bytes, classes, cjk: is_cjk(code) };
            let end = segment.match_end(at);
            if end > at { end } else { segment.unmatched_end(at) }
        };
        emit(&bytes[at..end]);
        at = end;
    }
}

/// Up to three numbers.
fn number_end(bytes: &[u8], mut at: usize, classes: &[u8]) -> usize {
    for _ in 0..3 {
        if at == bytes.len() {
            break;
        }
        let (code, len) = decode(bytes, at);
        if classes[code as usize] != NUMBER {
            break;
        }
        at += len;
    }
    at
}

/// What split 3 sees: the text from a position on, up to a number or to the border of a CJK run.
struct Segment<'a> {
    bytes: &'a [u8],
    classes: &'a [u8],
    cjk: bool,
}

impl Segment<'_> {
    /// Class and length in bytes of the character at `at`; `END` and 0 at the segment's end.
    #[inline]
    fn class(&self, at: usize) -> (u8, usize) {
        if at >= self.bytes.len() {
            return (END, 0);
        }
        let (code, len) = decode(self.bytes, at);
        let class = self.classes[code as usize];
        if class == NUMBER || is_cjk(code) != self.cjk {
            return (END, 0);
        }
        (class, len)
    }

    /// The end of the run of characters from `at` whose class is in `mask`.
    #[inline]
    fn run_end(&self, mut at: usize, mask: u8) -> usize {
        loop {
            let (class, len) = self.class(at);
            if class & mask == 0 {
                return at;
            }
            at += len;
        }
    }

    /// The first position after `at` where split 3 matches, or the segment's end.
    fn unmatched_end(&self, mut at: usize) -> usize {
        loop {
            at += self.class(at).1;
            if self.class(at).0 == END || self.match_end(at) > at {
                return at;
            }
        }
    }

    /// The end of the match of split 3 at `at`; `at` itself when there is none.
    fn match_end(&self, at: usize) -> usize {
        let (class, len) = self.class(at);
        let (next, _) = self.class(at + len);
        if self.bytes[at].is_ascii_punctuation() && self.bytes.get(at + 1).is_some_and(u8::is_ascii_alphabetic) {
            return at + 1 + self.bytes[at + 1..].iter().take_while(|b| b.is_ascii_alphabetic()).count();
        }
        if class & (LETTER | MARK) != 0 {
            return self.run_end(at, LETTER | MARK);
        }
        if class & (NEWLINE | PUNCTUATION | SYMBOL) == 0 && next & (LETTER | MARK) != 0 {
            return self.run_end(at + len, LETTER | MARK);
        }
        let marks = if self.bytes[at] == b' ' { at + 1 } else { at };
        let marks_end = self.run_end(marks, PUNCTUATION | SYMBOL);
        if marks_end > marks {
            return self.run_end(marks_end, NEWLINE);
        }
        if class & WHITESPACE != 0 {
            return self.whitespace_end(at);
        }
        at
    }

    /// `\s*[\r\n]+|\s+(?!\S)|\s+`: through the last newline of the run; else the run without its last character,
    /// which is left for the word that follows, if one does.
    fn whitespace_end(&self, start: usize) -> usize {
        let (mut at, mut last, mut after_newline) = (start, start, start);
        let mut next = self.class(at);
        while next.0 & WHITESPACE != 0 {
            last = at;
            at += next.1;
            if next.0 & NEWLINE != 0 {
                after_newline = at;
            }
            next = self.class(at);
        }
        if after_newline > start {
            after_newline
        } else if next.0 == END || last == start {
            at
        } else {
            last
        }
    }
}

#[inline]
fn is_cjk(code: u32) -> bool {
    code >= 0x3040 && (code <= 0x30FF || (0x4E00..=0x9FA5).contains(&code))
}

/// The code point at `at`, which is the start of a character of valid UTF-8, and its length in bytes.
#[inline]
pub fn decode(bytes: &[u8], at: usize) -> (u32, usize) {
    let lead = u32::from(bytes[at]);
    let tail = |i: usize| u32::from(bytes[at + i] & 0x3F);
    match lead {
        0..0x80 => (lead, 1),
        0x80..0xE0 => ((lead & 0x1F) << 6 | tail(1), 2),
        0xE0..0xF0 => ((lead & 0x0F) << 12 | tail(1) << 6 | tail(2), 3),
        _ => ((lead & 0x07) << 18 | tail(1) << 12 | tail(2) << 6 | tail(3), 4),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces(text: &str) -> Vec<&str> {
        let mut out = Vec::new();
        for_each_piece(text, |piece| out.push(std::str::from_utf8(piece).unwrap()));
        out
    }

    #[test]
    fn words_take_one_leading_character() {
        assert_eq!(pieces("Hello world, it's"), ["Hello", " world", ",", " it", "'s"]);
        assert_eq!(
            pieces("\u{200d}word\u{200d}\u{200d}\u{200d}word"),
            ["\u{200d}word", "\u{200d}\u{200d}", "\u{200d}word"]
        );
        assert_eq!(pieces("(abc def)x"), ["(abc", " def", ")x"]);
    }

    #[test]
    fn numbers_go_in_threes_from_the_left_and_end_the_segment() {
        assert_eq!(pieces("12345678"), ["123", "456", "78"]);
        assert_eq!(pieces("a  1"), ["a", "  ", "1"]);
        assert_eq!(pieces("x12y"), ["x", "12", "y"]);
    }

    #[test]
    fn cjk_runs_are_segments_of_their_own() {
        assert_eq!(pieces("你好，世界"), ["你好", "，", "世界"]);
        assert_eq!(pieces("MoE模型  模型"), ["MoE", "模型", "  ", "模型"]);
        assert_eq!(pieces("カー・ス゠"), ["カー", "・", "ス", "゠"]);
    }

    #[test]
    fn whitespace_keeps_newlines_together_and_leaves_one_for_the_word() {
        assert_eq!(pieces("\n\n\n  x"), ["\n\n\n", " ", " x"]);
        assert_eq!(pieces("a \n b \r\n\t"), ["a", " \n", " b", " \r\n", "\t"]);
        assert_eq!(pieces("a   "), ["a", "   "]);
        assert_eq!(pieces("x;\r\n\r\n  y"), ["x", ";\r\n\r\n", " ", " y"]);
        assert_eq!(pieces("a\u{85}\u{85}b"), ["a", "\u{85}", "\u{85}b"]);
    }

    #[test]
    fn unmatched_characters_form_one_piece() {
        assert_eq!(pieces("\u{1}\u{2} a\u{3}"), ["\u{1}\u{2}", " a", "\u{3}"]);
    }
}
