//! Tallybox: memory, metering and limits for AI assistants, in one binary with embedded SQLite.
//!
//! The map, from the outside in; imports point downwards only (`tests/tidy.rs` holds the walls):
//!
//! - [`app`] builds everything, serves, drains (`listener` takes the connections); [`worker`] does what recurs, [`backup`] makes the copies that are made by themselves; [`config`] reads the settings; [`demo`] makes the
//!   data of `tallybox demo`.
//! - `web` is HTTP: every route in one table, thin handlers. [`view`] turns data into pages.
//! - [`service`] does the work on a `Reader` or `Writer`: load, decide, write.
//! - [`adapter`] is the outside world that is neither HTTP in nor SQL: who makes embeddings, who serves models.
//! - [`store`] holds all the SQL; one thread writes, with group commit at `synchronous=FULL`.
//! - [`domain`] is pure: types that cannot hold a wrong value, and the rules.
//!
//! To add a resource, a route or a page, see CONTRIBUTING.md.

pub mod adapter;
pub mod app;
pub mod backup;
pub mod clock;
pub mod config;
pub mod demo;
pub mod domain;
mod listener;
mod lock;
mod meter;
pub mod service;
pub mod store;
pub mod view;
mod web;
pub mod worker;

/// The version of this program.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The commit it was built from; none where that is not known.
pub const BUILD: Option<&str> = option_env!("TALLYBOX_BUILD");
