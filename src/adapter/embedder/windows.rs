//! Splitting long texts into overlapping windows that fit the model.
//!
//! A window begins and ends with whole words. The tokenizer splits words the same wherever they
//! stand, so a window has exactly the tokens that its words have in the whole text. Cut inside a
//! word it could get other ones, and more of them.

use std::ops::Range;

use super::tokenizer::{TOKENS_MAX, Tokenizer};

/// A window repeats the words before it until it has this many tokens of them,
const OVERLAP_MIN: usize = 32;

/// unless a word would take it beyond this many.
const OVERLAP_MAX: usize = 48;

/// Most tokens of a window's words: two more enclose every text.
const WORD_TOKENS_MAX: usize = TOKENS_MAX - 2;

/// A word's place in the text, which is cut only between such places, and its number of tokens.
struct Piece {
    place: Range<usize>,
    tokens: usize,
}

/// Windows of `text` with at most [`TOKENS_MAX`] tokens each.
pub(super) fn split<'t>(tokenizer: &Tokenizer, text: &'t str) -> Vec<&'t str> {
    // A token stands for at least one byte, so most texts need not be read.
    if text.len() <= WORD_TOKENS_MAX {
        return vec![text];
    }
    let pieces = pieces(tokenizer, text);
    if pieces.iter().map(|piece| piece.tokens).sum::<usize>() <= WORD_TOKENS_MAX {
        return vec![text];
    }
    let mut windows = Vec::new();
    let mut first = 0;
    loop {
        let last = first + fill(&pieces[first..]);
        // What stands before the first word and after the last one has no tokens of its own.
        let begin = if first == 0 { 0 } else { pieces[first].place.start };
        let Some(next) = pieces.get(last) else {
            windows.push(&text[begin..]);
            return windows;
        };
        windows.push(&text[begin..next.place.start]);
        first = last - overlap(&pieces[first..last]);
    }
}

/// The words of `text`; those that share a character of it are one piece.
fn pieces(tokenizer: &Tokenizer, text: &str) -> Vec<Piece> {
    let mut pieces: Vec<Piece> = Vec::new();
    tokenizer.words(text, |word| {
        match pieces.last_mut() {
            Some(last) if word.place.start < last.place.end => {
                last.place.end = word.place.end;
                last.tokens += word.tokens.len();
            }
            _ => pieces.push(Piece { place: word.place, tokens: word.tokens.len() }),
        }
        true
    });
    pieces
}

/// How many of the first pieces fit a window, but one piece at least.
fn fill(pieces: &[Piece]) -> usize {
    let mut tokens = 0;
    pieces
        .iter()
        .take_while(|piece| {
            tokens += piece.tokens;
            tokens <= WORD_TOKENS_MAX
        })
        .count()
        .max(1)
}

/// How many of the last pieces of a window the next one repeats.
fn overlap(window: &[Piece]) -> usize {
    let (mut tokens, mut count) = (0, 0);
    // The first piece is never repeated, so that every window gets on.
    for piece in window.iter().skip(1).rev() {
        if tokens >= OVERLAP_MIN || tokens + piece.tokens > OVERLAP_MAX {
            break;
        }
        tokens += piece.tokens;
        count += 1;
    }
    count
}
