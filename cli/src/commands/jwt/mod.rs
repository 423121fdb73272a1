//! `choria jwt`: keys and tokens in files. Nothing here touches the network (docs/spec/07 §8).

mod client;
mod keys;
mod provisioning;
mod server;
mod view;

use std::path::Path;
use std::time::Duration;

use choria_host::{clock, private_file};
use choria_token::{PublicKey, SigningKey, names};
use clap::{Args, Subcommand};

use crate::arguments::Global;
use crate::failure::{Doing, Failure};
use crate::output;

#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Examples:\n  choria jwt token.jwt issuer.public          view and verify a token\n  choria jwt keys issuer.seed issuer.public   make an organization issuer\n  choria jwt server n1.jwt n1.example.net n1.public issuer.seed"
)]
pub(crate) struct Options {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    view: Option<view::Options>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show a token and, with the issuer's public key, verify it
    #[command(visible_aliases = ["show", "v", "s"])]
    View(view::Options),
    /// Make an Ed25519 key pair
    #[command(visible_alias = "k")]
    Keys(keys::Options),
    /// Issue a client token
    #[command(visible_alias = "c")]
    Client(client::Options),
    /// Issue a server token
    Server(server::Options),
    /// Issue a provisioning token
    #[command(visible_aliases = ["prov", "provision", "p"])]
    Provisioning(provisioning::Options),
}

pub(crate) fn run(global: &Global, options: &Options) -> Result<u8, Failure> {
    match (&options.command, &options.view) {
        (Some(Command::View(options)), _) | (None, Some(options)) => view::run(options),
        (Some(Command::Keys(options)), _) => keys::run(global.prompts(), options),
        (Some(Command::Client(options)), _) => client::run(options),
        (Some(Command::Server(options)), _) => server::run(options),
        (Some(Command::Provisioning(options)), _) => provisioning::run(global.prompts(), options),
        (None, None) => Err(Failure::usage(
            "which token? give a FILE, or one of view, keys, client, server, provisioning",
        )),
    }
}

fn signing_key(path: &Path) -> Result<SigningKey, Failure> {
    SigningKey::load(path)
        .doing(|| format!("could not create token: cannot use the signing key {}", path.display()))
}

/// A public key given as 64 hex digits or as the name of a file that holds them.
fn public_key(text: &str) -> Result<PublicKey, Failure> {
    PublicKey::load(text)
        .doing(|| format!("could not create token: {text:?} is neither a public key nor a file with one"))
}

/// Writes a token to its file and says so in the words that users know.
fn save(path: &Path, token: &str) -> Result<u8, Failure> {
    private_file::write_private(path, token.as_bytes())
        .doing(|| format!("could not save the token in {}", path.display()))?;
    let name = path.display();
    output::print(&format!("Saved token to {name}, use 'choria jwt view {name}' to view it\n"));
    Ok(0)
}

/// Says which subject makes our broker refuse the token; another broker may have rules of its own.
fn warn_of_reserved<'s>(subjects: impl IntoIterator<Item = &'s String>) {
    if let Some(subject) = subjects.into_iter().find(|subject| names::reserved_subject(subject)) {
        output::note(&format!(
            "warning: the broker refuses tokens that add {subject}: it is a subject of the broker's own\n"
        ));
    }
}

fn validity(text: &str) -> Result<Duration, String> {
    let duration = choria_host::duration::parse(text).map_err(|error| error.to_string())?;
    if duration.is_zero() { Err(String::from("a token must be valid for some time")) } else { Ok(duration) }
}

fn now() -> i64 {
    clock::unix_seconds()
}
