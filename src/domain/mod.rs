//! The pure heart: types that cannot hold a wrong value, and the rules. No I/O, no async, no clock.

#![cfg_attr(not(test), warn(clippy::arithmetic_side_effects, clippy::float_arithmetic))]

pub mod agent;
pub mod audit;
pub mod auth;
pub mod calendar;
pub mod error;
pub(crate) mod field;
pub mod gateway;
pub(crate) mod json;
pub mod ledger;
pub mod memory;
pub mod overview;
pub mod page;
pub mod quota;
pub mod unit;
pub mod words;

pub use error::{Error, Fault, Result};
