//! Certificates held to pinned keys (`docs/spec/08 §4.2`): made by rcgen, judged by us and by rustls-webpki.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    reason = "a test may fail"
)]

mod agreement;
mod authority;
mod hostile;
mod pins;
mod proof;
