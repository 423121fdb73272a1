//! The signer as a Choria service, over a real broker engine with TLS.

use std::sync::Arc;
use std::time::{Duration, Instant};

use choria_aaa::Aaa;
use choria_client::{ClientConfig, ClientError, ConnectOptions, Connection};
use choria_host::Settings;
use choria_host::tls::server_config;
use choria_protocol::{Headers, INSECURE_SIGNATURE, SecureRequest, Transport, subjects};
use choria_token::{ServerClaims, SigningKey};
use nats_engine::{AccountConfig, Engine, EngineConfig, Open};

use crate::fixture::{Site, request};

struct Network {
    site: Site,
    engine: Engine,
    aaa: Aaa,
    operator: ClientConfig,
}

impl Network {
    async fn start() -> Network {
        let mut site = Site::new();
        let path = |name: &str| site.path(name).display().to_string();
        let tls = server_config(&site.path("https.crt"), &site.path("https.key"), None).expect("TLS");
        let accounts = vec![AccountConfig::named("main")];
        let engine =
            Engine::new(EngineConfig::default(), accounts, Arc::new(Open::new("main"))).expect("an engine");
        let listener = engine
            .listen("127.0.0.1:0".parse().expect("an address"), Some(Arc::new(arc_swap::ArcSwap::from(tls))))
            .await
            .expect("a listener");
        let common = format!(
            "plugin.security.provider = choria\nplugin.choria.middleware_hosts = localhost:{}\nplugin.security.choria.ca = {}\n\
             plugin.security.issuer.names = choria\nplugin.security.issuer.choria.public = {}\n",
            listener.local_addr().port(),
            path("https.crt"),
            site.org.public().to_hex(),
        );
        let write = |name: &str, text: &str| std::fs::write(site.path(name), text).expect("written");

        let host = choria_token::Seed::generate().expect("a seed");
        let mut claims = ServerClaims::new("aaa.example.net", &host.public());
        claims.permissions.service_host = true;
        let org = choria_token::Seed::from_hex(&site.org.to_hex()).expect("a seed");
        let token = SigningKey::Seed(org)
            .issue_server(claims, Duration::from_secs(3600), choria_host::clock::unix_seconds())
            .expect("a token");
        write("host.seed", &host.to_hex());
        write("host.jwt", &token);
        let settings = |seed: &str, token: &str, more: &str| {
            format!(
                "{common}plugin.security.choria.token_file = {}\nplugin.security.choria.seed_file = {}\n{more}",
                path(token),
                path(seed)
            )
        };
        write("choria.conf", &settings("host.seed", "host.jwt", "identity = aaa.example.net\n"));

        let (seed, token) = site.token("up=bob", |_| ());
        write("bob.seed", &seed.to_hex());
        write("bob.jwt", &token);
        let text = settings("bob.seed", "bob.jwt", "plugin.choria.security.request_signer.service = true\n");
        let operator =
            ClientConfig::from_settings(Settings::parse(&text, &site.path("client.conf")).expect("settings"))
                .expect("a client");

        let conf = path("choria.conf");
        site.set("/choria_config", conf);
        site.set("/basicjwt_signer/choria_service", true);
        site.set("/port", 0);
        site.set("/monitor_port", 1);
        let aaa = Aaa::start(site.load().expect("a configuration")).await.expect("started");
        let started = Instant::now();
        while engine.stats().subscriptions == 0 {
            assert!(started.elapsed() < Duration::from_secs(10), "the service does not come up");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Network { site, engine, aaa, operator }
    }

    async fn connect(&self) -> Connection {
        Connection::connect(&self.operator, ConnectOptions::default()).await.expect("connected")
    }

    async fn stop(self) {
        tokio::time::timeout(Duration::from_secs(10), self.aaa.stop()).await.expect("stopped in time");
        self.engine.shutdown().await;
    }
}

fn on_a_runtime(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async { tokio::time::timeout(Duration::from_secs(60), test).await.expect("in time") });
}

#[test]
fn the_service_signs_what_the_policy_allows() {
    on_a_runtime(async {
        let network = Network::start().await;
        let operator = network.connect().await;
        let asked = request("up=bob", "rpcutil", "ping");
        let secure = operator.sign(&asked).await.expect("signed");
        assert!(network.site.delegator.public().verify(&secure.request, &secure.signature));
        assert_eq!(secure.request().expect("a request"), asked);
        let refused = operator.sign(&request("up=bob", "shell", "run")).await;
        assert!(matches!(&refused, Err(ClientError::SignerDenied { .. })), "{refused:?}");
        let audit = network.site.audit();
        assert_eq!(audit.len(), 2);
        assert_eq!(audit[0]["from"], "broker");
        assert_eq!(audit[1]["reason"], "denied");
        assert!(
            network
                .aaa
                .metrics()
                .text()
                .expect("metrics")
                .contains("choria_aaa_signer_denied{signer=\"basicjwt\",site=\"ginkgo\"} 1")
        );
        operator.close().await.expect("closed");
        network.stop().await;
    });
}

/// An unsigned envelope is good for agent `aaa_signer` on its service subject and for nothing else.
#[test]
fn t_197_unsigned_envelopes_reach_the_signer_only() {
    on_a_runtime(async {
        let network = Network::start().await;
        let operator = network.connect().await;
        let bob = std::fs::read_to_string(network.site.path("bob.jwt")).expect("a token");
        for (agent, subject) in [
            ("rpcutil", subjects::service("choria", "aaa_signer")),
            ("rpcutil", subjects::service("choria", "rpcutil")),
            ("aaa_signer", subjects::node("choria", "aaa.example.net")),
            ("aaa_signer", subjects::broadcast("choria", "aaa_signer")),
        ] {
            let asked = request("up=bob", agent, "ping");
            let reply = subjects::reply("choria", "up=bob", &asked.id);
            let mut answers = operator.nats().subscribe(reply.clone()).await.expect("subscribed");
            let secure = SecureRequest {
                request: asked.to_bytes().expect("bytes"),
                signature: INSECURE_SIGNATURE.to_vec(),
                caller: bob.clone(),
                signer: None,
            };
            let headers = Headers { reply, sender: "ws".to_owned(), ..Headers::default() };
            let transport = Transport { data: secure.to_bytes().expect("bytes"), headers };
            operator.publish(subject.clone(), transport.to_bytes().expect("bytes")).await.expect("sent");
            operator.flush().await.expect("flushed");
            let answer =
                tokio::time::timeout(Duration::from_millis(400), futures_util::StreamExt::next(&mut answers))
                    .await;
            assert!(answer.is_err(), "{agent} on {subject} was answered");
        }
        // And the signer still works.
        operator.sign(&request("up=bob", "rpcutil", "ping")).await.expect("signed");
        network.stop().await;
    });
    choria_rows::row(
        197,
        "unsigned requests to rpcutil as service, aaa_signer by node and broadcast subject",
        "silence; the signer still signs",
    );
}
