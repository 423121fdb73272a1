//! The second half of the users' guide to protocol version 2: a server that knows nothing but its provisioning token, and
//! people who log in. The guide's provisioner and AAA containers are `choria provisioner run` and `choria aaa run`.
//!
//! The document lost some lines; `docs/spec/07 §1.1`, `05 §12` and `04 §10` say how each is read.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use choria_tests::guide::{self, GUIDE_ISSUER, Guide, Machine};
use choria_tests::{Running, wait_until};
use serde_json::{Value, json};

const READY: Duration = Duration::from_secs(60);

#[test]
fn the_centralised_guide_as_written() -> Result<()> {
    ruby()?;
    let guide = Guide::prepare()?;
    let server = guide.machine("server.example.net")?;
    let provisioner = prepare_provisioner(&guide, &server)?;
    prepare_provisioning_token(&guide, &server)?;
    let aaa = prepare_aaa(&guide)?;
    // from here on there is no issuer
    guide.remove_issuer()?;

    let mut broker = guide.start_broker("broker.log")?;
    let mut enroller = provisioner.start(
        "choria provisioner run --config /etc/choria-provisioner/choria-provisioner.yaml \
         --choria-config /etc/choria-provisioner/client.cfg",
        "provisioner.log",
    )?;
    enroller.logged("provisioner started", READY)?;
    let mut node = server.start("choria server run --config /etc/choria/server.conf", "server.log")?;
    the_server_is_provisioned(&guide, &server, &enroller, &node)?;

    let mut service = aaa.start("choria aaa run --config /etc/aaasvc/aaasvc.conf", "aaasvc.log")?;
    service.logged("service is up", READY)?;
    let client = guide.machine("client.example.net")?;
    client.place("/etc/choria/client.conf", CLIENT_CONF)?;
    people_log_in(&client, &aaa)?;
    the_server_answers(&client)?;
    a_user_without_the_fleet_is_refused(&client, &aaa)?;
    nothing_is_signed_without_the_service(&client, &aaa, &mut service)?;
    for process in [&mut node, &mut enroller, &mut broker] {
        ends_well(process)?;
    }
    Ok(())
}

fn ends_well(process: &mut Running) -> Result<()> {
    let code = process.terminate(READY)?;
    ensure!(code == Some(0), "ended with {code:?}: {}", process.log());
    Ok(())
}

fn ruby() -> Result<()> {
    let found = Command::new("ruby").arg("--version").output();
    ensure!(
        found.is_ok_and(|output| output.status.success()),
        "the guide's helper is a Ruby script and this machine has no ruby: apt-get install ruby"
    );
    Ok(())
}

fn prepare_provisioner(guide: &Guide, server: &Machine) -> Result<Machine> {
    let (issuer, provisioner) = (&guide.issuer, guide.machine("provisioner.example.net")?);
    provisioner.shell("mkdir -p /etc/choria-provisioner")?;
    let key = guide::keys(
        &provisioner,
        "choria jwt keys /etc/choria-provisioner/private.key /etc/choria-provisioner/public.key",
    )?;
    issuer.shell("mkdir -p development/provisioner")?;
    // the line ends in a backslash: its last flag is lost, without which the provisioner could not sign servers
    let line = format!(
        "choria jwt client development/provisioner/token.jwt provisioner_signer development/issuer/private.key \\\n    \
         --public-key {key} \\\n    --server-provisioner \\\n    --validity 365d \\\n    --issuer"
    );
    guide::saved(issuer, &line, "development/provisioner/token.jwt")?;
    issuer.carry("development/provisioner/token.jwt", &provisioner, "/etc/choria-provisioner/token.jwt")?;
    provisioner.place("/etc/choria-provisioner/client.cfg", PROVISIONER_CLIENT)?;
    let yaml = PROVISIONER_YAML.replace(GUIDE_ISSUER, &guide.issuer_key);
    provisioner.place("/etc/choria-provisioner/choria-provisioner.yaml", &yaml)?;
    // what the helper says is about the server
    let helper = server.moved(&HELPER.replace(GUIDE_ISSUER, &guide.issuer_key));
    std::fs::write(provisioner.path("/etc/choria-provisioner/helper.rb"), helper)?;
    provisioner.shell("chmod a+x /etc/choria-provisioner/helper.rb")?;
    Ok(provisioner)
}

fn prepare_provisioning_token(guide: &Guide, server: &Machine) -> Result<()> {
    let issuer = &guide.issuer;
    issuer.shell("mkdir -p development/server")?;
    // another line that lost its last flag, which the listing below shows
    let line = issuer.moved(
        "choria jwt prov development/server/provisioning.jwt \\\n    development/issuer/private.key \\\n    \
         --token s3cret \\\n    --urls nats://broker.example.net:4222 \\\n    --protocol-v2 \\\n    --default",
    );
    guide::saved(issuer, &line, "development/server/provisioning.jwt")?;
    // The guide's token had no expiry and its id was not a KSUID.
    let expected = issuer.moved(
        r#"Unvalidated Provisioning Token development/server/provisioning.jwt

                    Expires At: *
                         Token: *****
                        Secure: false
                          URLS: nats://broker.example.net:4222
       Provisioning by default: true
      Using version 2 Protocol: true
       Server Version Upgrades: false
               Standard Claims: {
                                  "purpose": "choria_provisioning",
                                  "iss": "Choria Tokens Package*
                                  "sub": "choria_provisioning",
                                  "exp": *
                                  "nbf": *
                                  "iat": *
                                  "jti": "*
                                }"#,
    );
    guide::views(issuer, "choria jwt development/server/provisioning.jwt", &expected)?;
    issuer.carry("development/server/provisioning.jwt", server, "/etc/choria/provisioning.jwt")
}

fn prepare_aaa(guide: &Guide) -> Result<Machine> {
    let (issuer, aaa) = (&guide.issuer, guide.machine("aaa.example.net")?);
    aaa.shell("mkdir -p /etc/aaasvc")?;
    aaa.shell("openssl genrsa -out /etc/aaasvc/https-private.key 2048")?;
    aaa.shell(
        "openssl req -new -x509 -sha256 -key /etc/aaasvc/https-private.key \
         -out /etc/aaasvc/https-public.crt -days 365 -subj \"/O=Choria.io/CN=aaa.choria.local\"",
    )?;
    issuer.shell("mkdir -p development/aaasvc")?;
    let chain = guide::keys(
        &aaa,
        "choria jwt keys /etc/aaasvc/chain-signer-private.key /etc/aaasvc/chain-signer-public.key",
    )?;
    let line = format!(
        "choria jwt client development/aaasvc/chain-signer.jwt aaa_chain_signer \\\n    \
         development/issuer/private.key \\\n    --public-key  {chain} \\\n    \
         --no-fleet-management \\\n    --issuer \\\n    --validity 365d"
    );
    // the guide's listing of this one has the word client too often, an editing slip (docs/spec/07 §8.2)
    guide::saved(issuer, &line, "development/aaasvc/chain-signer.jwt")?;
    let request = guide::keys(
        &aaa,
        "choria jwt keys /etc/aaasvc/request-signer-private.key /etc/aaasvc/reqeuest-signer-public.key",
    )?;
    let line = format!(
        "choria jwt client development/aaasvc/request-signer.jwt aaa_request_signer \\\n    \
         development/issuer/private.key \\\n    --public-key {request} \\\n    \
         --no-fleet-management \\\n    --auth-delegation \\\n    --validity 365d"
    );
    guide::saved(issuer, &line, "development/aaasvc/request-signer.jwt")?;
    let service = guide::keys(
        &aaa,
        "choria jwt keys /etc/aaasvc/signer-service-private.key /etc/aaasvc/signer-service-public.key",
    )?;
    let line = format!(
        "choria jwt server development/aaasvc/signer-service.jwt \\\n    aaa.example.net \\\n    {service} \\\n    \
         development/issuer/private.key \\\n    --org choria \\\n    --collectives choria \\\n    \
         --service \\\n    --validity 365d"
    );
    guide::saved(issuer, &line, "development/aaasvc/signer-service.jwt")?;
    for name in ["chain-signer.jwt", "request-signer.jwt", "signer-service.jwt"] {
        issuer.carry(&format!("development/aaasvc/{name}"), &aaa, &format!("/etc/aaasvc/{name}"))?;
    }
    aaa.place("/etc/aaasvc/choria.conf", AAA_CLIENT)?;
    aaa.place("/etc/aaasvc/admin.rego", "package io.choria.aaasvc\n\ndefault allow = true\n")?;
    aaa.place("/etc/aaasvc/aaasvc.conf", AAA_CONF)?;
    a_password_is_hashed_by_ourselves(&aaa)?;
    Ok(aaa)
}

/// The guide's hash stays with two of the three users; the third one's is made here, of the same password.
fn a_password_is_hashed_by_ourselves(aaa: &Machine) -> Result<()> {
    let hash = aaa.shell("echo secret | choria aaa crypt --cost 5")?;
    ensure!(hash.starts_with("$2") && hash.trim_end().len() == 60, "{hash}");
    let mut config: Value = serde_json::from_str(&aaa.read("/etc/aaasvc/aaasvc.conf")?)?;
    let user = config.pointer_mut("/userlist_authenticator/users/2").context("three users")?;
    ensure!(user.get("username") == Some(&json!("choria")), "{user}");
    *user.get_mut("password").context("a password")? = json!(hash.trim_end());
    std::fs::write(aaa.path("/etc/aaasvc/aaasvc.conf"), serde_json::to_vec_pretty(&config)?)?;
    Ok(())
}

fn the_server_is_provisioned(
    guide: &Guide,
    server: &Machine,
    enroller: &Running,
    node: &Running,
) -> Result<()> {
    let configured = server.path("/etc/choria/server.conf");
    wait_until("the server is configured", READY, || configured.exists())
        .with_context(|| format!("the server:\n{}\nthe provisioner:\n{}", node.log(), enroller.log()))?;
    // it restarts itself and is then what a server signed by hand is
    let inbox =
        "Setting custom inbox prefix based on unique ID to choria.reply.77e64440ac709c0836487e5b77334e5b";
    node.logged(inbox, READY)?;
    wait_until("the server is back", READY, || node.log().matches("msg=\"connected\"").count() == 2)
        .with_context(|| node.log())?;
    let settings = server.read("/etc/choria/server.conf")?;
    for line in [
        "plugin.choria.server.provision=false".to_owned(),
        "rpcauthprovider=aaasvc".to_owned(),
        format!("plugin.security.issuer.choria.public={}", guide.issuer_key),
    ] {
        ensure!(settings.lines().any(|setting| setting == line), "no {line} in\n{settings}");
    }
    let shown = server.shell("choria jwt /etc/choria/server.jwt")?;
    for line in ["             Identity: server.example.net", "          Trust Chain: Issued by "] {
        ensure!(shown.contains(line), "no {line} in\n{shown}");
    }
    Ok(())
}

/// The guide's `choria login`, for which there is no terminal here.
fn login(user: &str, fingerprint: &str) -> String {
    // D2: who asks for a password has to prove itself. Nobody vouches for the guide's self-signed certificate; on a
    // terminal `choria login` shows its fingerprint and asks, without one the fingerprint is given.
    format!("echo secret | choria login --username {user} --password-stdin --fingerprint {fingerprint}")
}

fn fingerprint(aaa: &Machine) -> Result<String> {
    let printed = aaa.shell("openssl x509 -in /etc/aaasvc/https-public.crt -noout -fingerprint -sha256")?;
    let (_, fingerprint) = printed.trim().split_once('=').context(printed.clone())?;
    Ok(fingerprint.to_owned())
}

fn people_log_in(client: &Machine, aaa: &Machine) -> Result<()> {
    // D2: no fingerprint, no terminal, no password sent
    let refused = client.try_shell("echo secret | choria login --username admin --password-stdin")?;
    ensure!(refused.code != 0, "{refused:?}");
    let fingerprint = fingerprint(aaa)?;
    ensure!(refused.stderr.contains(&fingerprint), "{refused:?}");
    ensure!(!client.path("~/.config/choria/client.jwt").exists(), "a token without a login");

    // the guide's own hash
    let printed = client.shell(&login("admin", &fingerprint))?;
    let token = client.path("~/.config/choria/client.jwt").display().to_string();
    ensure!(printed == format!("Token saved to {token}\n"), "{printed}");
    let key = client.shell("choria jwt ~/.config/choria/client.jwt --json")?;
    let key: Value = serde_json::from_str(&key)?;
    let key = key.get("public_key").and_then(Value::as_str).context("a public key")?;
    let expected = format!(
        "\
Unvalidated Client Identification Token {token}

          Caller ID: up=admin
  Organization Unit: choria
         Public Key: {key}
 Private Network ID: 868a936112914bff2105e739a7566941
         Expires At: *
        Trust Chain: Issued by *

 Client Permissions:

      Can manage Choria fleet nodes subject to authorizing signature
      Can observe all traffic on all subjects and access the system account
      Can access the Broker system account

         OPA Policy: package io.choria.aaasvc

                     default allow = true"
    );
    guide::views(client, "choria jwt ~/.config/choria/client.jwt", &expected)?;

    let wrong = login("choria", &fingerprint).replace("echo secret", "echo wrong");
    let refused = client.try_shell(&wrong)?;
    ensure!(refused.code != 0, "a wrong password is accepted: {refused:?}");
    client.shell(&login("choria", &fingerprint))?;
    let shown = client.shell("choria jwt ~/.config/choria/client.jwt")?;
    ensure!(shown.contains("          Caller ID: up=choria\n"), "{shown}");
    Ok(())
}

fn the_server_answers(client: &Machine) -> Result<()> {
    let printed = client.shell("choria ping")?;
    ensure!(printed.starts_with("server.example.net                       time="), "{printed}");
    ensure!(printed.contains("\n1 replies max: "), "{printed}");
    let printed = client.shell("choria req choria_util info")?;
    ensure!(printed.contains("Finished processing 1 / 1 hosts"), "{printed}");
    let replies: Value = serde_json::from_str(&client.shell("choria req choria_util info --json")?)?;
    let reply = |name: &str| replies.pointer(&format!("/replies/0/{name}"));
    ensure!(reply("sender") == Some(&json!("server.example.net")), "{replies}");
    ensure!(reply("statuscode") == Some(&json!(0)), "{replies}");
    Ok(())
}

/// The guide's user `streams` may not manage the fleet.
fn a_user_without_the_fleet_is_refused(client: &Machine, aaa: &Machine) -> Result<()> {
    client.shell(&login("streams", &fingerprint(aaa)?))?;
    let refused = client.try_shell("choria req choria_util info")?;
    ensure!(refused.code != 0, "{refused:?}");
    ensure!(refused.stderr.contains("the token has no permission"), "{refused:?}");
    // and one who may
    client.shell(&login("admin", &fingerprint(aaa)?))?;
    client.shell("choria req choria_util info")?;
    Ok(())
}

/// "Meaning it's required to be available for every RPC request."
fn nothing_is_signed_without_the_service(
    client: &Machine,
    aaa: &Machine,
    service: &mut Running,
) -> Result<()> {
    client.shell(&login("choria", &fingerprint(aaa)?))?;
    client.shell("choria ping")?;
    ends_well(service)?;
    let refused = client.try_shell("choria req choria_util info")?;
    ensure!(refused.code != 0, "{refused:?}");
    ensure!(refused.stderr.contains("is the AAA service running"), "{refused:?}");
    Ok(())
}

const HELPER: &str = include_str!("guide_centralised/helper.rb");

const PROVISIONER_CLIENT: &str = "\
plugin.security.provider = choria
plugin.security.choria.token_file = /etc/choria-provisioner/token.jwt
plugin.security.choria.seed_file = /etc/choria-provisioner/private.key

identity = provisioner_signer

plugin.choria.middleware_hosts = nats://broker.example.net:4222
";

/// The document lost the line `features:`.
const PROVISIONER_YAML: &str = "\
# The issuer public key
jwt_verify_cert: b3989a299278750427b00213693c2ca02146476a361667682446230842836da8
interval: 1m
logfile: /dev/stdout
loglevel: info
helper: /etc/choria-provisioner/helper.rb
token: s3cret
choria_insecure: false
broker_provisioning_password: s3cret
jwt_signing_key: private.key
jwt_signing_token: token.jwt

features:
  jwt: true
  ed25519: true
";

const AAA_CLIENT: &str = "\
identity = aaa.example.net
plugin.security.provider = choria
plugin.security.choria.seed_file = /etc/aaasvc/signer-service-private.key
plugin.security.choria.token_file = /etc/aaasvc/signer-service.jwt
plugin.choria.middleware_hosts = broker.example.net:4222
";

/// The document lost the lines that hold only brackets, and `tls_key`, `port` and `max_validity` (docs/spec/05 §12).
const AAA_CONF: &str = r#"{
  "choria_config": "/etc/aaasvc/choria.conf",
  "logfile": "/dev/stdout",
  "loglevel": "info",
  "authenticator": "userlist",
  "authorizer": "opa",
  "signer": "basicjwt",
  "port": 8080,
  "monitor_port": 8081,
  "site": "PREVIEW",
  "tls_certificate": "/etc/aaasvc/https-public.crt",
  "tls_key": "/etc/aaasvc/https-private.key",
  "basicjwt_signer": {
    "signing_certificate": "/etc/aaasvc/chain-signer-public.key",
    "signing_token": "/etc/aaasvc/request-signer.jwt",
    "signing_seed": "/etc/aaasvc/request-signer-private.key",
    "max_validity": "2h",
    "choria_service": true
  },
  "userlist_authenticator": {
    "signing_key": "/etc/aaasvc/chain-signer-private.key",
    "signing_token": "/etc/aaasvc/chain-signer.jwt",
    "validity": "1h",
    "users": [
    {
      "username": "admin",
      "password": "$2a$05$zQIl4gUZbqmKhpQhIeWx3uDWhAZaHoG34zW1ZsxXQt5xpL5f4uyny",
      "opa_policy_file": "/etc/aaasvc/admin.rego",
      "broker_permissions": {
        "org_admin": true,
        "system_user": true,
        "signed_fleet_management": true
      }
    },
    {
      "username": "streams",
      "password": "$2a$05$zQIl4gUZbqmKhpQhIeWx3uDWhAZaHoG34zW1ZsxXQt5xpL5f4uyny",
      "broker_permissions": {
        "streams_admin": true
      }
    },
    {
      "username": "choria",
      "password": "$2a$05$zQIl4gUZbqmKhpQhIeWx3uDWhAZaHoG34zW1ZsxXQt5xpL5f4uyny",
      "opa_policy_file": "/etc/aaasvc/admin.rego",
      "broker_permissions": {
        "signed_fleet_management": true
      }
    }
    ]
  }
}
"#;

const CLIENT_CONF: &str = "\
loglevel = warn
plugin.choria.middleware_hosts = broker.example.net:4222
plugin.choria.network.system.user = system
plugin.choria.network.system.password = sYst3m

plugin.security.provider = choria
plugin.security.choria.token_file = ~/.config/choria/client.jwt
plugin.security.choria.seed_file = ~/.config/choria/client.key
plugin.choria.security.request_signer.service = true
plugin.login.aaasvc.login.url = https://aaa.example.net:8080/choria/v1/login
";
