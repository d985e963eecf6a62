//! What the box does: synchronous functions over a `Reader` or a `Writer` that load, decide by the rules of `domain`, and
//! write.

pub mod agent;
pub mod audit;
pub mod auth;
pub mod check;
pub mod erasure;
pub mod gateway;
pub mod idempotency;
pub mod ledger;
pub mod memory;
pub mod overview;
pub mod quota;
pub mod retention;
