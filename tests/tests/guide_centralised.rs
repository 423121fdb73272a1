//! The second half of the users' guide to version 2 security: nodes that a provisioner enrols with a Ruby helper, and
//! people who log in and have each request signed. Its command lines and files as printed; lines that the printed text
//! lost are marked.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use choria_tests::{Machine, free_port, wait_until, word_after};
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(90);

#[test]
fn nodes_enrol_and_people_log_in() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let port = || free_port().map(|port| port.to_string());
    let (broker_port, statistics, login, monitor) = (port()?, port()?, port()?, port()?);
    let replaced = [
        ("broker.example.net:4222", &*format!("127.0.0.1:{broker_port}")),
        ("client_port = 4222", &format!("client_port = {broker_port}")),
        ("stats_port = 8222", &format!("stats_port = {statistics}")),
        ("aaa.example.net:8080", &format!("127.0.0.1:{login}")),
        ("\"port\": 8080", &format!("\"port\": {login}")),
        ("\"monitor_port\": 8081", &format!("\"monitor_port\": {monitor}")),
    ];
    let machine = |name| Machine::new(folder.path(), name, &replaced);
    let (issuer, broker, provisioner) = (machine("issuer")?, machine("broker")?, machine("provisioner")?);
    let (server, aaa, client) = (machine("server")?, machine("aaa")?, machine("client")?);
    provisioner
        .shell("ruby -rjson -e 1")
        .context("the guide's helper is a Ruby script; `apt-get install ruby` makes it run")?;

    // the issuer and the broker are those of the first half
    issuer.shell("mkdir -p development/issuer")?;
    let printed =
        issuer.shell("choria jwt keys development/issuer/private.key development/issuer/public.key")?;
    let issuer_key = word_after(&printed, "Public Key:")?;
    let running_broker = start_broker(&issuer, &broker, &issuer_key)?;
    running_broker.logged("Allowing Provisioner connections subject to JWT claims", PATIENCE)?;

    let running_provisioner = start_provisioner(&issuer, &provisioner, &issuer_key)?;
    running_provisioner.logged("provisioner started", PATIENCE)?;

    // the servers' one token, and a server that has nothing else
    let printed = issuer.shell(
        "mkdir -p development/server\n\
         choria jwt prov development/server/provisioning.jwt \\\n    development/issuer/private.key \\\n    \
         --token s3cret \\\n    --urls nats://broker.example.net:4222 \\\n    --protocol-v2 \\\n    --default",
    )?;
    ensure!(
        printed.starts_with("Saved token to development/server/provisioning.jwt, use 'choria jwt view"),
        "{printed}"
    );
    let shown = issuer.shell("choria jwt development/server/provisioning.jwt")?;
    for line in [
        "Unvalidated Provisioning Token development/server/provisioning.jwt\n",
        "                         Token: *****\n                        Secure: false\n",
        "       Provisioning by default: true\n      Using version 2 Protocol: true\n       \
         Server Version Upgrades: false\n               Standard Claims: {\n                                  \
         \"purpose\": \"choria_provisioning\",\n",
    ] {
        ensure!(shown.contains(line), "no {line:?} in\n{shown}");
    }
    server.receive("/etc/choria/provisioning.jwt", &issuer, "~/development/server/provisioning.jwt")?;
    let running_server = server.start("choria server run --config /etc/choria/server.conf")?;
    let enrolled =
        || server.read("/etc/choria/server.conf").is_ok_and(|text| text.contains("server.provision=false"));
    wait_until("the server is configured", PATIENCE, enrolled).with_context(|| {
        format!(
            "the server says\n{}\nthe provisioner says\n{}",
            running_server.log(),
            running_provisioner.log()
        )
    })?;
    ensure!(server.read("/etc/choria/server.seed")?.trim().len() == 64, "no seed");
    let token = server.shell("choria jwt /etc/choria/server.jwt")?;
    ensure!(word_after(&token, "Identity:")? == "server.example.net", "{token}");
    ensure!(token.contains("Trust Chain: Issued by "), "not issued by the provisioner: {token}");

    let running_aaa = start_aaa(&issuer, &aaa)?;
    let listens = || std::net::TcpStream::connect(format!("127.0.0.1:{login}")).is_ok();
    wait_until("the AAA service listens", PATIENCE, listens)
        .with_context(|| format!("the AAA service says\n{}", running_aaa.log()))?;

    // Users
    client.write("/etc/choria/client.conf", CLIENT_CONF)?;
    client.write("~/password", "secret")?;
    let refused = client.fails("choria login --username choria --password-file ~/password")?;
    ensure!(refused.contains("--fingerprint"), "no way out is shown: {refused}");
    ensure!(
        !running_aaa.log().contains("\"user\""),
        "the password was sent to an unknown service: {}",
        running_aaa.log()
    );
    let printed = aaa.shell("openssl x509 -in /etc/aaasvc/https-public.crt -noout -fingerprint -sha256")?;
    let (_, print) = printed.trim().split_once('=').context("a fingerprint")?;
    // D2: no CA vouches for the self-signed certificate, so the person does
    let log_in = |user: &str| {
        client.shell(&format!(
            "choria login --username {user} --password-file ~/password --fingerprint '{print}'"
        ))
    };
    log_in("choria")?;
    running_aaa.logged("\"user\":\"choria\"", PATIENCE)?;
    let token = client.shell("choria jwt ~/.config/choria/client.jwt")?;
    ensure!(word_after(&token, "Caller ID:")? == "up=choria", "{token}");
    ensure!(token.contains("Can manage Choria fleet nodes subject to authorizing signature"), "{token}");

    let seen = || client.shell("choria ping").is_ok_and(|text| text.contains("1 replies max:"));
    wait_until("the server is back and answers", PATIENCE, seen).with_context(|| {
        format!(
            "ping: {:?}\nthe server says\n{}\nthe AAA service says\n{}",
            client.shell("choria ping"),
            running_server.log(),
            running_aaa.log()
        )
    })?;
    let ping = client.shell("choria ping")?;
    ensure!(ping.starts_with("server.example.net                       time="), "{ping}");
    let info = client.shell("choria req choria_util info --json")?;
    let info: Value = serde_json::from_str(&info)?;
    ensure!(info.pointer("/replies/0/statuscode").and_then(Value::as_i64) == Some(0), "{info}");

    // a user whom nobody allowed to manage the fleet
    log_in("streams")?;
    let refused = client.fails("choria req choria_util info")?;
    ensure!(refused.contains("the token has no permission"), "{refused}");
    log_in("admin")?;
    client.shell("choria req choria_util info")?;

    for (name, running) in [
        ("provisioner", running_provisioner),
        ("AAA service", running_aaa),
        ("server", running_server),
        ("broker", running_broker),
    ] {
        let mut running = running;
        let code = running.terminate(Duration::from_secs(30))?;
        ensure!(code == Some(0), "the {name} ended with {code:?}: {}", running.log());
    }
    Ok(())
}

fn start_broker(issuer: &Machine, broker: &Machine, issuer_key: &str) -> Result<choria_tests::Running> {
    let printed = broker.shell("choria jwt keys /etc/choria/private.key /etc/choria/public.key")?;
    let key = word_after(&printed, "Public Key:")?;
    issuer.shell(&format!(
        "mkdir -p development/broker/broker.example.net\n\
         choria jwt server development/broker/broker.example.net/token.jwt \\\nbroker.example.net \\\n{key} \\\n\
         development/issuer/private.key \\\n--collectives=choria",
    ))?;
    broker.receive("/etc/choria/broker.jwt", issuer, "~/development/broker/broker.example.net/token.jwt")?;
    broker.shell(
        "openssl genrsa -out /etc/choria/broker-tls.key 2048\n\
         openssl req -new -x509 -sha256 -key /etc/choria/broker-tls.key \\\n   \
         -out /etc/choria/broker-tls.cert -days 365 -subj \"/O=Choria.io/CN=broker.example.net\"",
    )?;
    broker.write("/etc/choria/broker.conf", &BROKER_CONF.replace("ISSUER", issuer_key))?;
    let running = broker.start("choria broker run --config /etc/choria/broker.conf")?;
    running.logged("Listening for client connections on", PATIENCE)?;
    Ok(running)
}

fn start_provisioner(
    issuer: &Machine,
    provisioner: &Machine,
    issuer_key: &str,
) -> Result<choria_tests::Running> {
    let printed = provisioner.shell(
        "mkdir -p /etc/choria-provisioner\n\
         choria jwt keys /etc/choria-provisioner/private.key /etc/choria-provisioner/public.key",
    )?;
    let key = word_after(&printed, "Public Key:")?;
    // the last flag was lost: "it can issue new credentials"
    issuer.shell(&format!(
        "mkdir -p development/provisioner\n\
         choria jwt client development/provisioner/token.jwt provisioner_signer development/issuer/private.key \\\n    \
         --public-key {key} \\\n    --server-provisioner \\\n    --validity 365d \\\n    --issuer",
    ))?;
    provisioner.receive(
        "/etc/choria-provisioner/token.jwt",
        issuer,
        "~/development/provisioner/token.jwt",
    )?;
    provisioner.write("/etc/choria-provisioner/client.cfg", PROVISIONER_CLIENT)?;
    provisioner.write(
        "/etc/choria-provisioner/choria-provisioner.yaml",
        &PROVISIONER_YAML.replace("ISSUER", issuer_key),
    )?;
    provisioner
        .write("/etc/choria-provisioner/helper.rb", &HELPER.replace("PUT-YOUR-ISSUER-HERE", issuer_key))?;
    provisioner.shell("chmod a+x /etc/choria-provisioner/helper.rb")?;
    provisioner.start(
        "choria provisioner run --config /etc/choria-provisioner/choria-provisioner.yaml \
         --choria-config /etc/choria-provisioner/client.cfg",
    )
}

fn start_aaa(issuer: &Machine, aaa: &Machine) -> Result<choria_tests::Running> {
    aaa.shell(
        "mkdir -p /etc/aaasvc\n\
         openssl genrsa -out /etc/aaasvc/https-private.key 2048\n\
         openssl req -new -x509 -sha256 -key /etc/aaasvc/https-private.key -out /etc/aaasvc/https-public.crt \
         -days 365 -subj \"/O=Choria.io/CN=aaa.choria.local\"",
    )?;
    let keys = |name: &str| -> Result<String> {
        let printed = aaa.shell(&format!(
            "choria jwt keys /etc/aaasvc/{name}-private.key /etc/aaasvc/{name}-public.key"
        ))?;
        word_after(&printed, "Public Key:")
    };
    let chain = keys("chain-signer")?;
    issuer.shell(&format!(
        "mkdir -p development/aaasvc\n\
         choria jwt client development/aaasvc/chain-signer.jwt aaa_chain_signer \\\n    \
         development/issuer/private.key \\\n    --public-key  {chain} \\\n    --no-fleet-management \\\n    \
         --issuer \\\n    --validity 365d",
    ))?;
    let signer = keys("request-signer")?;
    issuer.shell(&format!(
        "mkdir -p development/aaasvc\n\
         choria jwt client development/aaasvc/request-signer.jwt aaa_request_signer \\\n    \
         development/issuer/private.key \\\n    --public-key {signer} \\\n    --no-fleet-management \\\n    \
         --auth-delegation \\\n    --validity 365d",
    ))?;
    let service = keys("signer-service")?;
    issuer.shell(&format!(
        "choria jwt server development/aaasvc/signer-service.jwt \\\n    aaa.example.net \\\n    {service} \\\n    \
         development/issuer/private.key \\\n    --org choria \\\n    --collectives choria \\\n    --service \\\n    \
         --validity 365d",
    ))?;
    for name in ["chain-signer", "request-signer", "signer-service"] {
        aaa.receive(&format!("/etc/aaasvc/{name}.jwt"), issuer, &format!("~/development/aaasvc/{name}.jwt"))?;
    }
    aaa.write("/etc/aaasvc/choria.conf", AAA_CLIENT)?;
    aaa.write("/etc/aaasvc/aaasvc.conf", AAASVC_CONF)?;
    aaa.write("/etc/aaasvc/admin.rego", "package io.choria.aaasvc\n\ndefault allow = true\n")?;
    aaa.start("choria aaa run --config /etc/aaasvc/aaasvc.conf")
}

const BROKER_CONF: &str = "\
plugin.security.issuer.names = choria
plugin.security.issuer.choria.public = ISSUER
plugin.choria.network.system.password = sYst3m
plugin.choria.network.provisioning.client_password = s3cret
plugin.choria.stats_port = 8222
plugin.choria.broker_network = true
plugin.choria.network.client_port = 4222
plugin.choria.network.stream.store = /data
plugin.choria.network.system.user = system
loglevel = info
plugin.choria.use_srv = false
plugin.security.provider = choria
plugin.security.choria.certificate = /etc/choria/broker-tls.cert
plugin.security.choria.key = /etc/choria/broker-tls.key
plugin.security.choria.token_file = /etc/choria/broker.jwt
plugin.security.choria.seed_file = /etc/choria/private.key
";

const PROVISIONER_CLIENT: &str = "\
plugin.security.provider = choria
plugin.security.choria.token_file = /etc/choria-provisioner/token.jwt
plugin.security.choria.seed_file = /etc/choria-provisioner/private.key

identity = provisioner_signer

plugin.choria.middleware_hosts = nats://broker.example.net:4222
";

/// The line `features:` was lost.
const PROVISIONER_YAML: &str = "\
# The issuer public key
jwt_verify_cert: ISSUER
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

/// The guide tells where to put the script and which constant to change; the script is ours (docs/spec/04 §10.7).
const HELPER: &str = r##"#!/usr/bin/env ruby
# Decides how one node is configured: a node on standard input, the decision on standard output.
require "json"

ISSUER = "PUT-YOUR-ISSUER-HERE"

node = JSON.parse($stdin.read)
inventory = JSON.parse(node["inventory"])
reply = {"defer" => false, "msg" => "", "configuration" => {}, "server_claims" => {}}

if node["identity"].end_with?(".example.net")
  directory = node["ed25519_pubkey"]["directory"]
  reply["msg"] = "enrolled a node of version #{inventory["version"]}"
  reply["configuration"] = {
    "identity" => node["identity"],
    "plugin.choria.server.provision" => "false",
    "plugin.choria.middleware_hosts" => node["jwt"]["chu"],
    "plugin.choria.use_srv" => "false",
    "plugin.security.provider" => "choria",
    "plugin.security.choria.seed_file" => File.join(directory, "server.seed"),
    "plugin.security.choria.token_file" => File.join(directory, "server.jwt"),
    "plugin.security.issuer.names" => "choria",
    "plugin.security.issuer.choria.public" => ISSUER,
    "rpcauthorization" => "1",
    "rpcauthprovider" => "aaasvc"
  }
  reply["server_claims"] = {
    "exp" => Time.now.utc.to_i + 60 * 60 * 24 * 30,
    "permissions" => {"streams" => true, "submission" => true}
  }
else
  reply["defer"] = true
  reply["msg"] = "#{node["identity"]} is not one of ours"
end

puts JSON.dump(reply)
"##;

const AAA_CLIENT: &str = "\
identity = aaa.example.net
plugin.security.provider = choria
plugin.security.choria.seed_file = /etc/aaasvc/signer-service-private.key
plugin.security.choria.token_file = /etc/aaasvc/signer-service.jwt
plugin.choria.middleware_hosts = broker.example.net:4222
";

/// The lines `port`, `tls_key`, `max_validity` and closing braces were lost.
const AAASVC_CONF: &str = r#"{
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
