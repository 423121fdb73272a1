//! AAA as its peers see it: over HTTPS, with real keys, tokens and policies.

// Helpers of tests fail by panicking, as tests do.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::large_futures
)]

mod broker;
mod fixture;
mod http;
mod login;
mod sign;
mod speed;
