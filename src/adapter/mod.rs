//! The outside world that is neither HTTP in nor SQL: a trait and its real implementations each.

pub mod embedder;
mod http_client;
