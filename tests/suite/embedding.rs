//! The built-in embedder against the original model's vectors and token ids.

use std::sync::LazyLock;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use serde::Deserialize;
use tallybox::adapter::embedder::{Builtin, Embedder};
use tallybox::domain::memory::{EMBEDDING_DIMENSIONS, Embedding, EmbeddingFault};

use super::property::corpus_texts;

/// Most tokens of a window.
const TOKENS_MAX: usize = 256;

/// Least cosine between our vector and the original's.
const COSINE_MIN: f32 = 0.995;

static EMBEDDER: LazyLock<Builtin> = LazyLock::new(|| Builtin::load().expect("the model loads"));

static REFERENCES: LazyLock<Vec<Reference>> = LazyLock::new(|| {
    include_str!("../data/embedding_reference.jsonl")
        .lines()
        .map(|line| serde_json::from_str(line).expect("a reference is a JSON object"))
        .collect()
});

/// What the original model makes of a text.
#[derive(Deserialize)]
struct Reference {
    text: String,
    ids: Vec<u32>,
    vector: String,
}

impl Reference {
    fn embedding(&self) -> Embedding {
        let digits = self.vector.as_bytes().chunks(4);
        let values: Vec<f32> = digits
            .map(|digits| {
                let digits = std::str::from_utf8(digits).expect("digits are ASCII");
                let bits = u16::from_str_radix(digits, 16).expect("digits are hexadecimal");
                f32::from(bits.cast_signed()) / 32767.0
            })
            .collect();
        Embedding::normalised(&values).expect("a reference has 384 numbers")
    }
}

fn embed(text: &str) -> Embedding {
    let mut embeddings = EMBEDDER.embed(&[text]).expect("a text is embedded");
    assert_eq!(embeddings.len(), 1, "one vector a text");
    embeddings.remove(0)
}

/// A beginning of a text to name it by in a message.
fn beginning(text: &str) -> String {
    text.chars().take(40).collect()
}

#[test]
fn tokens_are_the_original_tokenizers() {
    for reference in REFERENCES.iter() {
        let ids = EMBEDDER.token_ids(&reference.text);
        assert_eq!(ids, reference.ids, "{:?}", beginning(&reference.text));
    }
}

#[test]
fn every_character_is_tokenised_as_by_the_original() {
    for line in include_str!("../data/embedding_characters.txt").lines() {
        let (block, expected) = line.split_once(' ').expect("two fields a line");
        let block = u32::from_str_radix(block, 16).expect("a code point");
        let mut hash = 0xcbf2_9ce4_8422_2325_u64;
        for character in (block..block + 0x1000).filter_map(char::from_u32) {
            for id in EMBEDDER.token_ids(&format!("a{character}b {character}")) {
                for byte in id.to_le_bytes() {
                    hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
                }
            }
        }
        assert_eq!(format!("{hash:016x}"), expected, "from U+{block:04X}");
    }
}

#[test]
fn vectors_are_close_to_the_original_models() {
    let mut sum = 0.0;
    let mut least = (1.0, String::new());
    for reference in REFERENCES.iter() {
        let cosine = embed(&reference.text).dot(&reference.embedding());
        sum += f64::from(cosine);
        if cosine < least.0 {
            least = (cosine, beginning(&reference.text));
        }
    }
    let mean = sum / f64::from(u32::try_from(REFERENCES.len()).expect("a small number"));
    eprintln!("cosine: least {} of {:?}, mean {mean}", least.0, least.1);
    assert!(REFERENCES.len() >= 56, "too few references");
    assert!(least.0 >= COSINE_MIN, "{} for {:?}", least.0, least.1);
}

#[test]
fn neighbours_are_the_original_models() {
    // The order of neighbours is what a search sees: the nearest other text must be the same,
    // or as near within what rounding may cost.
    let originals: Vec<Embedding> = REFERENCES.iter().map(Reference::embedding).collect();
    let ours: Vec<Embedding> = REFERENCES.iter().map(|one| embed(&one.text)).collect();
    let nearest = |of: usize, among: &[Embedding]| {
        (0..among.len())
            .filter(|&other| other != of)
            .max_by(|&a, &b| among[of].dot(&among[a]).total_cmp(&among[of].dot(&among[b])))
            .expect("there are other texts")
    };
    for index in 0..originals.len() {
        let (theirs, own) = (nearest(index, &originals), nearest(index, &ours));
        let lost = originals[index].dot(&originals[theirs]) - originals[index].dot(&originals[own]);
        assert!(lost < 0.02, "{:?} got another neighbour", REFERENCES[index].text);
    }
}

#[test]
fn a_batch_gives_the_vectors_of_its_texts_in_order() {
    let texts: Vec<&str> = REFERENCES.iter().map(|one| one.text.as_str()).collect();
    let batch = EMBEDDER.embed(&texts).expect("a batch is embedded");
    assert_eq!(batch.len(), texts.len());
    for (text, embedding) in texts.iter().zip(&batch) {
        let cosine = embed(text).dot(embedding);
        assert!(cosine > 0.9999, "{cosine} for {:?}", beginning(text));
    }
    assert!(EMBEDDER.embed(&[]).expect("no text").is_empty());
}

#[test]
fn threads_embed_at_once_and_alike() {
    let alone = embed("Two requests arrive at the same time.");
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..5 {
                    assert_eq!(embed("Two requests arrive at the same time."), alone);
                }
            });
        }
    });
}

#[test]
fn odd_texts_give_finite_vectors() {
    let word = "w".repeat(256 * 1024);
    for text in ["", " \t\r\n", "\0\u{7}", "\u{301}\u{301}", "\u{fffd}", &word] {
        let embedding = embed(text);
        let length: f32 = embedding.as_slice().iter().map(|value| value * value).sum();
        assert!((length - 1.0).abs() < 1e-5, "{:?}", beginning(text));
    }
}

#[test]
fn a_text_that_fits_is_its_own_window() {
    let full = "a ".repeat(TOKENS_MAX - 2);
    let word = "w".repeat(256 * 1024);
    let blank = " ".repeat(10_000);
    for text in ["", " ", "One sentence.", "\0", &full, &word, &blank] {
        assert_eq!(EMBEDDER.windows(text), [text], "{:?}", beginning(text));
    }
}

#[test]
fn odd_long_texts_have_windows_that_fit() {
    let texts = [
        "a ".repeat(TOKENS_MAX - 1),
        "🎉".repeat(20_000),
        "🎉 ".repeat(20_000),
        "漢字".repeat(20_000),
        "!".repeat(100_000),
        "\u{1d15e}≠\u{fdfa}".repeat(5_000),
        "가각간".repeat(9_000),
        "[MASK]".repeat(9_000),
        format!("{} ", "zq".repeat(50)).repeat(900),
        "x\u{301}\u{327}".repeat(30_000),
        "\u{f900}\u{2f800}".repeat(9_000),
    ];
    for text in &texts {
        check_windows(text).unwrap_or_else(|fault| panic!("{:?}: {fault}", beginning(text)));
    }
}

#[test]
fn windows_of_short_words_overlap_by_32_tokens() {
    let text = "a b ".repeat(300);
    let windows = EMBEDDER.windows(&text);
    // 254 words fit a window, and each one but the first brings 254 - 32 further ones.
    assert_eq!(windows.len(), 1 + (600_usize - 254).div_ceil(254 - 32));
    assert_eq!(windows[0], &text[..254 * 2]);
    assert_eq!(windows[1], &text[222 * 2..476 * 2]);
}

#[test]
fn the_longest_text_is_split_quickly() {
    let prose = "The quick brown fox, being café-born, jumps over 13 lazy dogs. ".repeat(4_200);
    let begin = Instant::now();
    let windows = EMBEDDER.windows(&prose[..256 * 1024]);
    // Some 15 ms in a release build; the limit only tells a loss of the linear time.
    assert!(begin.elapsed() < Duration::from_secs(2));
    assert!(windows.len() > 200);
}

#[test]
fn embeddings_have_384_finite_values_of_length_1() {
    let dimensions = EMBEDDING_DIMENSIONS;
    assert_eq!(Embedding::normalised(&[1.0; 3]), Err(EmbeddingFault::Length(3)));
    assert_eq!(Embedding::normalised(&vec![0.0; dimensions]), Err(EmbeddingFault::Zero));
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut values = vec![1.0; dimensions];
        values[7] = bad;
        assert_eq!(Embedding::normalised(&values), Err(EmbeddingFault::NotFinite(7)));
    }
    for size in [1e-38, 1.0, f32::MAX] {
        let embedding = Embedding::normalised(&vec![size; dimensions]).expect("finite values");
        assert!((embedding.dot(&embedding) - 1.0).abs() < 1e-5);
    }
}

/// Token ids of a text without the two that enclose every text.
fn own_tokens(text: &str) -> Vec<u32> {
    let ids = EMBEDDER.token_ids(text);
    ids[1..ids.len() - 1].to_vec()
}

/// Checks that the windows of `text` fit, cover it, follow each other and overlap as they should.
fn check_windows(text: &str) -> Result<(), String> {
    let windows = EMBEDDER.windows(text);
    let place = |window: &str| {
        let begin = window.as_ptr() as usize - text.as_ptr() as usize;
        begin..begin + window.len()
    };
    let (Some(first), Some(last)) = (windows.first(), windows.last()) else {
        return Err("no window".to_owned());
    };
    if place(first).start != 0 || place(last).end != text.len() {
        return Err("the windows do not cover the text".to_owned());
    }
    for window in &windows {
        // The embedder cuts what is too long, so count with a text that would show it.
        let tokens = EMBEDDER.token_ids(window);
        if tokens.len() == TOKENS_MAX && EMBEDDER.windows(window) != [*window] {
            return Err(format!("{:?} does not fit", beginning(window)));
        }
    }
    for pair in windows.windows(2) {
        let (one, next) = (place(pair[0]), place(pair[1]));
        if next.start <= one.start || next.start > one.end || next.end <= one.end {
            return Err(format!("{next:?} does not follow {one:?}"));
        }
        // What two windows share is split alike in both, as in the whole text.
        let [shared, one, next] = [&text[next.start..one.end], pair[0], pair[1]].map(own_tokens);
        if shared.len() > 48 || !one.ends_with(&shared) || !next.starts_with(&shared) {
            return Err(format!("{} tokens overlap, or differ", shared.len()));
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn windows_fit_and_cover_any_text(text in "\\PC{0,3000}") {
        prop_assert_eq!(check_windows(&text), Ok(()));
    }

    #[test]
    fn windows_fit_and_cover_any_words(
        words in proptest::collection::vec(
            "[a-z]{1,12}|[a-zß-ÿ]{1,120}|[一-丿]{1,4}|[а-я]{1,9}|[.,;\\[\\]#-]{1,3}|\\[SEP\\]|[\u{300}-\u{36f}]|[가-각]{1,3}|≠|\\s{1,3}|\\p{Cc}",
            0..900,
        ),
        spaced in any::<bool>(),
    ) {
        let text = words.join(if spaced { " " } else { "" });
        prop_assert_eq!(check_windows(&text), Ok(()));
    }
}

#[test]
fn windows_fit_and_cover_the_texts_of_the_corpus() {
    for (name, text) in corpus_texts("queries") {
        assert_eq!(check_windows(&text), Ok(()), "{name}");
    }
}
