//! Helpers are programs of the site: in Ruby as the users' guide has it, in shell, and badly behaved.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)] // a test may fail where it stands

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use choria_provisioner::helper::{HelperReply, HelperRequest, KeyProof};
use choria_provisioner::program::{Program, ProgramError};

fn request() -> HelperRequest {
    HelperRequest {
        identity: "n1.example.net".into(),
        csr: None,
        ed25519_pubkey: Some(KeyProof {
            public_key: "00".repeat(32),
            directory: "/etc/choria".into(),
            signature: "00".repeat(64),
        }),
        inventory: r#"{"facts":{"role":"db"},"version":"0.99.0"}"#.into(),
        jwt: Some(serde_json::json!({"ou": "choria", "extensions": {"rack": "r1"}})),
        known: false,
        online: None,
        address: None,
    }
}

fn script(directory: &Path, text: &str) -> PathBuf {
    let path = directory.join("helper");
    // written by another process: a descriptor that a concurrent test's child inherits would make it "busy"
    let status = std::process::Command::new("/bin/sh")
        .args(["-c", "printf '%s' \"$1\" > \"$2\"", "sh", text])
        .arg(&path)
        .status()
        .unwrap();
    assert!(status.success());
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

fn run_limited(text: &str, limit: Duration, environment: &[&str]) -> Result<HelperReply, ProgramError> {
    let directory = tempfile::tempdir().unwrap();
    let path = script(directory.path(), text);
    let program = Program {
        words: vec![path.to_string_lossy().into_owned(), "an argument".into()],
        limit,
        environment: environment.iter().map(|name| (*name).to_string()).collect(),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(program.run(&request()))
}

fn run(text: &str) -> Result<HelperReply, ProgramError> {
    run_limited(text, Duration::from_secs(10), &[])
}

const RUBY: &str = r#"#!/usr/bin/env ruby
require "json"

request = JSON.parse(STDIN.read)
inventory = JSON.parse(request["inventory"])
key = request["ed25519_pubkey"]
abort "no key" unless key["public_key"].length == 64

puts({
  "defer" => false,
  "msg" => "rack #{request["jwt"]["extensions"]["rack"]}",
  "server_claims" => {
    "exp" => 60*60*24*365,
    "permissions" => { "streams" => true }
  },
  "configuration" => {
    "identity" => request["identity"],
    "plugin.choria.server.provision" => "false",
    "plugin.security.choria.seed_file" => File.join(key["directory"], "server.seed"),
    "role" => inventory["facts"]["role"]
  }
}.to_json)
"#;

#[test]
fn ruby() {
    assert!(
        std::process::Command::new("ruby").arg("-v").output().is_ok(),
        "this test runs a real Ruby helper, and there is no ruby: apt-get install ruby"
    );
    let reply = run(RUBY).unwrap();
    assert_eq!(reply.msg, "rack r1");
    assert_eq!(reply.configuration["plugin.security.choria.seed_file"], "/etc/choria/server.seed");
    assert_eq!(reply.configuration["role"], "db");
    assert!(reply.leaves_provisioning());
    assert_eq!(reply.server_claims.exp, Some(31_536_000.0));
}

#[test]
fn shell_with_an_argument() {
    let reply = run("#!/bin/sh\ncat >/dev/null\necho 'thinking' >&2\necho \"{\\\"defer\\\":true,\\\"msg\\\":\\\"$1\\\"}\"\n").unwrap();
    assert!(reply.defer);
    assert_eq!(reply.msg, "an argument");
}

#[test]
fn a_helper_need_not_read_its_request() {
    assert!(run("#!/bin/sh\necho '{\"defer\":true}'\n").unwrap().defer);
}

#[test]
fn t_155_failures_say_what_the_helper_said() {
    let error = run("#!/bin/sh\necho 'database is down' >&2\nexit 3\n").unwrap_err().to_string();
    assert!(error.contains("exit status: 3") && error.contains("database is down"), "{error}");
    assert!(run("#!/bin/sh\necho '{}{}'\n").is_err());
    assert!(run("#!/bin/sh\n").unwrap_err().to_string().contains("printed nothing"));
    assert!(run("#!/no/such/interpreter\n").unwrap_err().to_string().contains("cannot be started"));
    choria_rows::row(155, "exit 3, two objects, nothing, no interpreter", "deferred, with what it printed");
}

#[test]
fn t_155_too_long_kills_everything_it_started() {
    let directory = tempfile::tempdir().unwrap();
    let alive = directory.path().join("alive");
    let text =
        format!("#!/bin/sh\n(while :; do date +%s%N > {}; sleep 0.05; done) &\nsleep 60\n", alive.display());
    let started = Instant::now();
    let error = run_limited(&text, Duration::from_secs(3), &[]).unwrap_err();
    assert!(matches!(error, ProgramError::TooLong { .. }), "{error}");
    assert!(started.elapsed() < Duration::from_secs(10));
    let last = std::fs::read(&alive).unwrap();
    let until = Instant::now() + Duration::from_millis(400);
    while Instant::now() < until {
        std::thread::park_timeout(Duration::from_millis(50));
    }
    assert_eq!(std::fs::read(&alive).unwrap(), last, "the grandchild is still running");
    choria_rows::row(155, "a helper that forks and sleeps", "killed at the limit with its grandchild");
}

#[test]
fn t_155_too_much_is_cut_off_before_the_limit() {
    let started = Instant::now();
    let error = run("#!/bin/sh\nyes\n").unwrap_err();
    assert!(matches!(error, ProgramError::TooMuch { .. }), "{error}");
    assert!(started.elapsed() < Duration::from_secs(9));
    choria_rows::row(155, "a helper that prints without end", "cut off");
}

#[test]
fn complaints_without_end_do_not_block() {
    let text = "#!/bin/sh\nhead -c 5000000 /dev/zero | tr '\\0' x >&2\necho '{\"defer\":true}'\n";
    assert!(run(text).unwrap().defer);
}

#[test]
fn t_156_the_environment_is_cleared() {
    // cargo sets this one for every test
    assert!(std::env::var_os("CARGO_MANIFEST_DIR").is_some());
    let text = "#!/bin/sh\nprintf '{\"defer\":true,\"msg\":\"%s\"}' \"$(env | grep -c -v -e ^PATH= -e ^LANG= -e ^PWD= -e ^_= -e ^SHLVL= -e ^OLDPWD=)\"\n";
    assert_eq!(run(text).unwrap().msg, "0");
    let seen = run_limited(text, Duration::from_secs(10), &["CARGO_MANIFEST_DIR"]).unwrap();
    assert_eq!(seen.msg, "1");
    choria_rows::row(
        156,
        "a helper prints its environment",
        "only PATH, LANG and what the shell sets; one allowed name when listed",
    );
}
