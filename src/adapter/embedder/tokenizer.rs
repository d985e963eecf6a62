//! The model's tokenizer: BERT's cleaning and splitting, then word pieces.
//!
//! It reads a text once, character by character, without a copy of it, so that its memory stays
//! small for the longest text, and hands on each word with its place in the text.

use std::collections::HashMap;
use std::ops::Range;

use unicode_categories::UnicodeCategories;
use unicode_normalization::char::decompose_canonical;

use crate::adapter::embedder::EmbedError;

/// Most tokens of a text that the model takes, the two that enclose every text included.
pub(super) const TOKENS_MAX: usize = 256;

/// Vocabulary, one entry a line, whose line number from 0 is its id.
const VOCABULARY: &str = include_str!("../../../assets/model/vocab.txt");

/// A word of more characters than this is one unknown token.
const WORD_CHARACTERS_MAX: usize = 100;

/// Begins a vocabulary entry that continues a word.
const CONTINUATION: &str = "##";

/// Literal texts that stand for one token each, wherever they are written.
const SPECIAL: [&str; 5] = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"];

/// Splits texts into tokens of a fixed vocabulary.
pub(super) struct Tokenizer {
    /// Entries that begin a word, the special ones among them.
    beginnings: HashMap<&'static str, u32>,
    /// Entries that continue a word, without their `##`.
    continuations: HashMap<&'static str, u32>,
    /// Length of the longest entry in bytes.
    longest: usize,
    unknown: u32,
    /// Comes before every text.
    classification: u32,
    /// Comes after every text.
    separator: u32,
}

/// A word or a punctuation mark of a text.
pub(super) struct Word<'a> {
    /// Bytes of the text from the word's first to its last character.
    pub(super) place: Range<usize>,
    /// Its token ids, at least one.
    pub(super) tokens: &'a [u32],
}

impl Tokenizer {
    /// Reads the vocabulary that is built into the binary.
    ///
    /// # Errors
    ///
    /// [`EmbedError::Damaged`] when an entry is there twice or a special one is missing.
    pub(super) fn load() -> Result<Self, EmbedError> {
        let mut beginnings = HashMap::new();
        let mut continuations = HashMap::new();
        let mut entries = 0;
        let mut longest = 0;
        for (entry, id) in VOCABULARY.lines().zip(0..) {
            entries += 1;
            longest = longest.max(entry.len());
            match entry.strip_prefix(CONTINUATION) {
                // The bare characters `#` and `##` begin words like other punctuation.
                Some(rest) if !rest.is_empty() => continuations.insert(rest, id),
                _ => beginnings.insert(entry, id),
            };
        }
        let special = |entry: &str| {
            beginnings
                .get(entry)
                .copied()
                .ok_or_else(|| EmbedError::Damaged { detail: format!("the vocabulary lacks {entry}") })
        };
        if beginnings.len() + continuations.len() != entries {
            return Err(EmbedError::Damaged { detail: "the vocabulary has an entry twice".to_owned() });
        }
        Ok(Self {
            unknown: special("[UNK]")?,
            classification: special("[CLS]")?,
            separator: special("[SEP]")?,
            beginnings,
            continuations,
            longest,
        })
    }

    /// Number of token ids.
    pub(super) fn entries(&self) -> usize {
        self.beginnings.len() + self.continuations.len()
    }

    /// Token ids of `text` between the two that enclose every text, [`TOKENS_MAX`] in all at
    /// most: what is beyond is left out.
    pub(super) fn encode(&self, text: &str) -> Vec<u32> {
        let mut ids = vec![self.classification];
        self.words(text, |word| {
            let room = TOKENS_MAX.saturating_sub(ids.len() + 1);
            ids.extend_from_slice(&word.tokens[..word.tokens.len().min(room)]);
            ids.len() + 1 < TOKENS_MAX
        });
        ids.push(self.separator);
        ids
    }

    /// How many tokens `text` has, however long it is, with the two that enclose it.
    pub(super) fn count(&self, text: &str) -> usize {
        let mut count = 2;
        self.words(text, |word| {
            count += word.tokens.len();
            true
        });
        count
    }

    /// Whether any token of `text` is not the unknown one.
    pub(super) fn knows(&self, text: &str) -> bool {
        let mut known = false;
        self.words(text, |word| {
            known = word.tokens.iter().any(|token| *token != self.unknown);
            !known
        });
        known
    }

    /// Gives every word of `text` in order to `visit`, until it returns false.
    pub(super) fn words(&self, text: &str, mut visit: impl FnMut(Word<'_>) -> bool) {
        let mut scan = Scan {
            tokenizer: self,
            word: String::new(),
            characters: 0,
            place: 0..0,
            tokens: Vec::new(),
            visit: &mut visit,
        };
        let mut skip_until = 0;
        for (at, character) in text.char_indices() {
            if at < skip_until {
                continue;
            }
            let goes_on = if character == '['
                && let Some(special) = SPECIAL.iter().find(|entry| text[at..].starts_with(**entry))
            {
                skip_until = at + special.len();
                scan.special(special, at..skip_until)
            } else {
                scan.character(character, at..at + character.len_utf8())
            };
            if !goes_on {
                return;
            }
        }
        scan.finish_word();
    }

    /// Appends the token ids of a normalised word to `tokens`: greedily the longest entry that
    /// fits, or the unknown one if the word can't be spelled so.
    fn spell(&self, word: &str, tokens: &mut Vec<u32>) {
        let mut entries = &self.beginnings;
        let mut rest = word;
        while !rest.is_empty() {
            let longest = rest.floor_char_boundary(self.longest);
            let found = (1..=longest)
                .rev()
                .filter(|&end| rest.is_char_boundary(end))
                .find_map(|end| Some((end, *entries.get(&rest[..end])?)));
            let Some((end, id)) = found else {
                tokens.clear();
                tokens.push(self.unknown);
                return;
            };
            tokens.push(id);
            rest = &rest[end..];
            entries = &self.continuations;
        }
    }
}

/// A text being read.
struct Scan<'a, Visit> {
    tokenizer: &'a Tokenizer,
    /// The word begun, normalised.
    word: String,
    /// Number of characters in `word`.
    characters: usize,
    /// Where the word stands in the text.
    place: Range<usize>,
    /// Tokens of the word last finished.
    tokens: Vec<u32>,
    visit: &'a mut Visit,
}

impl<Visit: FnMut(Word<'_>) -> bool> Scan<'_, Visit> {
    /// Takes the next character. False ends the reading, here and in all that follows.
    fn character(&mut self, character: char, place: Range<usize>) -> bool {
        if character.is_ascii() {
            return match character {
                '\t' | '\n' | '\r' | ' ' => self.finish_word(),
                _ if character.is_ascii_control() => true,
                _ => self.normalised(character.to_ascii_lowercase(), &place),
            };
        }
        if character == char::REPLACEMENT_CHARACTER || character.is_other() {
            return true;
        }
        if character.is_whitespace() {
            return self.finish_word();
        }
        let ideograph = is_ideograph(character);
        if ideograph && !self.finish_word() {
            return false;
        }
        let mut goes_on = true;
        decompose_canonical(character, |part| {
            if !part.is_mark_nonspacing() {
                for lower in part.to_lowercase() {
                    goes_on = goes_on && self.normalised(lower, &place);
                }
            }
        });
        goes_on && (!ideograph || self.finish_word())
    }

    /// Takes a character after its normalisation; `place` is the original's.
    fn normalised(&mut self, character: char, place: &Range<usize>) -> bool {
        if character.is_whitespace() {
            return self.finish_word();
        }
        let mark = character.is_ascii_punctuation() || (!character.is_ascii() && character.is_punctuation());
        if mark && !self.finish_word() {
            return false;
        }
        if self.characters == 0 {
            self.place.start = place.start;
        }
        self.place.end = place.end;
        self.characters += 1;
        // A longer word becomes the unknown token, whatever its characters are.
        if self.characters <= WORD_CHARACTERS_MAX {
            self.word.push(character);
        }
        !mark || self.finish_word()
    }

    /// Takes a literal that stands for a token.
    fn special(&mut self, literal: &str, place: Range<usize>) -> bool {
        if !self.finish_word() {
            return false;
        }
        let id = self.tokenizer.beginnings.get(literal).copied();
        (self.visit)(Word { place, tokens: &[id.unwrap_or(self.tokenizer.unknown)] })
    }

    /// Hands on the word begun, if there is one.
    fn finish_word(&mut self) -> bool {
        if self.characters == 0 {
            return true;
        }
        self.tokens.clear();
        if self.characters > WORD_CHARACTERS_MAX {
            self.tokens.push(self.tokenizer.unknown);
        } else {
            self.tokenizer.spell(&self.word, &mut self.tokens);
        }
        self.word.clear();
        self.characters = 0;
        (self.visit)(Word { place: self.place.clone(), tokens: &self.tokens })
    }
}

/// Whether a character is a word of its own: those of the CJK ideograph blocks, as the model's
/// tokenizer lists them.
fn is_ideograph(character: char) -> bool {
    matches!(
        u32::from(character),
        0x4E00..=0x9FFF
            | 0x3400..=0x4DBF
            | 0x2_0000..=0x2_A6DF
            | 0x2_A700..=0x2_B73F
            | 0x2_B740..=0x2_B81F
            | 0x2_B920..=0x2_CEAF
            | 0xF900..=0xFAFF
            | 0x2_F800..=0x2_FA1F
    )
}
