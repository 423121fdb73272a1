//! `choria login`: a token from the login service (docs/spec/07 §7.6, decision D2).

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use choria_client::login::{self, LoggedIn, LoginTrust};
use choria_client::{ClientConfig, ClientError};
use choria_host::tls::CertificateSummary;
use choria_host::{Secret, clock, private_file};
use choria_token::peek_client;
use clap::Args;

use crate::arguments::Global;
use crate::failure::{Code, Doing, Failure};
use crate::fleet;
use crate::output::prompt::Prompts;
use crate::output::{self, format, harmless};

/// In bytes; a question at a terminal takes as many.
const LONGEST_PASSWORD: usize = 1_024;

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  choria login\n  choria login --username alice --password-file ~/.password\n  choria login --if-needed 10m\n  choria login --status\n  TOKEN=$(choria login --if-needed --print)"
)]
pub(crate) struct Options {
    /// Who to log in as; asked for when absent
    #[arg(long, value_name = "NAME")]
    username: Option<String>,
    /// File with the password
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
    /// Read the password from stdin
    #[arg(long, conflicts_with = "password_file")]
    password_stdin: bool,
    /// URL of the login service, in place of the configured ones
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// CA file that signed the login service's certificate
    #[arg(long, value_name = "FILE", group = "trust")]
    ca: Option<PathBuf>,
    /// SHA-256 fingerprint of the login service's certificate
    #[arg(long, value_name = "SHA256", group = "trust")]
    fingerprint: Option<String>,
    /// Do not verify the login service: whoever answers gets the password
    #[arg(long, group = "trust")]
    insecure: bool,
    /// Print the token to stdout, and everything else to stderr
    #[arg(long, conflicts_with = "status")]
    print: bool,
    /// Say how long the present token is valid, and end with code 5 when it is not
    #[arg(long)]
    status: bool,
    /// Do nothing while the present token is valid for longer than this
    #[arg(long, value_name = "DURATION", num_args = 0..=1, default_missing_value = "1m", value_parser = crate::arguments::seconds)]
    if_needed: Option<Duration>,
}

pub(crate) async fn run(global: &Global, options: &Options) -> Result<u8, Failure> {
    let mut config = fleet::load(global)?;
    let left = remaining(&config);
    if options.status {
        return status(left);
    }
    if let (Some(wanted), Some(left)) = (options.if_needed, left)
        && left > i64::try_from(wanted.as_secs()).unwrap_or(i64::MAX)
    {
        output::note(&format!("The token is valid for {}\n", format::long(left)));
        if options.print {
            print_token(&config.token_and_seed_files()?.0)?;
        }
        return Ok(0);
    }
    if let Some(url) = &options.url {
        config.login_urls = vec![url.clone()];
    }
    // Before any question: without these there is nothing to ask for.
    config.token_and_seed_files()?;
    if config.login_urls.is_empty() {
        return Err(ClientError::NoLoginUrl.into());
    }
    let username = match &options.username {
        Some(name) => name.clone(),
        None => global.prompts().text(
            "Username",
            &std::env::var("USER").unwrap_or_default(),
            "--username NAME",
        )?,
    };
    let password = password(global.prompts(), options)?;
    let logged_in = exchange(&config, global.prompts(), options, &username, &password).await?;
    let saved = format!("Token saved to {}\n", absolute(&logged_in).display());
    if options.print {
        output::note(&saved);
        print_token(&logged_in.token_file)?;
    } else {
        output::print(&saved);
    }
    if let Some(expires) = logged_in.expires {
        let left = expires.saturating_sub(clock::unix_seconds());
        output::note(&format!("Valid for {}, until {}\n", format::long(left), format::token_time(expires)));
    }
    Ok(0)
}

/// The token without the key that belongs to it, which stays in its file.
fn print_token(file: &Path) -> Result<(), Failure> {
    let token =
        private_file::read_secret(file).doing(|| format!("cannot read the token {}", file.display()))?;
    output::print(&format!("{}\n", token.expose()));
    Ok(())
}

fn absolute(logged_in: &LoggedIn) -> PathBuf {
    std::path::absolute(&logged_in.token_file).unwrap_or_else(|_| logged_in.token_file.clone())
}

/// Seconds that the present token is still valid; `None` when there is none that is.
fn remaining(config: &ClientConfig) -> Option<i64> {
    let (token_file, _) = config.token_and_seed_files().ok()?;
    let token = private_file::read_secret(&token_file).ok()?;
    let expires = peek_client(token.expose()).ok()?.claims().standard.effective_expiry()?;
    let left = expires.saturating_sub(clock::unix_seconds());
    (left > 0).then_some(left)
}

fn status(left: Option<i64>) -> Result<u8, Failure> {
    match left {
        Some(left) => {
            output::print(&format!("Valid for {}\n", format::long(left)));
            Ok(0)
        }
        None => Err(Failure::new("there is no valid token").hint("run 'choria login'").code(Code::Denied)),
    }
}

fn password(prompts: Prompts, options: &Options) -> Result<Secret, Failure> {
    if let Some(path) = &options.password_file {
        return private_file::read_secret(path)
            .doing(|| format!("cannot read the password from {}", path.display()));
    }
    if options.password_stdin {
        return first_line(std::io::stdin().lock());
    }
    prompts.secret("Password", "--password-file FILE or --password-stdin")
}

/// A password with a line end or without; no longer than one may be.
fn first_line(from: impl std::io::BufRead) -> Result<Secret, Failure> {
    let limit = u64::try_from(LONGEST_PASSWORD + 2).unwrap_or(u64::MAX);
    let mut line = zeroize::Zeroizing::new(Vec::with_capacity(LONGEST_PASSWORD + 2));
    for byte in from.take(limit).bytes() {
        match byte? {
            b'\n' => break,
            other => line.push(other),
        }
    }
    let text = std::str::from_utf8(&line).map_err(|_| Failure::new("the password is not UTF-8 text"))?;
    let password = text.trim_end_matches('\r');
    if password.is_empty() {
        return Err(Failure::usage("--password-stdin: there is no password on stdin"));
    }
    if password.len() > LONGEST_PASSWORD {
        return Err(Failure::usage(format!("the password is longer than {LONGEST_PASSWORD} bytes")));
    }
    Ok(Secret::new(password.to_owned()))
}

async fn exchange(
    config: &ClientConfig,
    prompts: Prompts,
    options: &Options,
    username: &str,
    password: &Secret,
) -> Result<LoggedIn, Failure> {
    let trust = if options.insecure {
        output::note("warning: --insecure: nothing proves that the login service is yours\n");
        LoginTrust::Insecure
    } else if let Some(print) = &options.fingerprint {
        LoginTrust::Fingerprint(print.clone())
    } else if let Some(path) = &options.ca {
        LoginTrust::Ca(path.clone())
    } else {
        LoginTrust::Verified
    };
    match login::login(config, username, password, &trust).await {
        Err(ClientError::UntrustedServer { url, fingerprint, certificate, .. }) if prompts.possible() => {
            if !ask(prompts, &url, &fingerprint, &certificate)? {
                return Err(Failure::new("the login service is not trusted, nothing was sent")
                    .code(Code::NeedsAnswer));
            }
            let trust = LoginTrust::Fingerprint(fingerprint.clone());
            let logged_in = login::login(config, username, password, &trust).await?;
            login::remember(config, &url, &fingerprint)?;
            Ok(logged_in)
        }
        result => Ok(result?),
    }
}

/// Shows who answers and asks, as ssh does.
fn ask(
    prompts: Prompts,
    url: &str,
    fingerprint: &str,
    certificate: &CertificateSummary,
) -> Result<bool, Failure> {
    output::note(&format!(
        "The certificate of {} cannot be verified.\n  subject:     {}\n  issuer:      {}\n  fingerprint: SHA256:{}\n",
        harmless(url),
        harmless(&certificate.subject),
        harmless(&certificate.issuer),
        harmless(fingerprint)
    ));
    prompts.confirm("Trust it from now on", "--fingerprint SHA256")
}

#[cfg(test)]
mod tests {
    use super::first_line;

    #[test]
    fn a_password_is_one_line_of_bounded_length() {
        for (given, password) in [("secret\n", "secret"), ("secret", "secret"), (" s \r\nmore", " s ")] {
            assert_eq!(first_line(given.as_bytes()).unwrap().expose(), password);
        }
        let longest = "x".repeat(1_024);
        assert_eq!(first_line(format!("{longest}\r\n").as_bytes()).unwrap().expose(), longest);
        for refused in ["", "\n", &format!("{longest}x")] {
            assert_eq!(first_line(refused.as_bytes()).unwrap_err().exit_code(), 2, "{} bytes", refused.len());
        }
        assert!(first_line([0xff, b'\n'].as_slice()).is_err());
    }
}
