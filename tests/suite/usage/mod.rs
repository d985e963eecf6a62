//! Metering and limits: what is recorded, what is refused, and what the figures say.

mod figures;
mod idempotency;
mod listing;
mod maker;
mod record;
mod reservation;
mod retention;
mod reversal;
mod window;
