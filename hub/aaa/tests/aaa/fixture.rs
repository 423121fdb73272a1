//! A site in a temporary directory: an organization, a chain issuer for logins, a delegator, users, a certificate.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use choria_aaa::{Aaa, AaaConfig, AaaError};
use choria_host::clock;
use choria_protocol::rpc::RpcRequest;
use choria_protocol::{Filter, Request};
use choria_token::{ClientClaims, Issuer, Seed, SigningKey, ksuid};
use serde_json::{Value, json};

pub(crate) const PASSWORD: &str = "correct: horse";
pub(crate) const POLICY: &str =
    "package io.choria.aaasvc\n\ndefault allow = false\n\nallow {\n  input.agent == \"rpcutil\"\n}\n";

pub(crate) struct Site {
    pub(crate) directory: PathBuf,
    pub(crate) org: Seed,
    pub(crate) chain: Seed,
    pub(crate) chain_token: String,
    pub(crate) delegator: Seed,
    pub(crate) config: Value,
}

static NEXT: AtomicU32 = AtomicU32::new(0);

impl Site {
    pub(crate) fn new() -> Site {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let directory = std::env::temp_dir().join(format!("choria-aaa-site-{}-{number}", std::process::id()));
        // of an earlier process with the same number
        drop(std::fs::remove_dir_all(&directory));
        std::fs::create_dir_all(&directory).expect("a directory");
        let seed = || Seed::generate().expect("a seed");
        let (org, chain, delegator) = (seed(), seed(), seed());
        let hour = Duration::from_secs(3600);
        let now = clock::unix_seconds();
        let key = SigningKey::Seed(Seed::from_hex(&org.to_hex()).expect("a seed"));
        let chain_token = key
            .issue_chain_issuer(ClientClaims::new("up=aaa_chain", &chain.public()), hour * 1000, now)
            .expect("a chain issuer");
        let mut claims = ClientClaims::new("up=request_signer", &delegator.public());
        claims.permissions.authentication_delegator = true;
        let delegation = key.issue_client(claims, hour * 1000, now).expect("a delegator");

        let write = |name: &str, text: &str| {
            let path = directory.join(name);
            std::fs::write(&path, text).expect("written");
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("mode");
            path
        };
        let certified =
            rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("a certificate");
        write("https.crt", &certified.cert.pem());
        write("https.key", &certified.signing_key.serialize_pem());
        write("org.public", &org.public().to_hex());
        write("chain.public", &chain.public().to_hex());
        write("chain.seed", &chain.to_hex());
        write("chain.jwt", &chain_token);
        write("signer.seed", &delegator.to_hex());
        write("signer.jwt", &format!("{delegation}\n"));
        let hash = choria_aaa::crypt(PASSWORD, 4).expect("a hash");
        let users = json!([
            {"username": "bob", "password": hash, "opa_policy": POLICY, "acls": ["rpcutil.ping"], "properties": {"team": "ops"},
             "broker_permissions": {"signed_fleet_management": true}},
            {"username": "observer", "password": hash, "opa_policy": POLICY, "broker_permissions": {"streams_user": true}},
        ]);
        let users_file = write("users.json", &users.to_string());
        let at = |name: &str| directory.join(name).display().to_string();
        let config = json!({
            "site": "ginkgo", "port": 1, "listen_address": "127.0.0.1",
            "tls_certificate": at("https.crt"), "tls_key": at("https.key"),
            "authenticator": "userlist", "signer": "basicjwt", "authorizer": "opa", "auditors": ["logfile"],
            "logfile_auditor": {"logfile": at("audit.json")},
            "userlist_authenticator": {"users_file": users_file, "validity": "1h", "signing_key": at("chain.seed"), "signing_token": at("chain.jwt")},
            "basicjwt_signer": {"signing_certificate": at("org.public"), "signing_token": at("signer.jwt"),
                                "signing_seed": at("signer.seed"), "max_validity": "2h"},
        });
        Site { directory, org, chain, chain_token, delegator, config }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Changes one value of the configuration, such as `/basicjwt_signer/max_validity`.
    pub(crate) fn set(&mut self, pointer: &str, value: impl Into<Value>) {
        let (parent, name) = pointer.rsplit_once('/').expect("a pointer");
        self.config.pointer_mut(parent).expect("a section")[name] = value.into();
    }

    pub(crate) fn load(&self) -> Result<AaaConfig, AaaError> {
        let path = self.path("aaasvc.conf");
        std::fs::write(&path, self.config.to_string()).expect("written");
        let mut config = AaaConfig::load(&path)?;
        config.listen = config.listen.map(|mut address| {
            address.set_port(0);
            address
        });
        config.monitor = config.monitor.map(|mut address| {
            address.set_port(0);
            address
        });
        Ok(config)
    }

    pub(crate) fn start(&self) -> Server {
        Server::start(self.load().expect("a configuration"), Some(&self.path("https.crt")))
    }

    pub(crate) fn start_plain(&self) -> Server {
        Server::start(self.load().expect("a configuration").without_tls(), None)
    }

    /// A token as the login service would issue it.
    pub(crate) fn token(&self, caller: &str, change: impl FnOnce(&mut ClientClaims)) -> (Seed, String) {
        self.token_for(caller, Duration::from_secs(3600), change)
    }

    pub(crate) fn token_for(
        &self,
        caller: &str,
        validity: Duration,
        change: impl FnOnce(&mut ClientClaims),
    ) -> (Seed, String) {
        let seed = Seed::generate().expect("a seed");
        let mut claims = ClientClaims::new(caller, &seed.public());
        claims.opa_policy = POLICY.to_owned();
        claims.permissions.signed_fleet_management = true;
        change(&mut claims);
        let chain = Seed::from_hex(&self.chain.to_hex()).expect("a seed");
        let issuer = Issuer::chain(chain, &self.chain_token, Some(self.org.public())).expect("an issuer");
        let token = issuer.issue_client(claims, validity, clock::unix_seconds()).expect("a token");
        (seed, token)
    }

    /// Lines of the audit log.
    pub(crate) fn audit(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(self.path("audit.json")).unwrap_or_default();
        text.lines().map(|line| serde_json::from_str(line).expect("json")).collect()
    }
}

/// A server on a thread of its own.
pub(crate) struct Server {
    pub(crate) address: std::net::SocketAddr,
    pub(crate) monitor: Option<std::net::SocketAddr>,
    agent: ureq::Agent,
    scheme: &'static str,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Server {
    fn start(config: AaaConfig, certificate: Option<&Path>) -> Server {
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let (up, is_up) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async move {
                let aaa = Aaa::start(config).await.expect("started");
                up.send((aaa.http_address(), aaa.monitor_address())).expect("told");
                let _asked = stopped.await.is_ok();
                aaa.stop().await;
            });
        });
        let (address, monitor) = is_up.recv_timeout(Duration::from_secs(10)).expect("started in time");
        Server {
            address: address.expect("a listener"),
            monitor,
            agent: agent(certificate),
            scheme: if certificate.is_some() { "https" } else { "http" },
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        let host = if self.scheme == "https" { "localhost" } else { "127.0.0.1" };
        format!("{}://{host}:{}{path}", self.scheme, self.address.port())
    }

    pub(crate) fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        self.post_raw(path, "application/json", body.to_string().as_bytes())
    }

    pub(crate) fn post_raw(&self, path: &str, kind: &str, body: &[u8]) -> (u16, Value) {
        let mut response =
            self.agent.post(self.url(path)).header("Content-Type", kind).send(body).expect("an answer");
        let text = response.body_mut().read_to_string().expect("a body");
        (response.status().as_u16(), serde_json::from_str(&text).unwrap_or(Value::Null))
    }

    pub(crate) fn get(&self, url: &str) -> (u16, String) {
        let mut response = self.agent.get(url).call().expect("an answer");
        (response.status().as_u16(), response.body_mut().read_to_string().expect("a body"))
    }

    pub(crate) fn login(&self, body: &Value) -> Value {
        let (status, answer) = self.post("/choria/v1/login", body);
        assert_eq!(status, 200);
        answer
    }

    pub(crate) fn sign(&self, seed: &Seed, token: &str, request: &[u8]) -> Value {
        self.sign_with(&hex::encode(seed.sign(request)), token, request)
    }

    pub(crate) fn sign_with(&self, signature: &str, token: &str, request: &[u8]) -> Value {
        let body = json!({"request": STANDARD.encode(request), "token": token, "signature": signature});
        let (status, answer) = self.post("/choria/v1/sign", &body);
        assert_eq!(status, 200);
        answer
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _told = self.stop.take().map(|stop| stop.send(()));
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(ended.is_ok() || std::thread::panicking(), "the server panicked");
        }
    }
}

pub(crate) fn agent(certificate: Option<&Path>) -> ureq::Agent {
    let mut tls =
        ureq::tls::TlsConfig::builder().unversioned_rustls_crypto_provider(choria_host::tls::provider());
    if let Some(path) = certificate {
        let pem = std::fs::read(path).expect("a certificate");
        let certificate = ureq::tls::Certificate::from_pem(&pem).expect("PEM").to_owned();
        tls = tls.root_certs(ureq::tls::RootCerts::Specific(Arc::new(vec![certificate])));
    }
    ureq::Agent::new_with_config(
        ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(Duration::from_secs(30)))
            .tls_config(tls.build())
            .build(),
    )
}

/// A login body with its proof.
pub(crate) fn login_body(seed: &Seed, username: &str, password: &str, offset: i64) -> Value {
    let timestamp = (clock::unix_seconds() + offset).to_string();
    let signature = hex::encode(seed.sign(format!("{timestamp}:{username}:{password}").as_bytes()));
    json!({"username": username, "password": password, "public_key": seed.public().to_hex(), "timestamp": timestamp, "signature": signature})
}

/// A request as a client builds it.
pub(crate) fn request(caller: &str, agent: &str, action: &str) -> Request {
    let body =
        RpcRequest { agent: agent.to_owned(), action: action.to_owned(), data: serde_json::Map::new() };
    Request {
        message: body.to_bytes().expect("a body"),
        id: ksuid::new(clock::unix_seconds(), &choria_host::random::array()),
        sender: "ws.example.net".to_owned(),
        caller: caller.to_owned(),
        collective: "choria".to_owned(),
        agent: agent.to_owned(),
        ttl: 60,
        time: clock::unix_nanos(),
        filter: Filter::default(),
    }
}
