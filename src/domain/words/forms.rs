//! The forms in which a word is found.

use rust_stemmers::{Algorithm, Stemmer};
use unicode_normalization::UnicodeNormalization;

/// Most parts of an identifier that are found by themselves.
const PARTS_MAX: usize = 16;
/// A number in groups is found as one when it has so many digits, or where it is grouped by thousands.
const JOINED_DIGITS: std::ops::RangeInclusive<usize> = 7..=20;

/// The forms of a word: the whole, last; where it is an identifier of several parts, before it each of them, and each two
/// that follow each other.
pub(super) fn forms(word: &str) -> Vec<String> {
    let whole = fold(&word.replace('_', ""));
    if whole.is_empty() {
        return Vec::new();
    }
    if word.chars().all(char::is_lowercase) || word.bytes().all(|byte| byte.is_ascii_digit()) {
        return vec![whole];
    }
    let parts: Vec<String> = parts_of(word).iter().map(|part| fold(part)).filter(|part| !part.is_empty()).collect();
    let mut forms: Vec<String> = Vec::new();
    if (2..=PARTS_MAX).contains(&parts.len()) {
        if parts.len() > 2 {
            forms.extend(parts.windows(2).map(<[String]>::concat));
        }
        forms.extend(parts);
    }
    forms.push(whole);
    forms
}

/// `HTTPServer_v2Beta10` as `HTTP`, `Server`, `v2`, `Beta`, `10`.
fn parts_of(word: &str) -> Vec<String> {
    let characters: Vec<char> = word.chars().collect();
    let mut parts = vec![String::new()];
    for (at, character) in characters.iter().enumerate() {
        let previous = at.checked_sub(1).and_then(|before| characters.get(before));
        let next_is_lower = characters.get(at.saturating_add(1)).is_some_and(|next| next.is_lowercase());
        let begins_capital = character.is_uppercase()
            && previous.is_some_and(|previous| {
                previous.is_lowercase() || previous.is_numeric() || (previous.is_uppercase() && next_is_lower)
            });
        let begins = begins_capital || previous.is_some_and(|previous| parts_digits(&characters, at, *previous));
        if *character == '_' || begins {
            parts.push(String::new());
        }
        if *character != '_'
            && let Some(part) = parts.last_mut()
        {
            part.push(*character);
        }
    }
    parts
}

/// Whether a number begins or ends at `at` beside a word of at least two letters: `10km` is two parts, `v2` and `a1b2` none.
fn parts_digits(characters: &[char], at: usize, previous: char) -> bool {
    let is_letter =
        |place: Option<usize>| place.and_then(|place| characters.get(place)).is_some_and(|c| c.is_alphabetic());
    let Some(character) = characters.get(at) else { return false };
    if character.is_numeric() {
        return previous.is_alphabetic() && is_letter(at.checked_sub(2));
    }
    character.is_alphabetic() && previous.is_numeric() && is_letter(at.checked_add(1))
}

/// Numbers that `text`, in NFKC, writes in groups, without what stands between these: `12,500`, `+44 20 7946 0018`,
/// `2023-05-08`.
pub(super) fn joined_numbers(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut groups: Vec<String> = Vec::new();
    let (mut group, mut gap) = (String::new(), 0_usize);
    let mut end = |groups: &mut Vec<String>| {
        let joined = groups.concat();
        let thousands = thousands_of(groups);
        if groups.len() > 1 && (JOINED_DIGITS.contains(&joined.len()) || thousands == groups.len()) {
            found.push(joined);
        } else if thousands > 1 {
            found.push(groups.iter().take(thousands).map(String::as_str).collect());
        }
        groups.clear();
    };
    for character in text.chars().chain(['\n']) {
        if character.is_ascii_digit() {
            group.push(character);
            gap = 0;
            continue;
        }
        if !group.is_empty() {
            groups.push(std::mem::take(&mut group));
        }
        gap = gap.saturating_add(1);
        let joins = gap == 1 && matches!(character, ' ' | '.' | ',' | '\'' | '\u{2019}' | '-' | '/');
        if !groups.is_empty() && !joins {
            end(&mut groups);
        }
    }
    found
}

/// How many of the groups, from the first, are a number by thousands.
fn thousands_of(groups: &[String]) -> usize {
    if groups.first().is_none_or(|first| first.len() > 3) {
        return 0;
    }
    groups.iter().skip(1).take_while(|group| group.len() == 3).count().saturating_add(1)
}

/// Case, accents and other signs above and below folded.
pub(super) fn fold(word: &str) -> String {
    if word.is_ascii() {
        return word.to_ascii_lowercase();
    }
    let lower = word.to_lowercase();
    let mut folded = String::with_capacity(lower.len());
    let mut previous = None;
    for character in lower.nfd() {
        match character {
            // The short i of Cyrillic is a letter of its own, and its stems need it.
            '\u{306}' if previous == Some('и') => folded.push(character),
            _ if is_sign(character) => {}
            '\u{671}' => folded.push('\u{627}'),
            '\u{649}' | '\u{6cc}' => folded.push('\u{64a}'),
            '\u{6a9}' => folded.push('\u{643}'),
            'ß' => folded.push_str("ss"),
            'æ' => folded.push_str("ae"),
            'œ' => folded.push_str("oe"),
            'þ' => folded.push_str("th"),
            'ø' => folded.push('o'),
            'đ' | 'ð' => folded.push('d'),
            'ł' => folded.push('l'),
            'ı' => folded.push('i'),
            'ς' => folded.push('σ'),
            other => folded.push(other),
        }
        previous = Some(character);
    }
    folded.nfc().collect()
}

/// Accents; vowel signs of Hebrew and Arabic, hamza and the stroke that lengthens a word; the dot below of Indic letters.
const fn is_sign(character: char) -> bool {
    matches!(character,
        '\u{300}'..='\u{36f}'
        | '\u{591}'..='\u{5bd}' | '\u{5bf}' | '\u{5c1}' | '\u{5c2}' | '\u{5c4}' | '\u{5c5}' | '\u{5c7}'
        | '\u{610}'..='\u{61a}' | '\u{640}' | '\u{64b}'..='\u{65f}' | '\u{670}'
        | '\u{93c}' | '\u{9bc}' | '\u{a3c}' | '\u{abc}' | '\u{b3c}')
}

/// What brings words to their stems, by their script: a text does not say its language.
pub(super) struct Stemmers {
    english: Stemmer,
    russian: Stemmer,
}

impl Stemmers {
    pub(super) fn new() -> Self {
        Self { english: Stemmer::create(Algorithm::English), russian: Stemmer::create(Algorithm::Russian) }
    }

    pub(super) fn stem(&self, word: String) -> String {
        if word.len() > 2 && word.bytes().all(|byte| byte.is_ascii_lowercase()) {
            return self.english.stem(&word).into_owned();
        }
        if word.chars().all(|character| matches!(character, '\u{430}'..='\u{44f}')) {
            return self.russian.stem(&word).into_owned();
        }
        if word.chars().all(|character| matches!(character, '\u{621}'..='\u{64a}')) {
            return arabic_stem(&word).to_owned();
        }
        word
    }
}

/// An Arabic word without its article and what is written together with that.
fn arabic_stem(word: &str) -> &str {
    const PREFIXES: [&str; 6] = ["وال", "بال", "كال", "فال", "لل", "ال"];
    let stems = PREFIXES.iter().filter_map(|prefix| word.strip_prefix(prefix));
    stems.filter(|stem| stem.chars().count() >= 2).min_by_key(|stem| stem.len()).unwrap_or(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_begin_at_capitals_and_at_numbers_beside_words() {
        assert_eq!(parts_of("HTTPServer_v2Beta"), ["HTTP", "Server", "v2", "Beta"]);
        assert_eq!(parts_of("iPhone15Pro"), ["i", "Phone", "15", "Pro"]);
        assert_eq!(parts_of("10km"), ["10", "km"]);
        assert_eq!(parts_of("a1b2"), ["a1b2"]);
        assert_eq!(forms("getUserName"), ["getuser", "username", "get", "user", "name", "getusername"]);
    }

    #[test]
    fn numbers_in_groups_are_one_number() {
        assert_eq!(joined_numbers("12,500 and 1.299,50"), ["12500", "1299"]);
        assert_eq!(joined_numbers("+44 20 7946 0018, 2023-05-08"), ["442079460018", "20230508"]);
        assert!(joined_numbers("3, 4, 12 and 3.5 or 10 km").is_empty());
    }
}
