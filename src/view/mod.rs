//! Pure views: data to maud markup.

pub mod asset;
pub mod door;
pub mod error;
pub mod layout;
pub mod memory;
pub mod part;
pub mod usage;
