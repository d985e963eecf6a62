//! Pages for people.

mod admin;
