//! The pages in a real browser: headless Chromium, driven through `WebDriver`, on the real application over TCP.
//!
//! `TALLYBOX_SKIP_BROWSER=1` leaves these tests out, loudly. A page is added to all that holds for every page by a row in
//! `tests/suite/world.rs`.
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on panics")]

#[path = "../suite/sieve.rs"]
#[allow(dead_code, reason = "the suite uses the rest")]
mod sieve;
#[path = "../suite/support.rs"]
#[allow(dead_code, reason = "the suite uses the rest")]
mod support;
#[path = "../suite/world.rs"]
mod world;

mod account;
mod admin;
mod browser;
mod door;
mod driver;
mod every_page;
mod inert;
mod memories;
mod payloads;
mod usage;
