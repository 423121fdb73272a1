//! One file per command: its flags, what it does, what it prints.

pub(crate) mod aaa;
pub(crate) mod broker;
pub(crate) mod buildinfo;
pub(crate) mod completion;
pub(crate) mod discover;
pub(crate) mod facts;
pub(crate) mod hub;
pub(crate) mod inventory;
pub(crate) mod jwt;
pub(crate) mod login;
pub(crate) mod ping;
pub(crate) mod provisioner;
pub(crate) mod req;
pub(crate) mod server;
mod service;
