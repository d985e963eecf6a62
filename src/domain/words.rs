//! The words by which a text is found: pure, and the same for the same text at every time, since a row leaves the
//! full-text index only by the words it was entered with.
//!
//! A text is brought to NFKC and cut into runs. A run of letters and digits is a word: folded (case, accents) and
//! stemmed; code identifiers also give their parts (`storeBatch` and `store_batch`: `store`, `batch`, `storebatch`).
//! What a hyphen joins is also one word (`e-mail`, `email`), and so is a number in groups (`12,500`, `12500`). Scripts that
//! do not separate words by spaces give single characters and overlapping pairs. An emoji is a word.

mod forms;

use std::collections::HashSet;

use chrono::Datelike;
use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::is_combining_mark;

use self::forms::{Stemmers, forms, joined_numbers};
use super::unit::Timestamp;

/// Most characters of a run; what is longer is cut there, in the index as in a query.
const RUN_CHARACTERS_MAX: usize = 64;
/// Most different words of a query that are looked up.
const QUERY_WORDS_MAX: usize = 256;

/// English words that say nothing of what a text is about, in the form that folding gives them.
const STOP_WORDS: &str = " a about after again all also am an and any are as at be because been before being but by \
    can could d did do does doing don down during each ever few for from further get got had has have having he her \
    here hers herself him himself his how i if in into is it its itself just ll m me more most my myself no nor not \
    now of off on once only or other our ours ourselves out over own re s same she should so some such t than that the \
    their theirs them themselves then there these they this those through to too under until up ve very was we were \
    what when where which while who whom whose why will with would you your yours yourself yourselves ";

/// The words to index for `text`, repetitions included.
pub fn index_words(text: &str) -> Vec<String> {
    let stemmers = Stemmers::new();
    let mut words = Vec::new();
    let text: String = text.nfkc().collect();
    each_run(&text, |run| match run {
        Run::Word(word) => words.extend(forms(word).into_iter().map(|part| stemmers.stem(part))),
        Run::Joined(word) => words.extend(whole_of(word).map(|whole| stemmers.stem(whole))),
        Run::Dense(clusters) => {
            words.extend(clusters.iter().cloned());
            words.extend(clusters.windows(2).map(<[String]>::concat));
        }
        Run::Symbol(symbol) => words.push(symbol.to_owned()),
    });
    words.extend(joined_numbers(&text));
    words
}

/// The different words to look up for `query`, in their order. Stop words are dropped unless there is nothing else.
pub fn query_words(query: &str) -> Vec<String> {
    let stemmers = Stemmers::new();
    let (mut words, mut stop_words) = (Vec::new(), Vec::new());
    let query: String = query.nfkc().collect();
    each_run(&query, |run| match run {
        Run::Word(word) => {
            for part in forms(word) {
                let target = if is_stop_word(&part) { &mut stop_words } else { &mut words };
                target.push(stemmers.stem(part));
            }
        }
        Run::Joined(word) => words.extend(whole_of(word).map(|whole| stemmers.stem(whole))),
        // Pairs say more than single characters, which stand in many words.
        Run::Dense([single]) => words.push(single.clone()),
        Run::Dense(clusters) => words.extend(clusters.windows(2).map(<[String]>::concat)),
        Run::Symbol(symbol) => words.push(symbol.to_owned()),
    });
    words.extend(joined_numbers(&query));
    let mut words = if words.is_empty() { stop_words } else { words };
    let mut seen = HashSet::new();
    words.retain(|word| seen.insert(word.clone()));
    words.truncate(QUERY_WORDS_MAX);
    words
}

/// Several words that hyphens join, as one.
fn whole_of(words: &str) -> Option<String> {
    forms(words).pop()
}

/// `text` in pieces, each with whether it is one of the words that `query` looks for: whole words by any of their forms,
/// characters of scripts without spaces by the pairs they stand in. The pieces together are the text.
pub fn marked<'t>(text: &'t str, query: &str) -> Vec<(&'t str, bool)> {
    let wanted: HashSet<String> = query_words(query).into_iter().collect();
    let mut pieces: Vec<(&str, bool)> = Vec::new();
    let mut begin = 0_usize;
    let mut push = |end: usize, is_match: bool| {
        if let Some(piece) = text.get(begin..end).filter(|piece| !piece.is_empty()) {
            pieces.push((piece, is_match));
        }
        begin = end;
    };
    for (start, end, kind) in runs_of(text) {
        match kind {
            Kind::Dense => {
                for (from, to) in dense_matches(text, start, end, &wanted) {
                    push(from, false);
                    push(to, true);
                }
            }
            _ => {
                if text.get(start..end).is_some_and(|run| index_words(run).iter().any(|word| wanted.contains(word))) {
                    push(start, false);
                    push(end, true);
                }
            }
        }
    }
    push(text.len(), false);
    pieces
}

/// Where the runs of words, of characters without spaces and of symbols lie in `text` itself, before anything is folded.
fn runs_of(text: &str) -> Vec<(usize, usize, Kind)> {
    let mut runs: Vec<(usize, usize, Kind)> = Vec::new();
    let mut is_open = false;
    for (start, character) in text.char_indices() {
        let end = start.saturating_add(character.len_utf8());
        match (kind_of(character), runs.last_mut().filter(|_| is_open)) {
            (Kind::Mark | Kind::Ignored, Some(last)) => last.1 = end,
            (Kind::Mark | Kind::Ignored | Kind::Break, _) => is_open = false,
            (kind, Some(last)) if last.2 == kind => last.1 = end,
            (kind, _) => {
                runs.push((start, end, kind));
                is_open = true;
            }
        }
    }
    runs
}

/// The stretches of a run of characters without spaces that the words of a query cover.
fn dense_matches(text: &str, start: usize, end: usize, wanted: &HashSet<String>) -> Vec<(usize, usize)> {
    let run = text.get(start..end).unwrap_or_default();
    let heads = run.char_indices().filter(|(_, character)| kind_of(*character) == Kind::Dense);
    let mut bounds: Vec<usize> = heads.map(|(at, _)| start.saturating_add(at)).collect();
    bounds.push(end);
    let mut found: Vec<(usize, usize)> = Vec::new();
    let pairs = bounds.windows(3).filter_map(|window| Some((*window.first()?, *window.last()?)));
    let singles = bounds.windows(2).filter_map(|window| Some((*window.first()?, *window.last()?)));
    let mut spans: Vec<(usize, usize)> = pairs.chain(singles).collect();
    spans.sort_unstable();
    for (from, to) in spans {
        let word: String = text.get(from..to).unwrap_or_default().nfkc().collect();
        if !wanted.contains(&word) {
            continue;
        }
        match found.last_mut() {
            Some(last) if from <= last.1 => last.1 = last.1.max(to),
            _ => found.push((from, to)),
        }
    }
    found
}

/// The words by which the day of an instant (in UTC) is asked for: `8`, `may`, `2023`, `monday`.
pub fn date_words(at: Timestamp) -> Vec<String> {
    let instant = at.to_utc();
    let stemmers = Stemmers::new();
    let names = [instant.format("%B").to_string(), instant.format("%A").to_string()];
    let mut words = vec![instant.day().to_string(), instant.year().to_string()];
    words.extend(names.into_iter().map(|name| stemmers.stem(name.to_lowercase())));
    words
}

/// A piece of a text.
enum Run<'r> {
    /// Letters, digits and `_`.
    Word(&'r str),
    /// Words with a hyphen between each two, without the hyphens.
    Joined(&'r str),
    /// Characters of a script without spaces, each with its marks.
    Dense(&'r [String]),
    /// An emoji or another symbol.
    Symbol(&'r str),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Word,
    Dense,
    Symbol,
    Mark,
    Ignored,
    Break,
}

fn kind_of(character: char) -> Kind {
    match character {
        'a'..='z' | 'A'..='Z' | '0'..='9' | '_' => Kind::Word,
        '\u{0}'..='\u{7f}' => Kind::Break,
        // Soft hyphen, joiners, variation selectors, skin tones: they change how a thing looks, not what it is.
        '\u{ad}' | '\u{200c}' | '\u{200d}' | '\u{fe00}'..='\u{fe0f}' | '\u{1f3fb}'..='\u{1f3ff}' => Kind::Ignored,
        _ if is_combining_mark(character) => Kind::Mark,
        _ if is_dense(character) => Kind::Dense,
        _ if character.is_alphanumeric() => Kind::Word,
        '\u{a2}'..='\u{a9}'
        | '\u{ac}'
        | '\u{ae}'..='\u{b1}'
        | '\u{b5}'
        | '\u{b6}'
        | '\u{d7}'
        | '\u{f7}'
        | '\u{20a0}'..='\u{20cf}'
        | '\u{2100}'..='\u{2bff}'
        | '\u{1f000}'..='\u{1fbff}' => Kind::Symbol,
        _ => Kind::Break,
    }
}

/// Thai, Lao, Tibetan, Burmese, Khmer, Chinese, Japanese; and Korean, whose words carry their particles.
fn is_dense(character: char) -> bool {
    matches!(character,
        '\u{e01}'..='\u{e30}' | '\u{e32}' | '\u{e33}' | '\u{e40}'..='\u{e46}'
        | '\u{e81}'..='\u{eb0}' | '\u{eb2}' | '\u{eb3}' | '\u{ec0}'..='\u{ec6}' | '\u{edc}'..='\u{edf}'
        | '\u{f40}'..='\u{f6c}' | '\u{1000}'..='\u{103f}' | '\u{1050}'..='\u{108f}'
        | '\u{1780}'..='\u{17b3}' | '\u{3005}'..='\u{3007}' | '\u{3041}'..='\u{3096}' | '\u{309d}'..='\u{309f}'
        | '\u{30a1}'..='\u{30fa}' | '\u{30fc}'..='\u{30ff}' | '\u{31f0}'..='\u{31ff}'
        | '\u{3400}'..='\u{4dbf}' | '\u{4e00}'..='\u{9fff}' | '\u{ac00}'..='\u{d7a3}'
        | '\u{f900}'..='\u{faff}' | '\u{20000}'..='\u{323af}')
}

/// Calls `found` with each run of `text`, which is in NFKC, in order.
fn each_run(text: &str, mut found: impl FnMut(Run<'_>)) {
    let mut word = String::new();
    let mut word_characters = 0_usize;
    let mut clusters: Vec<String> = Vec::new();
    let mut flag: Option<char> = None;
    let mut compound = Compound::default();
    for character in text.chars() {
        let kind = kind_of(character);
        if kind == Kind::Ignored {
            continue;
        }
        let word_ends = !matches!(kind, Kind::Word | Kind::Mark) || word_characters >= RUN_CHARACTERS_MAX;
        if word_ends && !word.is_empty() {
            found(Run::Word(&word));
            compound.push(&word, character);
            word.clear();
            word_characters = 0;
        } else if kind != Kind::Word && kind != Kind::Mark {
            compound.end(&mut found);
        }
        if compound.is_ended {
            compound.end(&mut found);
        }
        let dense_ends = !matches!(kind, Kind::Dense | Kind::Mark) || clusters.len() >= RUN_CHARACTERS_MAX;
        if dense_ends && !clusters.is_empty() {
            found(Run::Dense(&clusters));
            // The pair across the cut is kept by beginning again with the last character.
            let last = clusters.pop().filter(|_| kind == Kind::Dense);
            clusters.clear();
            clusters.extend(last);
        }
        match kind {
            Kind::Word => {
                word.push(character);
                word_characters = word_characters.saturating_add(1);
            }
            Kind::Dense => clusters.push(character.to_string()),
            Kind::Mark => match clusters.last_mut() {
                // A character carries a handful of marks; a heap of them is no writing.
                Some(cluster) if cluster.len() < 32 => cluster.push(character),
                None if !word.is_empty() => {
                    word.push(character);
                    word_characters = word_characters.saturating_add(1);
                }
                _ => {}
            },
            // A flag is two letters of its own alphabet.
            Kind::Symbol if matches!(character, '\u{1f1e6}'..='\u{1f1ff}') => {
                match flag.take() {
                    Some(first) => found(Run::Symbol(&String::from_iter([first, character]))),
                    None => flag = Some(character),
                }
                continue;
            }
            Kind::Symbol => found(Run::Symbol(&character.to_string())),
            Kind::Ignored | Kind::Break => {}
        }
        flag = None;
    }
    if !word.is_empty() {
        found(Run::Word(&word));
        compound.push(&word, ' ');
    }
    compound.end(&mut found);
    if !clusters.is_empty() {
        found(Run::Dense(&clusters));
    }
}

/// Words that hyphens join, as they are read.
#[derive(Default)]
struct Compound {
    whole: String,
    words: usize,
    is_ended: bool,
}

impl Compound {
    /// One more word, and the character after it.
    fn push(&mut self, word: &str, next: char) {
        self.whole.push_str(word);
        self.words = self.words.saturating_add(1);
        self.is_ended = !matches!(next, '-' | '\u{2010}' | '\u{2011}') || self.whole.len() > 4 * RUN_CHARACTERS_MAX;
    }

    fn end(&mut self, mut found: impl FnMut(Run<'_>)) {
        if self.words > 1 {
            found(Run::Joined(&self.whole));
        }
        *self = Self::default();
    }
}

fn is_stop_word(word: &str) -> bool {
    word.is_ascii() && STOP_WORDS.split_ascii_whitespace().any(|stop_word| stop_word == word)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finds(text: &str, query: &str) -> bool {
        let indexed = index_words(text);
        let asked = query_words(query);
        !asked.is_empty() && asked.iter().all(|word| indexed.contains(word))
    }

    #[test]
    fn every_script_is_found_by_its_own_words() {
        for (text, query) in [
            ("明日は東京で会議があります", "東京"),
            ("我喜歡喝烏龍茶", "烏龍"),
            ("茶", "茶"),
            ("ฉันชอบกินข้าวผัดกุ้ง", "ข้าวผัด"),
            ("ຂ້ອຍມັກກິນເຂົ້າ", "ເຂົ້າ"),
            ("ខ្ញុំចូលចិត្តកាហ្វេ", "កាហ្វេ"),
            ("ကျွန်တော် ကော်ဖီ ကြိုက်တယ်", "ကော်ဖီ"),
            ("학교에서 친구를 만났다", "학교"),
            ("Встреча с Алексеем в понедельник", "понедельник"),
            ("Η συνάντηση είναι στην Αθήνα", "αθηνα"),
            ("पानी की बोतल", "बोतल"),
            ("أحب القهوة", "القهوة"),
            ("Die Straße ist gesperrt", "STRASSE"),
            ("Crème brûlée", "creme brulee"),
            ("موعد طبيب الأسنان", "الطبيب"),
            ("موعد طبيب الأسنان", "اسنان"),
            ("طبيب", "طَبيب"),
            ("ёлка и чай", "елка"),
            ("Встреча с Алексеем в понедельник", "встречи понедельника"),
            ("पानी मेज़ पर", "मेज"),
            ("İstanbul'da ışık", "istanbul isik"),
            ("Đà Nẵng", "da nang"),
            ("Kraków", "krakow"),
            ("ｆｕｌｌｗｉｄｔｈ", "fullwidth"),
            ("the party 🎉 was great", "🎉"),
            ("thumbs up 👍🏽", "👍"),
            ("from 🇯🇵 with love", "🇯🇵"),
            ("costs 5€", "€"),
        ] {
            assert!(finds(text, query), "{query} in {text}: {:?} {:?}", query_words(query), index_words(text));
        }
    }

    #[test]
    fn identifiers_addresses_and_numbers_are_found_whole_and_in_parts() {
        for query in ["storeBatch", "store_batch", "batch", "storebatch", "http", "HTTPServer", "maria@example.org"] {
            assert!(finds("storeBatch calls HTTPServer of maria@example.org", query), "{query}");
        }
        assert!(finds("fn store_batch()", "storeBatch"));
        for (text, query) in [
            ("call +44 20 7946 0018", "7946"),
            ("call +44 20 7946 0018", "442079460018"),
            ("call 442079460018", "+44 20 7946 0018"),
            ("it costs 12,500 or 1.299,50", "12500"),
            ("it costs 12,500 or 1.299,50", "1299"),
            ("order 4711-0815", "47110815"),
            ("set user_name_cache", "username"),
            ("call getUserName()", "user_name"),
            ("an iPhone15Pro, 10km away", "iphone"),
            ("an iPhone15Pro, 10km away", "10 km"),
            ("parse HTTP2", "http"),
            ("write to foo.bar@example.com", "example.com"),
            ("write to foo.bar@example.com", "foo"),
            ("the Wi-Fi of the co-op, ticket ABC-123", "wifi coop abc123"),
            ("the wifi", "wi-fi"),
        ] {
            let found = query_words(query).iter().any(|word| index_words(text).contains(word));
            assert!(found, "{query} in {text}: {:?} {:?}", query_words(query), index_words(text));
        }
        assert_eq!(index_words("a1b2c3 v2"), ["a1b2c3", "v2"]);
        assert_eq!(index_words("rooms 3, 4 and 12"), ["room", "3", "4", "and", "12"]);
        assert_eq!(index_words("a - b--c"), ["a", "b", "c"]);
    }

    #[test]
    fn stop_words_are_dropped_unless_there_is_nothing_else() {
        assert_eq!(query_words("What did the ferry cost?"), ["ferri", "cost"]);
        assert_eq!(query_words("to be or not to be"), ["to", "be", "or", "not"]);
        assert!(query_words("\"' OR * ( NEAR").iter().all(|word| word.chars().all(char::is_alphanumeric)));
        assert!(query_words("?!").is_empty());
    }

    #[test]
    fn a_day_is_asked_for_by_its_words() {
        let words = date_words(Timestamp::parse_rfc3339("2023-05-08T13:56:00Z").unwrap());
        assert_eq!(words, ["8", "2023", "may", "monday"]);
    }

    #[test]
    fn matches_are_marked_whole_and_the_text_stays_the_text() {
        let of = |text: &str, query: &str| {
            let pieces = marked(text, query);
            assert_eq!(pieces.iter().map(|(piece, _)| *piece).collect::<String>(), text);
            pieces.into_iter().filter(|(_, is_match)| *is_match).map(|(piece, _)| piece.to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(of("Invoiced once; the invoice is due.", "invoices?"), ["Invoiced", "invoice"]);
        assert_eq!(of("Crème Brûlée, cre\u{300}me", "CREME"), ["Crème", "cre\u{300}me"]);
        assert_eq!(of("call storeBatch()", "batch"), ["storeBatch"]);
        assert_eq!(of("明日は東京で会議", "東京"), ["東京"]);
        assert_eq!(of("我喜歡喝烏龍茶", "烏龍茶"), ["烏龍茶"]);
        assert_eq!(of("a party 🎉🎉 today", "🎉"), ["🎉🎉"]);
        assert_eq!(of("<b>bold</b>", "the b"), ["b", "b"]);
        assert!(of("nothing here", "?!").is_empty());
        assert!(of("", "word").is_empty());
    }

    #[test]
    fn no_text_is_too_odd_to_be_stemmed() {
        let letters: Vec<char> =
            ('а'..='я').chain('ء'..='ي').chain('a'..='z').chain(['ً', '\u{306}', '-', '_', '1']).collect();
        let mut state = 1_u64;
        for _ in 0..20_000 {
            let mut word = String::new();
            for _ in 0..12 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let range = usize::try_from(state >> 60).unwrap() % 3;
                let begin = [0, 32, 74][range];
                let at = usize::try_from(state >> 33).unwrap() % 31;
                word.push(letters[(begin + at).min(letters.len() - 1)]);
            }
            assert!(!index_words(&word).is_empty(), "{word}");
        }
    }

    #[test]
    fn a_long_run_is_cut_and_not_lost() {
        let long = "字".repeat(200);
        assert_eq!(index_words(&long).iter().filter(|word| word.chars().count() == 2).count(), 199);
        assert!(index_words(&"y".repeat(4_000)).iter().all(|word| word.len() <= 64));
    }
}
