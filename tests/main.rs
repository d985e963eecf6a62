//! The tests of the whole: the real application on a real database, mostly through HTTP, with a clock that is turned by
//! hand.
#![expect(clippy::missing_panics_doc, reason = "tests panic where they fail")]

mod suite;
