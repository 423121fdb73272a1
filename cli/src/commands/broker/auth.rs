//! `choria broker auth explain` [ours]: what a broker with this configuration would answer to a token, and why
//! (docs/spec/02 §11). Works without a broker; nothing is sent anywhere.

use std::io::Read as _;
use std::net::IpAddr;
use std::path::Path;

use choria_broker::permissions::Rules;
use choria_broker::{
    BrokerConfig, Denial, Explanation, Nonce, Password, Placement, Question, SessionExpiry, Transport,
    explain,
};
use choria_host::{Secret, clock, private_file};
use choria_token::Purpose;
use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use crate::arguments::Global;
use crate::commands::service;
use crate::failure::{Code, Doing, Failure};
use crate::output::{self, format, harmless};

#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Say what becomes of a connection with this token, and by which rule; needs --config
    #[command(
        after_help = "Examples:\n  choria broker auth explain ~/.config/choria/token --config /etc/choria/broker.conf\n  \
        choria broker auth explain - --config broker.conf < server.jwt\n  \
        choria broker auth explain provisioner.jwt --config broker.conf --user provisioner --json\n  \
        choria broker auth explain server.jwt --config broker.conf --transport plain\n\n\
        Nothing is sent: the configuration and the token are read and judged here, with this machine's clock.\n\
        Exit codes: 0 the connection would be admitted, 5 it would be refused, 1 the question could not be answered."
    )]
    Explain(Explain),
}

#[derive(Debug, Args)]
#[group(id = "explained")]
struct Explain {
    /// File with the token, or - for stdin; an empty stdin asks about a connection without a token
    token: String,
    /// User name of the connection: 'provisioner', or the system user
    #[arg(long, value_name = "NAME", default_value = "")]
    user: String,
    /// Whether that user sends the password of the configuration
    #[arg(long, value_enum, default_value_t = GivenPassword::Right)]
    password: GivenPassword,
    /// How the connection is transported
    #[arg(long, value_enum, default_value_t = GivenTransport::Tls)]
    transport: GivenTransport,
    /// Who signed the broker's nonce
    #[arg(long, value_enum, default_value_t = GivenNonce::Holder)]
    nonce: GivenNonce,
    /// Name of the connection; a node that waits to be provisioned sends its identity
    #[arg(long, value_name = "NAME", default_value = "")]
    name: String,
    /// Address of the peer; matters to a certificate without a token
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1")]
    address: IpAddr,
    /// The answer as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum GivenPassword {
    /// It does
    Right,
    /// It sends another one
    Wrong,
    /// It sends none
    None,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum GivenTransport {
    /// Not encrypted
    Plain,
    /// TLS without a client certificate
    Tls,
    /// TLS with a client certificate of the broker's CA
    Certificate,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum GivenNonce {
    /// The holder of the token's key
    Holder,
    /// Somebody with another key
    Stranger,
    /// Nobody
    Unsigned,
}

pub(crate) fn run(global: &Global, options: &Options) -> Result<u8, Failure> {
    let Command::Explain(options) = &options.command;
    let token = read(&options.token)?;
    let (_, config) = super::load(service::configuration(global)?)?;
    let policy = config.policy().doing(|| String::from("the keys of the configuration cannot be used"))?;
    let question = Question {
        token: token.expose(),
        user: &options.user,
        password: match options.password {
            GivenPassword::Right => Password::Right,
            GivenPassword::Wrong => Password::Wrong,
            GivenPassword::None => Password::Missing,
        },
        name: &options.name,
        address: options.address,
        transport: match options.transport {
            GivenTransport::Plain => Transport::Plain,
            GivenTransport::Tls => Transport::Tls,
            GivenTransport::Certificate => Transport::TlsVerified,
        },
        nonce: match options.nonce {
            GivenNonce::Holder => Nonce::Signed,
            GivenNonce::Stranger => Nonce::SignedByAnother,
            GivenNonce::Unsigned => Nonce::Unsigned,
        },
    };
    let answer = explain(&policy, &question, clock::unix_seconds());
    let text =
        if options.json { output::json(&as_json(&answer, &config)) } else { in_words(&answer, &config) };
    output::print(&text);
    Ok(if answer.verdict.is_ok() { 0 } else { Code::Denied as u8 })
}

/// The token from a file or stdin. One that was typed as an argument is refused, and not repeated.
fn read(given: &str) -> Result<Secret, Failure> {
    if given == "-" {
        let mut text = Zeroizing::new(String::new());
        let mut stdin = std::io::stdin().lock().take(private_file::MAX_SECRET + 1);
        stdin.read_to_string(&mut text).doing(|| String::from("cannot read the token from stdin"))?;
        if text.len() as u64 > private_file::MAX_SECRET {
            return Err(Failure::new("what came from stdin is larger than any token"));
        }
        return Ok(Secret::new(text.trim().to_owned()));
    }
    let path = Path::new(given);
    if looks_like_token(given) && !path.exists() {
        return Err(Failure::usage("this is a token, and not a file with one")
            .because("every user of this machine can read the arguments of a command")
            .hint("put the token into a file, or pipe it in: choria broker auth explain - --config FILE"));
    }
    private_file::read_secret(path).doing(|| format!("cannot read the token {given}"))
}

/// Three long words of base64url with dots between them: no name that anybody gives a file.
fn looks_like_token(text: &str) -> bool {
    let word = |part: &str| part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    text.len() > 60 && text.split('.').count() >= 3 && text.split('.').all(word)
}

fn kind(kind: Option<Purpose>) -> &'static str {
    match kind {
        Some(Purpose::Client) => "client",
        Some(Purpose::Server) => "server",
        Some(Purpose::Provisioning) => "provisioning",
        None => "unreadable",
    }
}

/// When a session of this placement ends.
fn ends(placement: &Placement, config: &BrokerConfig) -> Option<i64> {
    placement.expires.filter(|_| config.session_expiry == SessionExpiry::Token)
}

fn as_json(answer: &Explanation, config: &BrokerConfig) -> Value {
    let mut warnings = config.warnings.clone();
    let verdict = match &answer.verdict {
        Ok(placed) => {
            warnings.extend(placed.warnings.iter().map(|warning| (*warning).to_owned()));
            json!({
                "path": placed.path.as_str(), "account": placed.account, "user": placed.user,
                "permissions": placed.permissions,
                "max_subscriptions": placed.limits.as_ref().map(|limits| limits.subscriptions),
                "token_expires": placed.expires, "session_ends": ends(placed, config), "tags": placed.tags,
            })
        }
        Err(denial) => json!({"reason": denial.reason, "detail": denial.detail}),
    };
    let mut out = json!({
        "kind": answer.kind.map(|known| kind(Some(known))), "admitted": answer.verdict.is_ok(),
        "assumptions": answer.assumptions, "warnings": warnings,
    });
    if let (Some(out), Value::Object(verdict)) = (out.as_object_mut(), verdict) {
        out.extend(verdict);
    }
    out
}

fn in_words(answer: &Explanation, config: &BrokerConfig) -> String {
    let mut out = match &answer.verdict {
        Ok(placed) => admitted(placed, config),
        Err(denial) => refused(denial, answer.kind),
    };
    out.push_str("\nAssuming that\n");
    for assumption in &answer.assumptions {
        out.push_str(&format!("  {assumption}\n"));
    }
    out
}

fn refused(denial: &Denial, token: Option<Purpose>) -> String {
    format!(
        "Refused: {}\n\n        Reason: {}\n    Token kind: {}\n",
        harmless(&denial.detail),
        denial.reason,
        kind(token)
    )
}

fn admitted(placed: &Placement, config: &BrokerConfig) -> String {
    let mut out = format!("Admitted as {}\n\n", placed.path.as_str());
    let mut line = |label: &str, value: &str| out.push_str(&format!("{label:>14}: {}\n", harmless(value)));
    line("Account", placed.account);
    if !placed.user.is_empty() {
        line("User", &placed.user);
    }
    line(
        "Session ends",
        &match (ends(placed, config), placed.expires) {
            (Some(at), _) => format::token_time(at),
            (None, Some(at)) => format!("never, though the token expires {}", format::token_time(at)),
            (None, None) => String::from("never, the credentials do not expire"),
        },
    );
    if let Some(limits) = &placed.limits {
        let messages = limits.pace.messages;
        line("Subscriptions", &format!("at most {}", limits.subscriptions));
        line("Messages", &format!("{} a second, {} at once", messages.per_second, messages.burst));
    }
    for tag in &placed.tags {
        line("Tag", tag);
    }
    for warning in &placed.warnings {
        line("Warning", warning);
    }
    out.push_str(&rules("Publish to", &placed.permissions.publish));
    out.push_str(&rules("Subscribe to", &placed.permissions.subscribe));
    out
}

fn rules(title: &str, rules: &Rules) -> String {
    let mut out = format!("\n{title}\n");
    match &rules.allow {
        Some(subjects) => {
            subjects.iter().for_each(|subject| out.push_str(&format!("  {}\n", harmless(subject))))
        }
        None if rules.deny.iter().any(|subject| subject == ">") => out.push_str("  nothing\n"),
        None => out.push_str("  everything\n"),
    }
    for subject in rules.deny.iter().filter(|subject| *subject != ">") {
        out.push_str(&format!("  never {}\n", harmless(subject)));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pasted_token_is_told_from_a_file() {
        let token = format!("{}.{}.{}", "eyJhbGciOiJFZERTQSJ9", "e30".repeat(20), "x".repeat(86));
        assert!(looks_like_token(&token));
        for file in ["server.jwt", "/etc/choria/a.b.c", "token", "-", "a.b.c"] {
            assert!(!looks_like_token(file), "{file}");
        }
        let refused = read(&token).unwrap_err();
        assert_eq!(refused.exit_code(), Code::Usage as u8);
        assert!(!format!("{refused:?}").contains("eyJ"), "repeated");
    }
}
