//! Attempts to get in, or to get more than is one's own. docs/OPERATIONS.md lists them all, with those that stand elsewhere.

mod ends;
mod entry;
mod ids;
mod matrix;
mod mint;
mod outbound;
mod overview;
mod secrets;
mod time;
