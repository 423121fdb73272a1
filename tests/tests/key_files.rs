//! Rows of docs/spec/10 §14 about files with keys: published keys, open files, links, and sudden death while writing.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use choria_host::private_file::write_private;
use choria_tests::forge::{self, Key};
use choria_tests::{Finished, Network, Operator};
use choria_token::{Seed, peek_client};
use serde_json::Value;
use tempfile::TempDir;

/// A person with nothing but a folder.
struct Desk {
    folder: TempDir,
    operator: Operator,
}

impl Desk {
    fn new() -> Result<Desk> {
        let folder = tempfile::tempdir()?;
        let operator = Operator::new(&folder.path().join("client.conf"), folder.path());
        Ok(Desk { folder, operator })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, content: &str) -> Result<String> {
        let path = self.path(name);
        write_private(&path, content.as_bytes())?;
        Ok(path.display().to_string())
    }

    /// `choria jwt client` for a holder of ours.
    fn issues(&self, token: &Path, holder: &str, seed: &str) -> Result<Finished> {
        self.operator.run(&[
            "jwt",
            "client",
            &token.display().to_string(),
            "up=x",
            seed,
            "--public-key",
            holder,
        ])
    }

    /// A broker's configuration with this issuer.
    fn broker(&self, issuer: &str) -> Result<String> {
        self.write(
            "broker.conf",
            &format!(
                "identity = broker.example.net\nplugin.choria.broker_network = true\nplugin.choria.use_srv = false\n\
                 plugin.choria.network.listen_address = 127.0.0.1\nplugin.choria.network.client_port = 0\n\
                 plugin.security.provider = choria\nplugin.security.issuer.names = choria\n\
                 plugin.security.issuer.choria.public = {issuer}\n\
                 plugin.security.choria.certificate = {0}/c.pem\nplugin.security.choria.key = {0}/c.key\n",
                self.folder.path().display(),
            ),
        )
    }
}

/// Every key that the project's own test data publishes.
fn published() -> Result<Vec<(String, String)>> {
    let vectors: Value = serde_json::from_str(include_str!("../fixtures/tokens/chain.json"))?;
    let keys = vectors.get("keys").and_then(Value::as_object).context("no keys")?;
    let text = |key: &Value, name: &str| key.get(name).and_then(Value::as_str).map(str::to_owned);
    let pairs = keys.values().filter_map(|key| Some((text(key, "seed_hex")?, text(key, "public_hex")?)));
    Ok(pairs.collect())
}

#[test]
fn t_026_keys_that_everybody_has() -> Result<()> {
    let desk = Desk::new()?;
    let honest = Key::generate()?;
    let honest_seed = desk.write("honest.seed", &honest.seed())?;
    let token = desk.path("t.jwt");
    let published = published()?;
    ensure!(published.len() >= 12, "{} keys", published.len());
    let refuses = |what: &str, finished: &Finished| {
        ensure!(finished.code != 0, "{what}: {finished:?}");
        ensure!(finished.stderr.contains("published as test data"), "{what}: {finished:?}");
        ensure!(!token.exists(), "{what}: a token was written");
        Ok(())
    };
    for (seed, public) in &published {
        let seed = desk.write("published.seed", seed)?;
        refuses("as issuer", &desk.issues(&token, &honest.public(), &seed)?)?;
        refuses("as holder", &desk.issues(&token, public, &honest_seed)?)?;
    }
    let (seed, public) = published.first().context("no key")?;
    // upper case is the same key
    for public in [public.clone(), public.to_uppercase()] {
        let config = desk.broker(&public)?;
        refuses("broker", &desk.operator.run(&["broker", "run", "--config", &config])?)?;
        refuses(
            "hub",
            &desk.operator.run(&["hub", "run", "--dir", &desk.folder.path().display().to_string()])?,
        )?;
    }

    // a caller whose seed is published signs no request
    let holder = desk.write("client.seed", seed)?;
    let claims = forge::with(forge::client("up=x", &honest)?, serde_json::json!({"public_key": public}));
    let own = desk.write("client.jwt", &forge::token(&claims, &honest))?;
    desk.write(
        "client.conf",
        &format!(
            "plugin.security.provider = choria\nplugin.security.choria.token_file = {own}\n\
             plugin.security.choria.seed_file = {holder}\nplugin.choria.middleware_hosts = 127.0.0.1:1\n\
             plugin.choria.use_srv = false\n"
        ),
    )?;
    refuses("signing", &desk.operator.run(&["req", "rpcutil", "ping", "--connect-timeout", "2s"])?)?;

    let good = desk.issues(&token, &honest.public(), &honest_seed)?;
    ensure!(good.code == 0 && token.exists(), "the control: {good:?}");
    choria_rows::row(
        26,
        "12 published keys as issuer and holder of jwt client; as the issuer of broker run and hub run; signing a request",
        "each ends with 'published as test data', no token is written; a key of one's own works",
    );
    Ok(())
}

fn set_mode(path: &Path, mode: u32) -> Result<()> {
    Ok(std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?)
}

#[test]
fn t_028_files_that_others_can_read() -> Result<()> {
    let desk = Desk::new()?;
    let (org, holder) = (Key::generate()?, Key::generate()?);
    let org_seed = desk.write("org.seed", &org.seed())?;
    let token = desk.path("t.jwt");

    set_mode(Path::new(&org_seed), 0o640)?;
    let refused = desk.issues(&token, &holder.public(), &org_seed)?;
    ensure!(refused.code != 0 && refused.stderr.contains("chmod 600"), "{refused:?}");
    ensure!(!token.exists(), "a token was written");
    set_mode(Path::new(&org_seed), 0o600)?;
    let good = desk.issues(&token, &holder.public(), &org_seed)?;
    ensure!(good.code == 0, "{good:?}");
    choria_rows::row(
        28,
        "jwt client with an organization seed of mode 0640, then 0600",
        "refused with 'chmod 600'; issued",
    );

    // a client's own seed: nobody is there to connect to, so what is said about the seed is all that differs
    let own = desk.write("client.jwt", &forge::token(&forge::client("up=x", &holder)?, &org))?;
    let seed = desk.write("client.seed", &holder.seed())?;
    let config = format!(
        "plugin.security.provider = choria\nplugin.security.choria.token_file = {own}\n\
         plugin.security.choria.seed_file = {seed}\nplugin.choria.middleware_hosts = 127.0.0.1:1\n\
         plugin.choria.use_srv = false\n"
    );
    desk.write("client.conf", &config)?;
    let ask = || desk.operator.run(&["req", "rpcutil", "ping", "--connect-timeout", "1s"]);
    let closed = ask()?;
    ensure!(closed.stderr.contains("127.0.0.1:1"), "{closed:?}");
    ensure!(!closed.stderr.contains("chmod"), "{closed:?}");
    set_mode(Path::new(&seed), 0o640)?;
    let open = ask()?;
    ensure!(open.stderr.contains("127.0.0.1:1"), "it did not try to connect: {open:?}");
    ensure!(open.stderr.contains("chmod 600") && open.stderr.contains("client.seed"), "no warning: {open:?}");
    choria_rows::row(28, "req with a client seed of mode 0640", "warned with 'chmod 600', and connects");

    desk.write("client.conf", &format!("{config}plugin.choria.strict_file_modes = true\n"))?;
    let strict = ask()?;
    ensure!(strict.code != 0 && strict.stderr.contains("refusing to use"), "{strict:?}");
    ensure!(!strict.stderr.contains("127.0.0.1:1"), "it tried to connect: {strict:?}");
    set_mode(Path::new(&seed), 0o600)?;
    let strict = ask()?;
    ensure!(strict.stderr.contains("127.0.0.1:1"), "{strict:?}");
    choria_rows::row(28, "the same with strict_file_modes", "refused before anything is sent; 0600 is used");

    desk.write("client.conf", &config)?;
    set_mode(desk.folder.path(), 0o777)?;
    let outcome = ask();
    let issued = desk.issues(&desk.path("u.jwt"), &holder.public(), &org_seed);
    set_mode(desk.folder.path(), 0o700)?;
    for refused in [outcome?, issued?] {
        ensure!(refused.code != 0 && refused.stderr.contains("chmod o-w"), "{refused:?}");
    }
    ensure!(!desk.path("u.jwt").exists(), "a token was written");
    choria_rows::row(28, "seeds in a directory of mode 0777", "refused with 'chmod o-w'");
    Ok(())
}

/// `choria login` is killed at its Nth step of writing files, for every N: before the end the old pair works, after it the
/// new one.
#[test]
fn t_030_a_login_killed_at_any_write() -> Result<()> {
    let network = Network::lab(1)?;
    network.told(killed_logins(&network))
}

fn killed_logins(network: &Network) -> Result<()> {
    let operator = network.operator("choria")?;
    let folder = network.lab_folder().join("client");
    let password = network.folder().join("password").display().to_string();
    let login = ["login", "--username", "choria", "--password-file", &password];
    let mut previous = pair(&folder)?;
    let (mut old, mut new) = (0, 0);
    for step in 1..100 {
        let mut command = operator.command(&login);
        command.env("CHORIA_FAULT_EXIT_AT", step.to_string());
        let finished = command.output()?;
        // what another program would use: never the token of one and the seed of another
        ensure!(peers_see_no_mixture(&folder)?, "step {step}: token and seed of two logins");
        let status = operator.run(&["login", "--status"])?;
        let usable = operator.run(&["ping", "--timeout", "1s"])?;
        ensure!(
            usable.code == 0 || usable.code == 3,
            "step {step}: the broker does not admit it: {usable:?}"
        );
        if finished.status.success() {
            ensure!(status.code == 0, "{status:?}");
            ensure!(pair(&folder)? != previous, "a login that ended well changed nothing");
            ensure!(leftovers(&folder)?.is_empty(), "left behind: {:?}", leftovers(&folder)?);
            ensure!(old > 0 && new > 0 && step > 8, "killed {} times only", step - 1);
            choria_rows::row(
                30,
                format!("choria login killed at each of its {} steps of writing", step - 1),
                format!("the old pair works after {old} of them, the new one after {new}, never a mixture"),
            );
            return Ok(());
        }
        let now = pair(&folder)?;
        if now == previous {
            old += 1;
        } else {
            new += 1;
        }
        previous = now;
    }
    anyhow::bail!("a login of more than 100 steps")
}

/// Token and seed that a client of ours uses: the files, or their copies after half a login.
fn pair(folder: &Path) -> Result<(String, String)> {
    let read = |name: &str| std::fs::read_to_string(folder.join(name));
    let whole = |token: &str, seed: &str| -> Option<(String, String)> {
        let (token, seed) = (read(token).ok()?, read(seed).ok()?);
        let key = peek_client(&token).ok()?.claims().standard.public_key.clone()?;
        (Seed::from_hex(&seed).ok()?.public().to_hex() == key).then_some((token, seed))
    };
    whole("token", "seed")
        .or_else(|| whole("token.bak", "seed.bak"))
        .context("neither the old pair nor the new one")
}

fn peers_see_no_mixture(folder: &Path) -> Result<bool> {
    let read = |name: &str| std::fs::read_to_string(folder.join(name));
    let (Ok(token), Ok(seed)) = (read("token"), read("seed")) else { return Ok(true) };
    let key = peek_client(&token)?.claims().standard.public_key.clone();
    Ok(key == Some(Seed::from_hex(&seed)?.public().to_hex()))
}

/// Copies of an old pair that nobody needs any more.
fn leftovers(folder: &Path) -> Result<Vec<String>> {
    let names = std::fs::read_dir(folder)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
    let names: Vec<String> = names.collect::<Result<_>>()?;
    Ok(names.into_iter().filter(|name| name.ends_with(".bak")).collect())
}
