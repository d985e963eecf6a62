//! What holds for anything that may come. A case that failed is kept in `tests/proptest-regressions/` and tried again first;
//! those that taught something stand in the tests as examples. See also `input/arbitrary.rs` (bodies of requests), and in
//! `src/` the readers of what is imported, the tokenizer's windows and the index of memories.

mod config;
mod sizes;
mod sse;
mod transfer;
mod window;
mod words;
