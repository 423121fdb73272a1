//! The first half of the users' guide to version 2 security: brokers, servers and clients whose tokens an offline issuer
//! signed. Its command lines and files as printed; lines that the printed text lost are marked.

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};
use choria_tests::{Machine, free_port, wait_until, word_after};

const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn brokers_servers_and_clients_without_central_services() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (port, statistics) = (free_port()?.to_string(), free_port()?.to_string());
    let address = format!("127.0.0.1:{port}");
    let replaced = [
        ("broker.example.net:4222", address.as_str()),
        ("client_port = 4222", &format!("client_port = {port}")),
        ("stats_port = 8222", &format!("stats_port = {statistics}")),
    ];
    let machine = |name| Machine::new(folder.path(), name, &replaced);
    let (issuer, broker, server, client) =
        (machine("issuer")?, machine("broker")?, machine("server")?, machine("client")?);

    // Organization Issuer
    issuer.shell("mkdir -p development/issuer")?;
    let printed =
        issuer.shell("choria jwt keys development/issuer/private.key development/issuer/public.key")?;
    let issuer_key = word_after(&printed, "Public Key:")?;
    ensure!(printed.contains("Ed25519 seed saved in development/issuer/private.key"), "{printed}");

    // Broker JWT and Config
    let printed = broker.shell("choria jwt keys /etc/choria/private.key /etc/choria/public.key")?;
    let broker_key = word_after(&printed, "Public Key:")?;
    member_token(&issuer, "broker", &broker_key)?;
    broker.receive("/etc/choria/broker.jwt", &issuer, "~/development/broker/broker.example.net/token.jwt")?;
    broker.shell(
        "openssl genrsa -out /etc/choria/broker-tls.key 2048\n\
         openssl req -new -x509 -sha256 -key /etc/choria/broker-tls.key \\\n\
         -out /etc/choria/broker-tls.cert -days 365 -subj \"/O=Choria.io/CN=broker.example.net\"",
    )?;
    broker.write("/etc/choria/broker.conf", &BROKER_CONF.replace(GUIDE_ISSUER, &issuer_key))?;
    let running_broker = broker.start("choria broker run --config /etc/choria/broker.conf")?;
    for line in [
        "Starting Network Broker",
        "Allowing unverified TLS connections for Organization Issuer issued connections",
        &format!("Loaded Organization Issuer choria with public key {issuer_key}"),
        "Listening for client connections on",
    ] {
        running_broker.logged(line, PATIENCE)?;
    }

    // Server JWT
    let printed = server.shell("choria jwt keys /etc/choria/private.key /etc/choria/public.key")?;
    let server_key = word_after(&printed, "Public Key:")?;
    let shown = member_token(&issuer, "server", &server_key)?;
    ensure!(word_after(&shown, "Private Network ID:")? == "77e64440ac709c0836487e5b77334e5b", "{shown}");
    server.receive("/etc/choria/server.jwt", &issuer, "~/development/server/server.example.net/token.jwt")?;
    server.write("/etc/choria/server.conf", &SERVER_CONF.replace(GUIDE_ISSUER, &issuer_key))?;
    let running_server = server.start("choria server run --config /etc/choria/server.conf")?;
    running_server.logged("using protocol version 2", PATIENCE)?;
    // D1: no CA is configured, so the node says what it does not know
    running_server.logged("reason=tls_unverified", PATIENCE)?;
    running_server.logged("connected", PATIENCE)?;

    // Client JWT
    let printed = client.shell(
        "mkdir -p ~/.config/choria/\n\
         choria jwt keys ~/.config/choria/private.key ~/.config/choria/public.key",
    )?;
    let client_key = word_after(&printed, "Public Key:")?;
    client_token(&issuer, &client_key)?;
    client.receive("~/.config/choria/token.jwt", &issuer, "~/development/client/choria/token.jwt")?;
    client.write("/etc/choria/client.conf", CLIENT_CONF)?;

    let ping = client.shell("choria ping")?;
    ensure!(ping.starts_with("server.example.net                       time="), "{ping}");
    ensure!(ping.contains("---- ping statistics ----\n1 replies max: "), "{ping}");
    let info = client.shell("choria req choria_util info")?;
    ensure!(info.contains("Finished processing 1 / 1 hosts"), "{info}");

    // D1: the client remembers the broker; another one under this address is refused
    drop(running_broker);
    broker.shell(
        "openssl genrsa -out /etc/choria/broker-tls.key 2048\n\
         openssl req -new -x509 -sha256 -key /etc/choria/broker-tls.key \\\n\
         -out /etc/choria/broker-tls.cert -days 365 -subj \"/O=Choria.io/CN=broker.example.net\"",
    )?;
    let impostor = broker.start("choria broker run --config /etc/choria/broker.conf")?;
    let listens = || impostor.log().matches("Listening for client connections").count() == 2;
    wait_until("the other broker listens", PATIENCE, listens)?;
    let refused = client.fails("choria ping --connect-timeout 3s")?;
    ensure!(refused.contains("known_brokers"), "no way out is shown: {refused}");

    // the issuer's key never left its machine
    let secret = issuer.read("~/development/issuer/private.key")?;
    for name in ["broker", "server", "client"] {
        ensure!(!holds(&folder.path().join(name), secret.trim())?, "the issuer's key is on {name}");
    }
    Ok(())
}

/// Issues the token of a broker or a server as the guide does, and returns what `choria jwt` shows.
fn member_token(issuer: &Machine, name: &str, key: &str) -> Result<String> {
    let token = format!("development/{name}/{name}.example.net/token.jwt");
    // the last line of the command was lost
    issuer.shell(&format!(
        "mkdir -p development/{name}/{name}.example.net\n\
         choria jwt server {token} \\\n{name}.example.net \\\n{key} \\\ndevelopment/issuer/private.key \\\n\
         --collectives=choria",
    ))?;
    let shown = issuer.shell(&format!("choria jwt {token} development/issuer/public.key"))?;
    let expected = format!(
        "Validated Server Token {token}\n\n             Identity: {name}.example.net\n           Expires At: "
    );
    ensure!(shown.starts_with(&expected), "{shown}");
    // a token that is looked at in the second of its birth still has all of its year
    ensure!(shown.contains(" (364d23h59m") || shown.contains(" (1y0d0h0m0s)"), "{shown}");
    for line in [
        "          Collectives: choria\n".to_owned(),
        format!("           Public Key: {key}\n"),
        "    Organization Unit: choria\n".to_owned(),
        "   Broker Permissions:\n\n          No server specific permissions granted\n".to_owned(),
    ] {
        ensure!(shown.contains(&line), "no {line:?} in\n{shown}");
    }
    Ok(shown)
}

fn client_token(issuer: &Machine, key: &str) -> Result<()> {
    // `--system` was lost: the guide's token has that permission
    let printed = issuer.shell(&format!(
        "mkdir -p development/client/choria\n\
         choria jwt client development/client/choria/token.jwt choria development/issuer/private.key \\\n \
         --public-key {key} \\\n --stream-admin \\\n --event-viewer \\\n --elections-user \\\n --service \\\n \
         --fleet-management \\\n --agents '*' \\\n --validity 1y --system",
    ))?;
    let saved = "Saved token to development/client/choria/token.jwt, use 'choria jwt view \
                 development/client/choria/token.jwt' to view it\n";
    ensure!(printed == saved, "{printed}");
    let shown =
        issuer.shell("choria jwt development/client/choria/token.jwt development/issuer/public.key")?;
    let before = format!(
        "Validated Client Identification Token development/client/choria/token.jwt\n\n          Caller ID: choria\n  \
         Organization Unit: choria\n     Allowed Agents: *\n         Public Key: {key}\n Private Network ID: \
         0a63c70a8817f5ef4d19d055ce6513f1\n         Expires At: ",
    );
    ensure!(shown.starts_with(&before), "{shown}\ninstead of\n{before}");
    let after = "\n Client Permissions:\n\n      Can manage Choria fleet nodes\n      Can use Leader Elections\n      \
                 Can view Lifecycle and Autonomous Agent events\n      Can administer Choria Streams\n      \
                 Can access the Broker system account\n      Can have an extended token lifetime\n";
    ensure!(shown.ends_with(after), "{shown}\ninstead of\n{after}");
    Ok(())
}

/// Whether a file below the folder holds this text.
fn holds(folder: &Path, text: &str) -> Result<bool> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let found = match path.is_dir() {
            true => holds(&path, text)?,
            false => String::from_utf8_lossy(&std::fs::read(&path)?).contains(text),
        };
        if found {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The key that the guide prints; readers are told to put their own.
const GUIDE_ISSUER: &str = "b3989a299278750427b00213693c2ca02146476a361667682446230842836da8";

const BROKER_CONF: &str = "\
# The name of the organization to configure, for now only supports choria
plugin.security.issuer.names = choria

# The public key from the issuer
plugin.security.issuer.choria.public = b3989a299278750427b00213693c2ca02146476a361667682446230842836da8

# Configures access to broker internal statistics and more
plugin.choria.network.system.password = sYst3m

# Used later in the Provisioner based setup
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

const SERVER_CONF: &str = "\
# The name of the organization to configure, for now only supports choria
plugin.security.issuer.names = choria

# The public key from the issuer
plugin.security.issuer.choria.public = b3989a299278750427b00213693c2ca02146476a361667682446230842836da8

# We enable authorization and set it to trust the JWT tokens policy
rpcauthorization = 1
rpcauthprovider = aaasvc

plugin.security.provider = choria
plugin.security.choria.token_file = /etc/choria/server.jwt
plugin.security.choria.seed_file = /etc/choria/private.key
plugin.choria.middleware_hosts = nats://broker.example.net:4222
";

const CLIENT_CONF: &str = "\
loglevel = warn
plugin.choria.middleware_hosts = broker.example.net:4222
plugin.choria.network.system.user = system
plugin.choria.network.system.password = sYst3m

plugin.security.provider = choria
plugin.security.choria.token_file = ~/.config/choria/token.jwt
plugin.security.choria.seed_file = ~/.config/choria/private.key
";
