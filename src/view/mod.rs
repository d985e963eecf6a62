//! Pure views: data to maud markup.

pub mod account;
pub mod admin;
pub mod agent;
pub mod asset;
pub mod chart;
pub mod docs;
pub mod door;
pub mod error;
pub mod layout;
pub mod memory;
pub mod part;
pub mod usage;
pub mod words;
