//! Every key of a running network is replaced, as `docs/rotation.md` says, and nobody notices.
//!
//! `CHORIA_TEST_NODES` sets the number of nodes.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use choria_host::clock;
use choria_host::private_file::write_private;
use choria_host::tls::pin_of_certificate;
use choria_tests::{Keeper, Network, Operator, certificates, wait_until};
use choria_token::{Key, PublicKey, Verifier};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use serde_json::json;

const NODES: usize = 20;
const PATIENCE: Duration = Duration::from_secs(120);

#[test]
fn every_key_is_replaced_and_no_node_is_lost() -> Result<()> {
    let nodes = std::env::var("CHORIA_TEST_NODES").ok().and_then(|text| text.parse().ok()).unwrap_or(NODES);
    let network = Network::lab(nodes)?;
    let outcome = Rotation::begin(&network, nodes).and_then(Rotation::run);
    network.told(outcome)
}

/// The story so far.
struct Rotation<'n> {
    network: &'n Network,
    keeper: Keeper<'n>,
    operator: Operator,
    nodes: usize,
    old: String,
    new: String,
    /// `cht` before and after.
    access: [String; 2],
    began: Instant,
}

impl<'n> Rotation<'n> {
    fn begin(network: &'n Network, nodes: usize) -> Result<Self> {
        let keeper = Keeper::of(network);
        let operator = network.operator("choria")?;
        let old = keeper.read("issuer/issuer.public")?.trim().to_owned();
        let access = keeper.read("hub/provisioning-token")?.trim().to_owned();
        let access = [access, "the-access-token-of-after-the-change".to_owned()];
        Ok(Rotation {
            network,
            keeper,
            operator,
            nodes,
            old,
            new: String::new(),
            access,
            began: Instant::now(),
        })
    }

    fn run(mut self) -> Result<()> {
        self.all_answer("before")?;
        let connects = self.keeper.connects()?;
        for name in ["token", "seed"] {
            std::fs::copy(
                self.keeper.path(&format!("client/{name}")),
                self.keeper.path(&format!("client/old-{name}")),
            )?;
        }

        self.everybody_accepts_both_issuers()?;
        self.all_answer("both issuers are accepted")?;
        self.provisioning_tokens_of_both()?;
        self.all_answer("new provisioning tokens are in place")?;
        self.chain_issuers()?;
        self.all_answer("new chain issuers issue")?;
        self.delegator()?;
        self.all_answer("the new delegator signs")?;
        self.services_connect_with_new_tokens()?;
        self.password_of_provisioners()?;
        self.certificate_of_the_broker()?;
        self.all_answer("the broker has a new certificate")?;
        ensure!(self.keeper.connects()? == connects, "a node lost its connection");

        self.operator = self.network.operator("choria")?;
        self.rests_on_new("client/token")?;
        self.all_answer("operators have logged in again")?;
        self.nodes_enrol_again(&self.access[0])?;
        self.all_answer("nodes have new tokens")?;

        let connects = self.keeper.connects()?;
        self.old_issuer_goes()?;
        // the signer's session was closed; it connects again in its own time
        wait_until("the signer is back", Duration::from_secs(30), || {
            self.operator.run(&["ping", "--expect", "1"]).is_ok_and(|pinged| pinged.code == 0)
        })?;
        self.all_answer("the old issuer is gone")?;
        ensure!(self.keeper.connects()? == connects, "a node lost its connection with the old issuer");
        self.old_token_is_refused()?;

        self.operator = self.network.operator("admin")?;
        self.all_answer("a new login")?;
        self.nodes_enrol_again(&self.access[1])?;
        self.all_answer("after all")
    }

    /// Each of them, once, to a request that was signed by the signer; and says so for the record.
    fn all_answer(&self, when: &str) -> Result<()> {
        let count = self.nodes.to_string();
        let json = self.operator.run(&["ping", "--json", "--expect", &count, "--timeout", "20"])?;
        let json = json.json().with_context(|| format!("{when}: {json:?}"))?;
        let replies = json.get("replies").and_then(serde_json::Value::as_array).context("no replies")?;
        ensure!(replies.len() == self.nodes, "{when}: {} of {count} answer", replies.len());
        let text = self.operator.ok(&["req", "rpcutil", "ping"]).with_context(|| when.to_owned())?;
        ensure!(text.contains(&format!("Finished processing {count} / {count} hosts")), "{when}: {text}");
        eprintln!("{:5.1} s  {count} of {count} answer: {when}", self.began.elapsed().as_secs_f64());
        Ok(())
    }

    fn everybody_accepts_both_issuers(&mut self) -> Result<()> {
        self.new = self.keeper.keys("issuer/issuer-2")?;
        let both = format!("{},{}", self.old, self.new);
        for file in [
            "hub/broker.conf",
            "hub/aaa.conf",
            "hub/provisioner.conf",
            "client.conf",
            "hub/choria-provisioner.yaml",
        ] {
            self.keeper.edit(file, &self.old, &both)?;
        }
        self.keeper.edit(
            "hub/aaasvc.conf",
            &self.keeper.path("issuer/issuer.public").display().to_string(),
            &both,
        )?;
        for part in ["broker", "aaa", "provisioner"] {
            self.keeper.hang_up(part)?;
        }
        for file in self.keeper.node_files("server.conf")? {
            self.keeper.edit(&file, &self.old, &both)?;
        }
        self.keeper.hang_up("node")
    }

    /// They name both issuers and both keys of the broker, and hold the new access token. The first node is late: its
    /// token still holds the old one.
    fn provisioning_tokens_of_both(&self) -> Result<()> {
        let fresh = self.network.folder().join("fresh");
        std::fs::create_dir(&fresh)?;
        certificates(&fresh, &["broker"])?;
        let pin = |pem: &[u8]| -> Result<String> {
            let certificate = CertificateDer::from_pem_slice(pem).map_err(|e| anyhow::anyhow!("{e}"))?;
            Ok(pin_of_certificate(&certificate).context("a key")?.to_hex())
        };
        let pins = [
            pin(self.keeper.read("tls/broker.pem")?.as_bytes())?,
            pin(&std::fs::read(fresh.join("broker.pem"))?)?,
        ];
        let extensions = json!({"choria": {"issuer": [self.old, self.new], "tls_pin": pins}}).to_string();
        let conf = self.keeper.read("client.conf")?;
        let broker = conf.lines().find_map(|line| line.strip_prefix("plugin.choria.middleware_hosts = "));
        let broker = broker.context("a broker")?;
        for (number, access) in self.access.iter().enumerate() {
            self.keeper.write("issuer/access", access)?;
            #[rustfmt::skip]
            self.keeper.issue(&[
                "provisioning", &self.path("nodes/provisioning.jwt")?, &self.path("issuer/issuer-2.seed")?,
                "--token-file", &self.path("issuer/access")?, "--urls", broker, "--default", "--protocol-v2",
                "--extensions", &extensions,
            ])?;
            let text = self.keeper.read("nodes/provisioning.jwt")?;
            for file in self.keeper.node_files("provisioning.jwt")?.iter().skip(number) {
                self.keeper.write(file, &text)?;
            }
        }
        let [old, new] = &self.access;
        let (was, is) =
            (format!("\"token\": \"{old}\""), format!("\"token\": \"{new}\", \"token_previous\": \"{old}\""));
        self.keeper.edit("hub/choria-provisioner.yaml", &was, &is)?;
        self.keeper.hang_up("provisioner")
    }

    /// The files of one are swapped, the configuration of the other names new ones.
    fn chain_issuers(&self) -> Result<()> {
        for name in ["login-issuer-2", "provisioner-issuer-2"] {
            self.client_token(&format!("hub/{name}"), &name.replace('-', "_"), &["--issuer"])?;
        }
        for kind in ["seed", "jwt"] {
            std::fs::rename(
                self.path(&format!("hub/login-issuer-2.{kind}"))?,
                self.path(&format!("hub/login-issuer.{kind}"))?,
            )?;
        }
        self.keeper.edit("hub/choria-provisioner.yaml", "provisioner-issuer.", "provisioner-issuer-2.")?;
        self.keeper.hang_up("provisioner")
    }

    fn delegator(&self) -> Result<()> {
        self.client_token(
            "hub/request-signer-2",
            "aaa_request_signer",
            &["--auth-delegation", "--no-fleet-management"],
        )?;
        self.keeper.edit("hub/aaasvc.conf", "request-signer.", "request-signer-2.")?;
        self.keeper.hang_up("aaa")
    }

    /// Key and token of the provisioner, the signer's host and the broker; read at their next connect.
    fn services_connect_with_new_tokens(&self) -> Result<()> {
        self.client_token(
            "hub/provisioner",
            "provisioner_signer",
            &["--server-provisioner", "--fleet-management"],
        )?;
        for (name, more) in [("aaa", &["--service"][..]), ("broker", &[])] {
            let public = self.keeper.keys(&format!("hub/{name}"))?;
            let (token, issuer) =
                (self.path(&format!("hub/{name}.jwt"))?, self.path("issuer/issuer-2.seed")?);
            let identity = format!("{name}.lab.choria.local");
            self.keeper.issue(&[&["server", token.as_str(), &identity, &public, &issuer], more].concat())?;
        }
        Ok(())
    }

    /// The broker takes both; the provisioner says that it has to be started anew for the other, and until then comes
    /// back with the old one.
    fn password_of_provisioners(&self) -> Result<()> {
        let (key, new) =
            ("plugin.choria.network.provisioning.client_password", "another-password-of-some-length");
        let conf = self.keeper.read("hub/broker.conf")?;
        let old =
            conf.lines().find_map(|line| line.strip_prefix(&format!("{key} = "))).context("a password")?;
        let lines = format!("{key} = {new}\n{key}_previous = {old}");
        self.keeper.edit("hub/broker.conf", &format!("{key} = {old}"), &lines)?;
        self.keeper.edit("hub/choria-provisioner.yaml", old, new)?;
        self.keeper
            .hang_up_until("provisioner", "broker_provisioning_password changed; restart the provisioner")
    }

    /// From another authority, which is trusted beside the old one first.
    fn certificate_of_the_broker(&self) -> Result<()> {
        let fresh = |name: &str| std::fs::read_to_string(self.network.folder().join("fresh").join(name));
        self.keeper.write("tls/ca.pem", &(self.keeper.read("tls/ca.pem")? + &fresh("ca.pem")?))?;
        self.keeper.write("tls/broker.key", &fresh("broker.key")?)?;
        self.keeper.write("tls/broker.pem", &fresh("broker.pem")?)?;
        self.keeper.hang_up("broker")
    }

    fn nodes_enrol_again(&self, access: &str) -> Result<()> {
        let tokens = || -> Result<Vec<String>> {
            self.keeper.node_files("server.jwt")?.iter().map(|file| self.keeper.read(file)).collect()
        };
        let before = tokens()?;
        let count = self.nodes.to_string();
        let access = format!("token={access}");
        self.operator.ok(&["req", "choria_provision", "reprovision", &access, "--fail-on", "failed"])?;
        wait_until(&format!("{count} nodes have new tokens"), PATIENCE, || {
            tokens().is_ok_and(|after| after.iter().zip(&before).all(|(after, before)| after != before))
        })?;
        for file in self.keeper.node_files("server.jwt")? {
            self.rests_on_new(&file)?;
        }
        self.operator.sees(self.nodes, PATIENCE)
    }

    /// Nodes first, the broker last: it closes what still rests on the old key.
    fn old_issuer_goes(&self) -> Result<()> {
        let both = format!("{},{}", self.old, self.new);
        for file in self.keeper.node_files("server.conf")?.iter().map(String::as_str).chain([
            "client.conf",
            "hub/aaa.conf",
            "hub/aaasvc.conf",
            "hub/provisioner.conf",
            "hub/choria-provisioner.yaml",
            "hub/broker.conf",
        ]) {
            self.keeper.edit(file, &both, &self.new)?;
        }
        // the one that was late as well
        let text = self.keeper.read("nodes/provisioning.jwt")?;
        for file in self.keeper.node_files("provisioning.jwt")? {
            self.keeper.write(&file, &text)?;
        }
        let previous = format!(", \"token_previous\": \"{}\"", self.access[0]);
        self.keeper.edit("hub/choria-provisioner.yaml", &previous, "")?;
        for part in ["node", "aaa", "provisioner", "broker"] {
            self.keeper.hang_up(part)?;
        }
        let log = self.network.log("broker");
        let line = log.lines().rev().find(|line| line.contains("sessions that rest on it are closed"));
        let line = line.context("the broker did not say that an issuer went")?;
        ensure!(
            line.contains("closed=2") && line.contains(&self.old),
            "signer and provisioner reconnect, nobody else: {line}"
        );
        Ok(())
    }

    fn old_token_is_refused(&self) -> Result<()> {
        let conf = self.keeper.read("client.conf")?.replace("/client/token", "/client/old-token");
        let path = self.keeper.path("old-client.conf");
        write_private(&path, conf.replace("/client/seed", "/client/old-seed").as_bytes())?;
        let before = self.network.log("broker").len();
        let refused =
            Operator::new(&path, self.network.folder()).run(&["ping", "--connect-timeout", "3s"])?;
        ensure!(refused.code != 0, "the old token still works: {refused:?}");
        let log = self.network.log("broker");
        let line = log.get(before..).unwrap_or_default().lines().find(|line| line.contains("reason="));
        let line = line.context("the broker logged no reason")?;
        ensure!(line.contains("reason=chain_forged") && line.contains("up=choria"), "{line}");
        Ok(())
    }

    /// A key pair of its own, and a token for it from the new issuer.
    fn client_token(&self, name: &str, caller: &str, more: &[&str]) -> Result<()> {
        let public = self.keeper.keys(name)?;
        let (token, issuer) = (self.path(&format!("{name}.jwt"))?, self.path("issuer/issuer-2.seed")?);
        let arguments = ["client", &token, caller, &issuer, "--public-key", &public, "--validity", "30d"];
        self.keeper.issue(&[&arguments, more].concat())
    }

    fn rests_on_new(&self, file: &str) -> Result<()> {
        let verifier = Verifier::single(Key::Ed25519(PublicKey::from_hex(&self.new)?));
        let (text, now) = (self.keeper.read(file)?, clock::unix_seconds());
        let verified = verifier.verify_server(&text, now).map(|_| ());
        verified.or_else(|_| verifier.verify_client(&text, now).map(|_| ())).with_context(|| file.to_owned())
    }

    fn path(&self, name: &str) -> Result<String> {
        Ok(self.keeper.path(name).to_str().context("a path that is text")?.to_owned())
    }
}
