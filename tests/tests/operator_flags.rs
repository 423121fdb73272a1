//! What an operator may add to a command (docs/spec/07 §2).

use anyhow::{Result, ensure};
use choria_tests::Operator;

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
