//! Tallybox: memory, metering and limits for AI assistants, in one binary with embedded SQLite.

pub mod clock;
pub mod config;
pub mod domain;
pub mod store;
