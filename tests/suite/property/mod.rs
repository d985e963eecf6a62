//! What holds for anything that may come. Inputs that are known to be hard lie in `tests/corpus/`, by kind, and are tried
//! first. A case that failed is kept in `proptest-regressions/` (`suite/property/sse.txt` for those of `sse.rs`) and tried
//! again from then on. See also `input/arbitrary.rs` (bodies of requests), and in `src/` the readers of what is imported, the
//! tokenizer's windows and the index of memories.

mod config;
mod sizes;
mod sse;
mod transfer;
mod window;
mod words;

use std::fs;
use std::path::Path;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

/// The inputs of a kind, each with the name of its file.
pub(in crate::suite) fn corpus(kind: &str) -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus").join(kind);
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    let read = |entry: fs::DirEntry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap());
    let mut inputs: Vec<_> = entries.map(read).collect();
    inputs.sort();
    assert!(!inputs.is_empty(), "no {kind}");
    inputs
}

/// As [`corpus`], of those that are text.
pub(in crate::suite) fn corpus_texts(kind: &str) -> Vec<(String, String)> {
    let texts = corpus(kind).into_iter().filter_map(|(name, bytes)| Some((name, String::from_utf8(bytes).ok()?)));
    texts.collect()
}

#[test]
fn a_case_that_failed_is_kept_where_the_manual_says() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let kept = root.join("proptest-regressions/suite/property/mod.txt");
    let config = Config { source_file: Some(file!()), ..Config::with_cases(1) };
    let failed = TestRunner::new(config).run(&any::<bool>(), |_| Err(TestCaseError::fail("as it shall")));
    failed.unwrap_err();
    let is_there = kept.is_file();
    let _ = fs::remove_file(&kept);
    // As long as nothing else is kept.
    for folder in kept.ancestors().skip(1).take(3) {
        let _ = fs::remove_dir(folder);
    }
    assert!(is_there);
    for file in ["CONTRIBUTING.md", "tests/suite/property/mod.rs"] {
        let said = fs::read_to_string(root.join(file)).unwrap();
        assert!(said.contains(" `proptest-regressions/` (`suite/property/sse.txt` for those of `"), "{file}");
    }
}
