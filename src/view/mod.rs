//! Pure views: data to maud markup.

pub mod door;
pub mod error;
pub mod layout;
pub mod usage;
