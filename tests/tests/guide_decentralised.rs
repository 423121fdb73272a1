//! The first half of the users' guide to protocol version 2, as it is written: no provisioner, no AAA service, every
//! token signed by hand by an issuer that no other machine knows.
//!
//! Not in this version, although the guide mentions them at its end: `choria broker server list` and
//! `choria broker stream ls`.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use choria_tests::guide::{self, GUIDE_ISSUER, Guide, Machine};
use choria_tests::{Running, wait_until};
use serde_json::{Value, json};

const READY: Duration = Duration::from_secs(60);

#[test]
fn the_decentralised_guide_as_written() -> Result<()> {
    let guide = Guide::prepare()?;
    the_brokers_token_is_shown(&guide)?;
    let server = prepare_server(&guide)?;
    let client = prepare_client(&guide)?;
    // from here on there is no issuer
    guide.remove_issuer()?;

    let mut broker = guide.start_broker("broker.log")?;
    let node = start_server(&server)?;
    the_server_answers(&client)?;
    the_broker_is_remembered(&client)?;
    a_broker_with_another_key_is_refused(&guide, &client, &node, &mut broker)
}

fn the_brokers_token_is_shown(guide: &Guide) -> Result<()> {
    // The guide's listing says server.example.net in its first two lines and has the broker's key and network id.
    let key = guide.broker.read("/etc/choria/public.key")?;
    let expected = format!(
        "\
Validated Server Token development/broker/broker.example.net/token.jwt

             Identity: broker.example.net
           Expires At: *
          Collectives: choria
           Public Key: {key}
    Organization Unit: choria
   Private Network ID: 92328d88bef9d063480fd4b0ec5e4879

   Broker Permissions:

          No server specific permissions granted"
    );
    let line = "choria jwt development/broker/broker.example.net/token.jwt development/issuer/public.key";
    guide::views(&guide.issuer, line, &expected)
}

fn prepare_server(guide: &Guide) -> Result<Machine> {
    let (issuer, server) = (&guide.issuer, guide.machine("server.example.net")?);
    let key = guide::keys(&server, "choria jwt keys /etc/choria/private.key /etc/choria/public.key")?;
    issuer.shell("mkdir -p development/server/server.example.net")?;
    let line = format!(
        "choria jwt server development/server/server.example.net/token.jwt \\\n\
         server.example.net \\\n{key} \\\ndevelopment/issuer/private.key \\\n"
    );
    guide::saved(issuer, &line, "development/server/server.example.net/token.jwt")?;
    let line = "choria jwt development/server/server.example.net/token.jwt development/issuer/public.key";
    let expected = format!(
        "\
Validated Server Token development/server/server.example.net/token.jwt

             Identity: server.example.net
           Expires At: *
          Collectives: choria
           Public Key: {key}
    Organization Unit: choria
   Private Network ID: 77e64440ac709c0836487e5b77334e5b

   Broker Permissions:

          No server specific permissions granted"
    );
    guide::views(issuer, line, &expected)?;
    issuer.carry("development/server/server.example.net/token.jwt", &server, "/etc/choria/server.jwt")?;
    server.place("/etc/choria/server.conf", &SERVER_CONF.replace(GUIDE_ISSUER, &guide.issuer_key))?;
    Ok(server)
}

fn prepare_client(guide: &Guide) -> Result<Machine> {
    let (issuer, client) = (&guide.issuer, guide.machine("client.example.net")?);
    client.shell("mkdir -p ~/.config/choria/")?;
    let key =
        guide::keys(&client, "choria jwt keys ~/.config/choria/private.key ~/.config/choria/public.key")?;
    issuer.shell("mkdir -p development/client/choria")?;
    let line = CLIENT_TOKEN.replace(GUIDE_CLIENT, &key);
    guide::saved(issuer, &line, "development/client/choria/token.jwt")?;
    let listing = format!(
        "\
Validated Client Identification Token development/client/choria/token.jwt

          Caller ID: choria
  Organization Unit: choria
     Allowed Agents: *
         Public Key: {key}
 Private Network ID: 0a63c70a8817f5ef4d19d055ce6513f1
         Expires At: *

 Client Permissions:

      Can manage Choria fleet nodes
      Can use Leader Elections
      Can view Lifecycle and Autonomous Agent events
      Can administer Choria Streams
      Can access the Broker system account
      Can have an extended token lifetime"
    );
    let view = "choria jwt development/client/choria/token.jwt development/issuer/public.key";
    // the listing has a permission that its command does not ask for (docs/spec/07 §8.5)
    let unasked = "      Can access the Broker system account\n";
    guide::views(issuer, view, &listing.replace(unasked, ""))?;
    guide::saved(issuer, &format!("{line} --system"), "development/client/choria/token.jwt")?;
    guide::views(issuer, view, &listing)?;
    guide::saved(issuer, &line, "development/client/choria/token.jwt")?;
    issuer.carry("development/client/choria/token.jwt", &client, "~/.config/choria/token.jwt")?;
    let found = client.shell("find ~/.config -type f")?;
    let mut names: Vec<&str> = found.lines().filter_map(|line| line.rsplit('/').next()).collect();
    names.sort_unstable();
    ensure!(names == ["private.key", "public.key", "token.jwt"], "{names:?}");
    client.place("/etc/choria/client.conf", CLIENT_CONF)?;
    Ok(client)
}

fn start_server(server: &Machine) -> Result<Running> {
    let node = server.start("choria server run --config /etc/choria/server.conf", "server.log")?;
    let version = format!("Choria Server version {} starting", env!("CARGO_PKG_VERSION"));
    let lines = SERVER_LINES.replace("Choria Server version starting", &version);
    guide::shows(&node, &server.moved(&lines))?;
    // D1: a node that was given neither CA nor pin connects as the guide shows, and says what would verify
    node.logged("reason=tls_unverified", READY)?;
    ensure!(node.log().contains("plugin.security.choria.ca"), "{}", node.log());
    node.logged("msg=\"connected\"", READY)?;
    Ok(node)
}

fn the_server_answers(client: &Machine) -> Result<()> {
    let printed = client.shell("choria ping")?;
    let lines: Vec<&str> = printed.lines().collect();
    let [node, "", "---- ping statistics ----", summary] = lines.as_slice() else {
        anyhow::bail!("{printed}");
    };
    // the name is padded to the guide's width
    let time =
        node.strip_prefix("server.example.net                       time=").context(printed.clone())?;
    ensure!(time.strip_suffix(" ms").is_some_and(|time| time.parse::<u32>().is_ok()), "{printed}");
    ensure!(summary.starts_with("1 replies max: ") && summary.contains(" overhead: "), "{printed}");

    let printed = client.shell("choria req choria_util info")?;
    ensure!(printed.contains("Finished processing 1 / 1 hosts"), "{printed}");
    let replies: Value = serde_json::from_str(&client.shell("choria req choria_util info --json")?)?;
    let reply = |name: &str| replies.pointer(&format!("/replies/0/{name}"));
    ensure!(reply("sender") == Some(&json!("server.example.net")), "{replies}");
    ensure!(reply("statuscode") == Some(&json!(0)), "{replies}");
    // the guide's client.conf names no issuer, so nothing tells this client whose signatures to accept
    ensure!(reply("verification") == Some(&json!("unverified")), "{replies}");
    Ok(())
}

/// D1: a client without a CA takes the key that a broker shows first for the broker's.
fn the_broker_is_remembered(client: &Machine) -> Result<()> {
    let known = client.read("~/.config/choria/known_brokers")?;
    let entries: Vec<&str> = known.lines().filter(|line| !line.starts_with('#')).collect();
    let [entry] = entries.as_slice() else { anyhow::bail!("{known}") };
    let pin = entry.strip_prefix("127.0.0.1 ").context(known.clone())?;
    ensure!(pin.len() == 64 && pin.bytes().all(|digit| digit.is_ascii_hexdigit()), "{known}");
    Ok(())
}

/// D1: a later mismatch is refused with the way out, which works.
fn a_broker_with_another_key_is_refused(
    guide: &Guide,
    client: &Machine,
    node: &Running,
    broker: &mut Running,
) -> Result<()> {
    broker.terminate(READY)?;
    guide.make_broker_certificate()?;
    let _broker = guide.start_broker("broker-of-another-key.log")?;
    // a node without a pin comes back by itself
    wait_until("the server is back", READY, || node.log().matches("msg=\"connected\"").count() == 2)
        .with_context(|| node.log())?;

    let refused = client.try_shell("choria ping")?;
    let store = client.path("~/.config/choria/known_brokers");
    ensure!(refused.code != 0 && refused.stdout.is_empty(), "{refused:?}");
    ensure!(refused.stderr.contains("certificate was refused"), "{refused:?}");
    let way_out = format!("remove the line of 127.0.0.1 from {}", store.display());
    ensure!(refused.stderr.contains(&way_out), "{refused:?}");
    ensure!(refused.stderr.contains("plugin.security.choria.ca"), "{refused:?}");

    client.shell("sed -i '/^127.0.0.1 /d' ~/.config/choria/known_brokers")?;
    the_server_answers(client)?;
    the_broker_is_remembered(client)
}

/// The client's public key in the guide.
const GUIDE_CLIENT: &str = "4bbfddb9f70f4b39f5b13bac8e83a9a31c3af49e388da86a666f8615101bc818";

const CLIENT_TOKEN: &str = r"choria jwt client development/client/choria/token.jwt choria development/issuer/private.key \
 --public-key 4bbfddb9f70f4b39f5b13bac8e83a9a31c3af49e388da86a666f8615101bc818 \
 --stream-admin \
 --event-viewer \
 --elections-user \
 --service \
 --fleet-management \
 --agents '*' \
 --validity 1y";

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

const SERVER_LINES: &str = r#"INFO[0000] Choria Server version starting with config /etc/choria/server.conf using protocol version 2
INFO[0000] Setting JWT token and unique reply queues based on JWT for "server.example.net"  component=server connection=server.example.net identity=server.example.net
INFO[0000] Setting custom inbox prefix based on unique ID to choria.reply.77e64440ac709c0836487e5b77334e5b  component=server connection=server.example.net identity=server.example.net"#;

const CLIENT_CONF: &str = "\
loglevel = warn
plugin.choria.middleware_hosts = broker.example.net:4222
plugin.choria.network.system.user = system
plugin.choria.network.system.password = sYst3m

plugin.security.provider = choria
plugin.security.choria.token_file = ~/.config/choria/token.jwt
plugin.security.choria.seed_file = ~/.config/choria/private.key
";
