//! What an operator may add to `choria login`, and how questions are kept from being asked (docs/spec/07 §2.10, §7.6).

use std::os::unix::fs::PermissionsExt as _;

use anyhow::{Result, ensure};
use choria_tests::{Network, Operator};

/// A token for programs that carry it elsewhere; nothing else is on stdout.
#[test]
fn a_login_that_prints_its_token() -> Result<()> {
    let network = Network::lab(1)?;
    network.told(logins(&network))
}

fn logins(network: &Network) -> Result<()> {
    let client = network.lab_folder().join("client");
    let operator = Operator::new(&network.lab_folder().join("client.conf"), network.folder());
    let none = operator.run(&["login", "--status"])?;
    ensure!(none.code == 5 && none.stderr.contains("choria login"), "{none:?}");

    let login = ["login", "--username", "choria", "--password-stdin"];
    let said = operator.run_with(&login, "secret\n")?;
    ensure!(said.code == 0 && said.stdout.starts_with("Token saved to /"), "{said:?}");
    ensure!(
        !said.stdout.contains("eyJ") && !said.stderr.contains("eyJ"),
        "a token was printed unasked: {said:?}"
    );
    let token = || std::fs::read_to_string(client.join("token"));
    let first = token()?;

    let printed = operator.run_with(&[&login[..], &["--print"]].concat(), "secret\n")?;
    ensure!(printed.code == 0 && printed.stdout == format!("{}\n", token()?.trim()), "{printed:?}");
    ensure!(token()? != first, "it printed the token from before");
    ensure!(printed.stderr.contains("Token saved to /") && !printed.stderr.contains("eyJ"), "{printed:?}");
    for name in ["token", "seed"] {
        let mode = std::fs::metadata(client.join(name))?.permissions().mode();
        ensure!(mode & 0o777 == 0o600, "{name}: {mode:o}");
    }

    let kept = operator.run(&["login", "--if-needed", "--print", "--no-input"])?;
    ensure!(kept.code == 0 && kept.stdout == printed.stdout, "{kept:?}");
    let status = operator.run(&["login", "--status"])?;
    ensure!(status.code == 0 && status.stdout.starts_with("Valid for "), "{status:?}");

    let before = token()?;
    for (more, stdin, code, told) in [
        (&["--username", "choria", "--password-stdin", "--print"][..], "wrong\n", 5, "Login failed"),
        (&["--username", "choria", "--password-stdin"], "", 2, "no password on stdin"),
        (&["--username", "choria", "--no-input"], "", 6, "--password-stdin"),
        (&["--password-stdin", "--no-input"], "secret\n", 6, "--username"),
        (&["--print", "--status"], "", 2, "cannot be used with"),
    ] {
        let refused = operator.run_with(&[&["login"], more].concat(), stdin)?;
        ensure!(refused.code == code && refused.stderr.contains(told), "{more:?}: {refused:?}");
        ensure!(refused.stdout.is_empty() && token()? == before, "{more:?}: {refused:?}");
    }
    Ok(())
}

/// A question that may not be asked ends the command and names its answer.
#[test]
fn no_input_is_asked_for() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let operator = Operator::new(&folder.path().join("client.conf"), folder.path());
    let seed = folder.path().join("seed").display().to_string();
    operator.ok(&["--no-input", "jwt", "keys", &seed])?;
    let key = std::fs::read(&seed)?;
    for command in [["--no-input", "jwt", "keys", &seed], ["jwt", "keys", &seed, "--no-input"]] {
        let refused = operator.run(&command)?;
        ensure!(refused.code == 6, "{refused:?}");
        ensure!(
            refused.stderr.contains("--no-input forbids") && refused.stderr.contains("--force"),
            "{refused:?}"
        );
    }
    ensure!(std::fs::read(&seed)? == key, "the key was overwritten");
    Ok(())
}

/// A disk that is full is not a reader that went away.
#[test]
fn results_that_cannot_be_written_are_a_failure() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let operator = Operator::new(&folder.path().join("client.conf"), folder.path());
    for command in [&["buildinfo"][..], &["--help"]] {
        let full = std::fs::File::options().write(true).open("/dev/full")?;
        let lost = operator.command(command).stdout(full).output()?;
        let told = String::from_utf8_lossy(&lost.stderr);
        ensure!(lost.status.code() == Some(1) && told.contains("cannot write results: "), "{lost:?}");
    }
    let (reader, writer) = std::io::pipe()?;
    drop(reader);
    let left = operator.command(&["buildinfo"]).stdout(writer).output()?;
    ensure!(left.status.success() && left.stderr.is_empty(), "{left:?}");
    Ok(())
}
