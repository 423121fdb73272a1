//! Rows of docs/spec/10 §14.7 about what an operator is told, against a running network.

use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};
use choria_host::clock;
use choria_host::private_file::write_private;
use choria_tests::forge::{self, Key};
use choria_tests::request::Caller;
use choria_tests::{Running, Stage, binary};
use serde_json::json;

fn caller(stage: &Stage, seconds: i64) -> Result<Caller> {
    let key = Key::generate()?;
    let claims =
        forge::with(forge::client("up=alice", &key)?, json!({"exp": clock::unix_seconds() + seconds}));
    Ok(Caller::new("up=alice", &key, forge::token(&claims, &stage.org)))
}

#[test]
fn t_285_t_289_tokens_that_end_and_secrets_on_the_command_line() -> Result<()> {
    let stage = Stage::start()?;
    let late = stage.operator("late", &caller(&stage, -10)?)?;
    let refused = late.run(&["ping"])?;
    ensure!(refused.code == 5 && refused.stderr.contains("choria login"), "{refused:?}");

    let soon = stage.operator("soon", &caller(&stage, 240)?)?;
    let warned = soon.run(&["ping"])?;
    ensure!(warned.code == 0 && warned.stderr.contains("expires in"), "{warned:?}");
    let fine = stage.operator("fine", &caller(&stage, 3600)?)?;
    let quiet = fine.run(&["ping"])?;
    ensure!(quiet.code == 0 && !quiet.stderr.contains("warning"), "{quiet:?}");
    choria_rows::row(
        289,
        "a token that expired, one with 4 minutes left, one with an hour",
        "exit 5 with a hint; a warning; nothing",
    );

    let secret = "token=canary-of-the-command-line";
    for more in [&[][..], &["--debug"], &["--json"]] {
        let told = fine.run(&[&["req", "choria_provision", "restart", secret], more].concat())?;
        ensure!(told.stderr.contains("list of processes"), "{told:?}");
        ensure!(!told.stderr.contains("canary") && !told.stdout.contains("canary"), "{told:?}");
    }
    let seed = stage.path("org.seed");
    write_private(&seed, stage.org.seed().as_bytes())?;
    let (seed, token) = (seed.display().to_string(), stage.path("made.jwt").display().to_string());
    for more in [&[][..], &["--debug"]] {
        let secret = ["--token", "canary-of-the-command-line", "--urls", "nats://localhost:4222"];
        let told = fine.run(&[&["jwt", "provisioning", &token, &seed], &secret[..], more].concat())?;
        ensure!(told.code == 0 && told.stderr.contains("list of processes"), "{told:?}");
        ensure!(!told.stderr.contains("canary") && !told.stdout.contains("canary"), "{told:?}");
    }
    choria_rows::row(
        285,
        "req choria_provision restart token=…, also with --debug and --json; jwt provisioning --token …, also with --debug",
        "a warning that names the ways out; the value is printed nowhere",
    );
    Ok(())
}

/// The broker has subjects that no token may add; whoever issues such a token hears it before it is refused.
#[test]
fn subjects_of_the_brokers_own_are_named_when_a_token_is_issued() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (org, holder) = (Key::generate()?, Key::generate()?.public());
    write_private(&folder.path().join("org.seed"), org.seed().as_bytes())?;
    let issue = |words: &[&str]| -> Result<String> {
        let mut command = Command::new(binary("choria"));
        command.env_clear().env("HOME", folder.path()).arg("jwt").args(words);
        let made = command.output()?;
        ensure!(made.status.success(), "{made:?}");
        Ok(String::from_utf8_lossy(&made.stderr).into_owned())
    };
    let (token, seed) = (path("token.jwt"), path("org.seed"));
    let client = ["client", &token, "up=alice", &seed, "--public-key", &holder, "--agents", "*"];
    let server = ["server", &token, "n1.example.net", &holder, &seed];
    for (words, option, subject, warned) in [
        (&client[..], "--subscribe", "$SYS.>", true),
        (&client[..], "--publish", ">", true),
        (&client[..], "--publish", "site.>", false),
        (&server[..], "--subjects", "$JS.API.STREAM.DELETE.X", true),
        (&server[..], "--subjects", "site.events", false),
    ] {
        let told = issue(&[words, &[option, subject]].concat())?;
        ensure!(told.contains("broker refuses tokens") == warned, "{option} {subject}: {told}");
    }
    Ok(())
}

/// A provisioner that connects with the key it issues tokens with is told so, and is let in: what it signs to connect
/// is a nonce that can be nothing else (T-268).
#[test]
fn t_163_a_provisioner_whose_two_seeds_are_one() -> Result<()> {
    let stage = Stage::start()?;
    stage.provisioner()?;
    ensure!(
        !stage.log("provisioner").contains("connects with the seed it signs with"),
        "warned without a cause"
    );
    let read = |name: &str| std::fs::read_to_string(stage.path(name));
    let issuing = Key::of_seed(read("issuer.seed")?.trim())?;
    let claims = forge::with(
        forge::client("provisioner_signer", &issuing)?,
        json!({"permissions": {"provisioner": true, "fleet_management": true}}),
    );
    write_private(&stage.path("one.seed"), issuing.seed().as_bytes())?;
    write_private(&stage.path("one.jwt"), forge::token(&claims, &stage.org).as_bytes())?;
    let client = read("provisioner-client.conf")?
        .replace("provisioner.jwt", "one.jwt")
        .replace("provisioner.seed", "one.seed");
    write_private(&stage.path("one-client.conf"), client.as_bytes())?;
    let mut command = Command::new(binary("choria"));
    command.args(["provisioner", "run", "--config"]).arg(stage.path("choria-provisioner.yaml"));
    command.arg("--choria-config").arg(stage.path("one-client.conf")).env_clear().env("HOME", stage.path(""));
    let running = Running::start(&mut command, &stage.path("one.log"))?;
    running.logged("provisioner started", Duration::from_secs(20))?;
    let log = running.log();
    ensure!(log.contains("connects with the seed it signs with"), "no warning:\n{log}");
    choria_rows::row(
        163,
        "a provisioner whose connecting seed is its issuing seed",
        "a warning; it connects",
    );
    Ok(())
}

/// Nobody else would tell: a device drops what it cannot read, and the operator waits.
#[test]
fn a_token_that_small_devices_have_no_room_for() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let operator = choria_tests::Operator::new(&folder.path().join("client.conf"), folder.path());
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (org, holder) = (Key::generate()?, Key::generate()?);
    write_private(&folder.path().join("org.seed"), org.seed().as_bytes())?;
    for (lines, warns) in [(80, false), (200, true)] {
        let policy = format!("package io.choria.aaasvc\n{}", "# a line of the policy\n".repeat(lines));
        write_private(&folder.path().join("policy.rego"), policy.as_bytes())?;
        let (token, seed, policy) = (path("made.jwt"), path("org.seed"), path("policy.rego"));
        let public = holder.public();
        let made = operator.run(&[
            "jwt",
            "client",
            &token,
            "up=x",
            &seed,
            "--public-key",
            &public,
            "--opa-file",
            &policy,
        ])?;
        let length = std::fs::metadata(&token)?.len();
        ensure!(
            made.code == 0 && made.stderr.contains("devices of profile small") == warns,
            "{length}: {made:?}"
        );
    }
    Ok(())
}
