//! Rows of docs/spec/10 §14 about logging in, against a running login service.

use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use choria_host::private_file::write_private;
use choria_tests::{Finished, Network, Operator, certificates};

/// Where a person sits: a logged-in operator and files with passwords.
struct Person<'a> {
    network: &'a Network,
    operator: Operator,
}

impl Person<'_> {
    fn log_in(&self, user: &str, password: &str, more: &[&str]) -> Result<Finished> {
        let file = self.network.folder().join("typed");
        write_private(&file, password.as_bytes())?;
        let file = file.display().to_string();
        let command = ["login", "--username", user, "--password-file", &file];
        self.operator.run(&[command.as_slice(), more].concat())
    }

    fn token_and_seed(&self) -> Result<[Vec<u8>; 2]> {
        let read = |name: &str| std::fs::read(self.network.lab_folder().join("client").join(name));
        Ok([read("token")?, read("seed")?])
    }
}

#[test]
fn t_032_t_165_t_167_t_172_t_173_t_174_logins_that_fail() -> Result<()> {
    let network = Network::lab(1)?;
    network.told(story(&network))
}

fn story(network: &Network) -> Result<()> {
    let person = Person { network, operator: network.operator("choria")? };
    let before = person.token_and_seed()?;
    a_wrong_password(&person, &before)?;
    ensure!(person.token_and_seed()? != before, "the right password made no new token");
    room_for_devices(&person)?;
    let before = person.token_and_seed()?;
    another_authority(&person)?;
    no_encryption(&person)?;
    ensure!(person.token_and_seed()? == before, "a refused login changed something");
    too_many_guesses(&person)?;
    let log = network.log("aaa");
    for secret in ["not-the-password", "eyJ"] {
        ensure!(!log.contains(secret), "the login service wrote down a secret");
    }
    person.operator.ok(&["req", "rpcutil", "ping"])?;
    Ok(())
}

/// Three times the same words; what worked before still works; then the right one.
fn a_wrong_password(person: &Person<'_>, before: &[Vec<u8>; 2]) -> Result<()> {
    let mut words = Vec::new();
    for user in ["choria", "choria", "choria", "nobody"] {
        let refused = person.log_in(user, "not-the-password", &[])?;
        ensure!(refused.code == 5, "{refused:?}");
        ensure!(refused.stderr.contains("Login failed"), "{refused:?}");
        ensure!(person.token_and_seed()? == *before, "a failed login changed the token");
        words.push(refused.stderr);
    }
    words.dedup();
    ensure!(words.len() == 1, "the answers differ: {words:?}");
    person.operator.ok(&["req", "rpcutil", "ping"])?;
    let right = person.log_in("choria", "secret", &[])?;
    ensure!(right.code == 0, "{right:?}");
    choria_rows::row(
        32,
        "choria login with a wrong password",
        "exit 5, Login failed, token and seed unchanged",
    );
    choria_rows::row(
        165,
        "three wrong passwords and an unknown user, then the right one",
        "the same words each time; then a new token",
    );
    choria_rows::row(174, "a failed login, then the old token", "req rpcutil ping works with the old token");
    Ok(())
}

/// A token that small devices cannot be sent is made all the same, and the service says so once.
fn room_for_devices(person: &Person<'_>) -> Result<()> {
    let file = person.network.lab_folder().join("hub/users.json");
    let good = std::fs::read_to_string(&file)?;
    let mut users: serde_json::Value = serde_json::from_str(&good)?;
    let user = users.as_array_mut().and_then(|users| users.first_mut()).context("no users")?;
    let name = user.get("username").and_then(serde_json::Value::as_str).context("a name")?.to_owned();
    let fields = user.as_object_mut().context("no fields")?;
    fields.insert("opa_policy".into(), format!("package x\n{}", "# a line\n".repeat(600)).into());
    write_private(&file, users.to_string().as_bytes())?;
    let warning = "devices of profile small";
    let warned = || person.network.log("aaa").matches(warning).count();
    ensure!(warned() == 0, "it warned of an ordinary token");
    let made = person.log_in(&name, "secret", &[])?;
    ensure!(made.code == 0 && warned() == 1, "{made:?}: {}", person.network.log("aaa"));
    write_private(&file, good.as_bytes())?;
    let made = person.log_in(&name, "secret", &[])?;
    ensure!(made.code == 0 && warned() == 1, "{made:?}: {}", person.network.log("aaa"));
    Ok(())
}

/// The password stays here when the service's certificate is of another authority, or another certificate.
fn another_authority(person: &Person<'_>) -> Result<()> {
    let log = person.network.log("aaa");
    let folder: PathBuf = person.network.folder().join("other");
    std::fs::create_dir(&folder)?;
    let other = certificates(&folder, &[])?.display().to_string();
    let print = format!("SHA256:{}", "00".repeat(32));
    for more in [["--ca", other.as_str()], ["--fingerprint", print.as_str()]] {
        let refused = person.log_in("choria", "secret", &more)?;
        ensure!(refused.code != 0, "{more:?}: {refused:?}");
        ensure!(refused.stderr.contains("certificate"), "{more:?}: {refused:?}");
    }
    let said = person.network.log("aaa");
    let new = said.strip_prefix(log.as_str()).context("the log was cut")?;
    ensure!(!new.contains("user="), "the password was sent: {new}");
    choria_rows::row(
        172,
        "login service with a certificate of another CA, and with another fingerprint",
        "refused, the service saw no login",
    );
    Ok(())
}

fn no_encryption(person: &Person<'_>) -> Result<()> {
    // an address for documentation: nobody is there, and nobody is asked
    let refused = person.log_in("choria", "secret", &["--url", "http://192.0.2.1:8080/choria/v1/login"])?;
    ensure!(refused.code != 0 && refused.stderr.contains("https"), "{refused:?}");
    ensure!(refused.took.as_secs() < 5, "it tried: {refused:?}");
    choria_rows::row(
        173,
        "choria login --url http://192.0.2.1",
        "refused, https is asked for, nobody is dialled",
    );
    Ok(())
}

/// From this address the user has to wait, with the same words as ever.
fn too_many_guesses(person: &Person<'_>) -> Result<()> {
    let mut words = Vec::new();
    for _ in 0..6 {
        words.push(person.log_in("admin", "not-the-password", &[])?.stderr);
    }
    let refused = person.log_in("admin", "secret", &[])?;
    ensure!(refused.code == 5, "nobody counted: {refused:?}");
    words.push(refused.stderr);
    words.dedup();
    ensure!(words.len() == 1, "the answers differ: {words:?}");
    // others are not slowed
    let other = person.log_in("choria", "secret", &[])?;
    ensure!(other.code == 0, "{other:?}");
    choria_rows::row(
        167,
        "six wrong passwords, then the right one from this address; another user",
        "exit 5 with the same words; accepted",
    );
    Ok(())
}
