//! Pure views: data to maud markup.

pub mod error;
pub mod layout;
