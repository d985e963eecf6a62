//! The outside world that is neither HTTP in nor SQL: a trait and its real implementations each.

pub mod embedder;
mod http_client;
pub mod sse;
pub mod tokenizer;
pub mod upstream;
