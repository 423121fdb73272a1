//! What every Choria process on a Linux host shares: settings files, private files, TLS, clock, randomness,
//! log lines, process hardening and Rego policies.
//!
//! Three rules live here and nowhere else: TLS configurations are built only by [`tls`] (one provider, no
//! silent loss of verification), the wall clock is read only by [`clock`], and secrets on disk are written
//! only by [`private_file`] (0600 before content, complete or absent after a crash).

pub mod clock;
pub mod duration;
pub mod fault;
pub mod harden;
pub mod log;
mod one_line;
pub mod private_file;
pub mod random;
pub mod rego;
pub mod settings;
pub mod terminal;
pub mod thinning;
pub mod tls;

pub use one_line::one_line;
pub use private_file::Secret;
pub use settings::Settings;
