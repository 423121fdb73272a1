//! The configuration files of the lab: the same a site would write, for the centralised deployment of the users' guide.

use std::path::Path;

use serde_json::json;

use crate::failure::{Doing as _, Failure};
use crate::lab::credentials::Credentials;
use crate::lab::directory::{Directory, make, write};
use crate::lab::facts;
use crate::lab::record::{DOMAIN, Ports, Record};

const BANNER: &str = "# Made by `choria lab`: for a network on this machine only. Do not use it elsewhere.";

/// Writes every file that the processes start with.
pub(crate) fn create(
    directory: &Directory,
    record: &Record,
    credentials: &Credentials,
    accept: &[String],
) -> Result<(), Failure> {
    let ports = record.ports;
    text(&directory.hub("broker.conf"), &broker(directory, ports, credentials))?;
    text(&directory.hub("aaa.conf"), &service_host(directory, ports, credentials))?;
    text(&directory.hub("provisioner.conf"), &provisioner_client(directory, ports, credentials))?;
    text(&directory.client_conf(), &client(directory, ports, credentials))?;
    json_file(&directory.hub("aaasvc.conf"), &aaa(directory, ports))?;
    // JSON is YAML, and needs no quoting rules of its own
    json_file(
        &directory.hub("choria-provisioner.yaml"),
        &provisioner(directory, ports, credentials, accept),
    )?;
    let provisioning_jwt = directory.root().join("nodes/provisioning.jwt");
    let token =
        std::fs::read(&provisioning_jwt).doing(|| format!("cannot read {}", provisioning_jwt.display()))?;
    for (index, name) in record.server_names().iter().enumerate() {
        let node = directory.node(name);
        make(&node)?;
        write(&node.join("provisioning.jwt"), &token, 0o600)?;
        json_file(&node.join("facts.json"), &facts::of_node(index + 1, name))?;
    }
    Ok(())
}

fn text(path: &Path, lines: &[String]) -> Result<(), Failure> {
    let mut text = String::from(BANNER);
    text.push('\n');
    for line in lines {
        text.push_str(line);
        text.push('\n');
    }
    write(path, text.as_bytes(), 0o600)
}

fn json_file(path: &Path, value: &serde_json::Value) -> Result<(), Failure> {
    let text = serde_json::to_vec_pretty(value).doing(|| format!("cannot write {}", path.display()))?;
    write(path, &text, 0o600)
}

/// What everybody who connects has to know.
fn connection(directory: &Directory, ports: Ports, credentials: &Credentials) -> Vec<String> {
    vec![
        String::from("plugin.security.provider = choria"),
        String::from("plugin.security.issuer.names = choria"),
        format!("plugin.security.issuer.choria.public = {}", credentials.issuer.to_hex()),
        format!("plugin.security.choria.ca = {}", directory.tls("ca.pem").display()),
        format!("plugin.choria.middleware_hosts = nats://127.0.0.1:{}", ports.broker),
        String::from("plugin.choria.use_srv = false"),
    ]
}

fn token_and_seed(directory: &Directory, name: &str) -> [String; 2] {
    [
        format!("plugin.security.choria.token_file = {}", directory.hub(&format!("{name}.jwt")).display()),
        format!("plugin.security.choria.seed_file = {}", directory.hub(&format!("{name}.seed")).display()),
    ]
}

fn broker(directory: &Directory, ports: Ports, credentials: &Credentials) -> Vec<String> {
    let mut lines = vec![
        format!("identity = lab-broker.{DOMAIN}"),
        String::from("loglevel = info"),
        String::from("plugin.choria.broker_network = true"),
        String::from("plugin.choria.use_srv = false"),
        format!("plugin.choria.network.listen_address = {}", ports.bind),
        format!("plugin.choria.network.client_port = {}", ports.broker),
        String::from("plugin.choria.stats_address = 127.0.0.1"),
        format!("plugin.choria.stats_port = {}", ports.broker_statistics),
        format!(
            "plugin.choria.network.provisioning.client_password = {}",
            credentials.provisioner_password.as_str()
        ),
        String::from("plugin.choria.network.system.user = system"),
        format!("plugin.choria.network.system.password = {}", credentials.system_password.as_str()),
        String::from("plugin.security.provider = choria"),
        String::from("plugin.security.issuer.names = choria"),
        format!("plugin.security.issuer.choria.public = {}", credentials.issuer.to_hex()),
        format!("plugin.security.choria.certificate = {}", directory.tls("broker.pem").display()),
        format!("plugin.security.choria.key = {}", directory.tls("broker.key").display()),
    ];
    if let Some(port) = ports.devices {
        let key = |name: &str| format!("plugin.choria.network.constrained.{name}");
        lines.push(format!("{} = {port}", key("port")));
        lines.push(format!("{} = {}", key("certificate"), directory.tls("devices.pem").display()));
        lines.push(format!("{} = {}", key("key"), directory.tls("devices.key").display()));
    }
    lines.extend(token_and_seed(directory, "broker"));
    lines
}

fn service_host(directory: &Directory, ports: Ports, credentials: &Credentials) -> Vec<String> {
    let mut lines = vec![format!("identity = aaa.{DOMAIN}"), String::from("loglevel = info")];
    lines.extend(connection(directory, ports, credentials));
    lines.extend(token_and_seed(directory, "aaa"));
    lines
}

fn provisioner_client(directory: &Directory, ports: Ports, credentials: &Credentials) -> Vec<String> {
    let mut lines = vec![format!("identity = provisioner.{DOMAIN}")];
    lines.extend(connection(directory, ports, credentials));
    lines.extend(token_and_seed(directory, "provisioner"));
    lines
}

fn client(directory: &Directory, ports: Ports, credentials: &Credentials) -> Vec<String> {
    let mut lines = vec![format!("identity = client.{DOMAIN}"), String::from("loglevel = warn")];
    lines.extend(connection(directory, ports, credentials));
    lines.extend([
        format!("plugin.security.choria.token_file = {}", directory.client("token").display()),
        format!("plugin.security.choria.seed_file = {}", directory.client("seed").display()),
        String::from("plugin.choria.security.request_signer.service = true"),
        format!("plugin.login.aaasvc.login.url = https://127.0.0.1:{}/choria/v1/login", ports.login),
        String::from("plugin.choria.network.system.user = system"),
        format!("plugin.choria.network.system.password = {}", credentials.system_password.as_str()),
    ]);
    lines
}

fn aaa(directory: &Directory, ports: Ports) -> serde_json::Value {
    json!({
        "choria_config": directory.hub("aaa.conf"),
        "loglevel": "info",
        "site": "lab",
        "port": ports.login,
        "listen_address": ports.bind,
        "tls_certificate": directory.tls("login.pem"),
        "tls_key": directory.tls("login.key"),
        "authenticator": "userlist",
        "signer": "basicjwt",
        "authorizer": "actionlist",
        "auditors": ["logfile"],
        "logfile_auditor": { "logfile": directory.log("audit") },
        "userlist_authenticator": {
            "users_file": directory.hub("users.json"),
            "validity": "1h",
            "signing_key": directory.hub("login-issuer.seed"),
            "signing_token": directory.hub("login-issuer.jwt"),
        },
        "basicjwt_signer": {
            "signing_certificate": directory.issuer("issuer.public"),
            "signing_token": directory.hub("request-signer.jwt"),
            "signing_seed": directory.hub("request-signer.seed"),
            "max_validity": "2h",
            "choria_service": true,
        },
    })
}

fn provisioner(
    directory: &Directory,
    ports: Ports,
    credentials: &Credentials,
    accept: &[String],
) -> serde_json::Value {
    let mut rules = vec![
        json!({ "identity": format!("node*.{DOMAIN}") }),
        json!({ "identity": format!("swarm*.{DOMAIN}") }),
        json!({ "identity": format!("device*.{DOMAIN}") }),
    ];
    rules.extend(accept.iter().map(|pattern| json!({ "identity": pattern })));
    let mut configuration = serde_json::Map::new();
    let mut set = |key: &str, value: String| {
        configuration.insert(key.to_owned(), serde_json::Value::String(value));
    };
    set("loglevel", String::from("info"));
    set("collectives", String::from("choria"));
    set("main_collective", String::from("choria"));
    set("rpcauthorization", String::from("1"));
    set("rpcauthprovider", String::from("aaasvc"));
    set("rpcaudit", String::from("1"));
    set("plugin.rpcaudit.logfile", String::from("{directory}/audit.log"));
    set("plugin.yaml", String::from("{directory}/facts.json"));
    set("plugin.choria.status_file_path", String::from("{directory}/status.json"));
    set("plugin.choria.status_update_interval", String::from("10"));
    for line in connection(directory, ports, credentials) {
        if let Some((key, value)) = line.split_once(" = ") {
            // a brace in a path must not be read as a placeholder
            set(key, value.replace('{', "{{"));
        }
    }
    json!({
        "jwt_verify_cert": credentials.issuer.to_hex(),
        "interval": "1m",
        "logfile": "stderr",
        "loglevel": "info",
        "token": credentials.provisioning_token.as_str(),
        "broker_provisioning_password": credentials.provisioner_password.as_str(),
        "jwt_signing_key": directory.hub("provisioner-issuer.seed"),
        "jwt_signing_token": directory.hub("provisioner-issuer.jwt"),
        "server_jwt_validity": "30d",
        "site": "lab",
        "monitor_port": ports.provisioner_metrics,
        "features": { "jwt": true, "ed25519": true },
        "server_claims_limits": { "max_validity": "30d", "permissions": ["submission", "streams"] },
        "enrolled_file": directory.hub("enrolled.json"),
        "helper": "builtin",
        "builtin": {
            "configuration": configuration,
            "server_claims": {
                "validity": "30d",
                "collectives": ["choria"],
                "permissions": { "submission": true, "streams": true },
            },
            "match": rules,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::{Place, certificates, credentials};

    #[test]
    fn the_parts_accept_their_files() {
        let parent = tempfile::tempdir().unwrap();
        let directory = Directory::find(&Place { dir: Some(parent.path().join("lab")) }).unwrap();
        directory.prepare().unwrap();
        let now = choria_host::clock::unix_seconds();
        let ports = Ports::choose(std::net::Ipv4Addr::LOCALHOST, true).unwrap();
        let record = Record { lab: true, created: now, servers: 2, swarm: 0, ports, processes: Vec::new() };
        let certificate = certificates::create(&directory, now).unwrap();
        let credentials = credentials::create(&directory, ports, &certificate, now).unwrap();
        create(&directory, &record, &credentials, &["extra*".to_owned()]).unwrap();

        let config =
            choria_provisioner::ProvisionerConfig::load(&directory.hub("choria-provisioner.yaml")).unwrap();
        assert!(config.unknown_keys.is_empty(), "{:?}", config.unknown_keys);
        let settings = choria_host::Settings::load(&directory.client_conf()).unwrap();
        assert_eq!(choria_host::settings::issuers(&settings).unwrap()["choria"], credentials.issuer.to_hex());
        assert!(directory.node("node02.lab.choria.local").join("provisioning.jwt").is_file());

        // tokens verify with the organization's key
        let verifier = choria_token::Verifier::single(choria_token::Key::Ed25519(credentials.issuer));
        let token = |path: std::path::PathBuf| std::fs::read_to_string(path).unwrap();
        verifier.verify_server(&token(directory.hub("broker.jwt")), now).unwrap();
        verifier.verify_client(&token(directory.hub("provisioner.jwt")), now).unwrap();
        verifier.verify_provisioning(&token(directory.root().join("nodes/provisioning.jwt")), now).unwrap();
        choria_host::tls::server_config(&directory.tls("broker.pem"), &directory.tls("broker.key"), None)
            .unwrap();
        choria_host::tls::client_config(&choria_host::tls::Trust::CaFile(directory.tls("ca.pem")), None)
            .unwrap();

        // every secret is the owner's alone
        use std::os::unix::fs::MetadataExt as _;
        for path in [
            directory.issuer("issuer.seed"),
            directory.hub("broker.conf"),
            directory.tls("broker.key"),
            directory.client_conf(),
        ] {
            assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600, "{}", path.display());
        }
    }
}
