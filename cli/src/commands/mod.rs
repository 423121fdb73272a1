//! One file per command: its flags, what it does, what it prints.

pub(crate) mod buildinfo;
pub(crate) mod completion;
pub(crate) mod jwt;
