//! The tests of the whole: the real application on a real database, mostly through HTTP, with a clock that is turned by
//! hand.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on panics")]

mod suite;
