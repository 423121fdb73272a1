//! Rows of docs/spec/10 §14.7 about what an operator is told, against a running network.

use anyhow::{Result, ensure};
use choria_host::clock;
use choria_tests::Stage;
use choria_tests::forge::{self, Key};
use choria_tests::request::Caller;
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
    choria_rows::row(
        285,
        "req choria_provision restart token=…, also with --debug and --json",
        "a warning that names the ways out; the value is printed nowhere",
    );
    Ok(())
}
