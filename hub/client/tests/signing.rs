//! Remote signers, by service and by HTTP, honest and otherwise; and hosting a service.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::large_futures,
    clippy::print_stdout
)]

mod network;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use choria_client::{
    ClientConfig, ClientError, Connection, RequestPolicy, RpcOptions, Service, ServiceOptions, SignerMode,
    call,
};
use choria_protocol::accept::{RequestVerifier, rewritten};
use choria_protocol::ddl::{Ddl, builtin};
use choria_protocol::rpc::{RpcReply, StatusCode};
use choria_protocol::{Request, SecureRequest};
use choria_token::Seed;
use network::{Broker, Manner, NONCE, Org, config, connect, node};
use serde_json::{Map, Value, json};

/// What a signer does wrong.
#[derive(Clone, Copy, PartialEq)]
enum Fault {
    None,
    Denies,
    ChangesFilter,
    ChangesTtl,
    ChangesCaller,
    SignsWithAnotherKey,
    NamesNoSigner,
}

#[derive(Clone)]
struct Signer {
    seed: Arc<Seed>,
    token: Arc<str>,
    fault: Fault,
}

impl Signer {
    fn new(org: &Org, fault: Fault) -> Self {
        let (seed, token) = org.client("choria=signer", |claims| {
            claims.permissions.fleet_management = false;
            claims.permissions.authentication_delegator = true;
        });
        Self { seed: Arc::new(seed), token: token.into(), fault }
    }

    fn sign(&self, request: &[u8]) -> Option<Vec<u8>> {
        let mut request = Request::parse(request).unwrap();
        request.caller = rewritten(&request.caller);
        match self.fault {
            Fault::Denies => return None,
            Fault::ChangesFilter => request.filter.add_identity("victim"),
            Fault::ChangesTtl => request.ttl += 1,
            Fault::ChangesCaller => request.caller = "up=mallory".to_owned(),
            _ => {}
        }
        let request = request.to_bytes().unwrap();
        let seed = Seed::generate().unwrap();
        let key = if self.fault == Fault::SignsWithAnotherKey { &seed } else { &self.seed };
        let secure = SecureRequest {
            signature: key.sign(&request).to_vec(),
            request,
            caller: self.token.to_string(),
            signer: (self.fault != Fault::NamesNoSigner).then(|| self.token.to_string()),
        };
        Some(secure.to_bytes().unwrap())
    }

    fn answer(&self, data: &Map<String, Value>) -> RpcReply {
        let signed = self.sign(data["request"].as_str().unwrap().as_bytes());
        RpcReply {
            action: "sign".to_owned(),
            statuscode: if signed.is_some() { StatusCode::Ok } else { StatusCode::Aborted },
            statusmsg: if signed.is_some() { "OK" } else { "Request Denied" }.to_owned(),
            data: json!({"secure_request": String::from_utf8(signed.unwrap_or_default()).unwrap()}),
        }
    }
}

fn host_config(broker: &Broker, org: &Org) -> ClientConfig {
    let mut host = config(broker.address, org.server("aaa.example.net"), Some(org));
    host.identity = "aaa.example.net".to_owned();
    host
}

async fn serve(
    connection: Connection,
    agent: &str,
    policy: RequestPolicy,
    answer: impl Fn(&Map<String, Value>) -> RpcReply + Send + Sync + 'static,
) {
    let options = ServiceOptions {
        agent: agent.to_owned(),
        collectives: vec!["choria".to_owned()],
        policy,
        timeout: Duration::from_secs(5),
    };
    let service = Service::new(connection, options).unwrap();
    tokio::spawn(service.run(
        move |request| {
            let reply = answer(&request.rpc.data);
            async move { reply }
        },
        std::future::pending(),
    ));
    tokio::time::sleep(Duration::from_millis(200)).await;
}

async fn ping_through(fault: Fault) -> (Result<choria_client::Summary, ClientError>, String) {
    let (broker, org) = (Broker::start(NONCE).await, Org::new());
    node(&broker, &org, "n1.example.net", Manner::Good).await;
    let signer = Signer::new(&org, fault);
    serve(
        connect(&host_config(&broker, &org)).await,
        "aaa_signer",
        RequestPolicy::SignerService,
        move |data| signer.answer(data),
    )
    .await;
    let (seed, token) = org.client("oidc=bob@example.net", |claims| {
        claims.permissions.fleet_management = false;
        claims.permissions.signed_fleet_management = true;
    });
    let mut settings = config(broker.address, (seed, token.clone()), Some(&org));
    settings.signer = SignerMode::Service;
    let connection = connect(&settings).await;
    let options = RpcOptions {
        targets: Some(vec!["n1.example.net".to_owned()]),
        timeout: Some(Duration::from_secs(5)),
        ..RpcOptions::default()
    };
    let result = call(&connection, &builtin("rpcutil").unwrap(), "ping", Map::new(), options, |_| {}).await;

    if fault == Fault::None {
        // what nodes would say to the request
        let request = connection.new_request("rpcutil", b"{}".to_vec(), Default::default(), 60).unwrap();
        let secure = connection.sign(&request).await.unwrap();
        assert_eq!(secure.caller, token);
        let now = choria_host::clock::unix_seconds();
        let accepted = RequestVerifier::issuers(org.issuers()).accept(&secure, now).unwrap();
        assert_eq!(accepted.request().caller, "oidc=bob_example_net");
        assert!(accepted.signer().is_some());
    }
    let text = result.as_ref().err().map(ToString::to_string).unwrap_or_default();
    (result, text)
}

#[tokio::test]
async fn a_signer_service_signs() {
    let (result, _) = ping_through(Fault::None).await;
    assert_eq!(result.unwrap().ok, 1);
}

#[tokio::test]
async fn a_denial_is_told_in_the_known_words() {
    let (result, text) = ping_through(Fault::Denies).await;
    assert!(text.contains("could not perform request: error from remote signer: Request denied"), "{text}");
    assert!(text.contains("rpcutil#ping"), "{text}");
    assert_eq!(result.unwrap_err().exit_code(), 5);
}

#[tokio::test]
async fn t_287_an_altered_request_is_not_sent() {
    for (fault, field) in
        [(Fault::ChangesFilter, "filter"), (Fault::ChangesTtl, "ttl"), (Fault::ChangesCaller, "caller")]
    {
        let (result, text) = ping_through(fault).await;
        assert!(
            matches!(result, Err(ClientError::SignerAltered { field: found }) if found == field),
            "{text}"
        );
    }
    for fault in [Fault::SignsWithAnotherKey, Fault::NamesNoSigner] {
        let (result, text) = ping_through(fault).await;
        assert!(matches!(result, Err(ClientError::SignerFailed(_))), "{text}");
    }
    choria_rows::row(
        287,
        "a signer returns a request with another filter, ttl, agent",
        "refused before it is published",
    );
}

/// Answers one kind of POST for as long as the test runs.
async fn http(
    tls: Option<Arc<rustls::ServerConfig>>,
    answer: impl Fn(Value) -> (u16, Value) + Send + Sync + 'static,
) -> SocketAddr {
    use tokio::io::{
        AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader,
    };
    trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
    impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let stream: Box<dyn Stream> = match &tls {
                None => Box::new(socket),
                Some(tls) => match tokio_rustls::TlsAcceptor::from(Arc::clone(tls)).accept(socket).await {
                    Ok(stream) => Box::new(stream),
                    Err(_) => continue,
                },
            };
            let mut stream = BufReader::new(stream);
            let (mut line, mut length) = (String::new(), 0);
            while stream.read_line(&mut line).await.unwrap_or(0) > 2 {
                if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
                    length = value.trim().parse().unwrap();
                }
                line.clear();
            }
            let mut body = vec![0; length];
            if length == 0 || stream.read_exact(&mut body).await.is_err() {
                continue;
            }
            let (status, reply) = answer(serde_json::from_slice(&body).unwrap());
            let reply = reply.to_string();
            let head = format!(
                "HTTP/1.1 {status} X\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                reply.len()
            );
            let _sent = stream.get_mut().write_all(format!("{head}{reply}").as_bytes()).await;
            let _flushed = stream.get_mut().shutdown().await;
        }
    });
    address
}

#[tokio::test]
async fn an_http_signer_signs() {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    let (broker, org) = (Broker::start(NONCE).await, Org::new());
    node(&broker, &org, "n1.example.net", Manner::Good).await;
    let signer = Signer::new(&org, Fault::None);
    let address = http(None, move |body| {
        let request = STANDARD.decode(body["request"].as_str().unwrap()).unwrap();
        assert_eq!(body["signature"].as_str().unwrap().len(), 128);
        match signer.sign(&request) {
            Some(secure) if Request::parse(&request).unwrap().agent == "rpcutil" => {
                (200, json!({"secure_request": STANDARD.encode(secure)}))
            }
            _ => (200, json!({"error": "Request denied"})),
        }
    })
    .await;
    let mut settings = config(broker.address, org.client("up=alice", |_| {}), Some(&org));
    settings.signer = SignerMode::Http(vec![
        "http://127.0.0.1:9/down".to_owned(),
        format!("http://{address}/choria/v1/sign"),
    ]);
    let connection = connect(&settings).await;
    let options = RpcOptions {
        targets: Some(vec!["n1.example.net".to_owned()]),
        timeout: Some(Duration::from_secs(5)),
        ..RpcOptions::default()
    };
    let summary =
        call(&connection, &builtin("rpcutil").unwrap(), "ping", Map::new(), options, |_| {}).await.unwrap();
    assert_eq!(summary.ok, 1);
    let other = connection.new_request("choria_util", b"{}".to_vec(), Default::default(), 60).unwrap();
    assert!(matches!(connection.sign(&other).await, Err(ClientError::SignerDenied { .. })));

    settings.signer = SignerMode::Http(vec!["http://signer.example.net/sign".to_owned()]);
    let connection = connect(&settings).await;
    assert!(matches!(connection.sign(&other).await, Err(ClientError::PlainHttp { .. })));
}

/// The caller's token goes to nobody whose certificate the configured authority did not sign.
#[tokio::test]
async fn t_175_an_http_signer_with_a_foreign_certificate_is_told_nothing() {
    let (broker, org) = (Broker::start(NONCE).await, Org::new());
    let directory = tempfile::tempdir().unwrap();
    let certified = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    let (cert, key) = (directory.path().join("cert.pem"), directory.path().join("key.pem"));
    std::fs::write(&cert, certified.cert.pem()).unwrap();
    choria_host::private_file::write_private(&key, certified.signing_key.serialize_pem().as_bytes()).unwrap();
    let tls = choria_host::tls::server_config(&cert, &key, None).unwrap();
    let heard = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&heard);
    let address = http(Some(tls), move |_| {
        counted.fetch_add(1, Ordering::SeqCst);
        (200, json!({"error": "Request denied"}))
    })
    .await;
    let mut settings = config(broker.address, org.client("up=alice", |_| {}), Some(&org));
    settings.signer = SignerMode::Http(vec![format!("https://{address}/choria/v1/sign")]);
    let connection = connect(&settings).await;
    let request = connection.new_request("rpcutil", b"{}".to_vec(), Default::default(), 60).unwrap();
    let error = connection.sign(&request).await.unwrap_err();
    assert!(error.to_string().contains("certificate"), "{error}");
    assert_eq!(heard.load(Ordering::SeqCst), 0, "the signer was sent the request");

    // the same signer, trusted by its own certificate, is asked
    settings.ca = Some(cert);
    let connection = connect(&settings).await;
    assert!(matches!(connection.sign(&request).await, Err(ClientError::SignerDenied { .. })));
    assert_eq!(heard.load(Ordering::SeqCst), 1);
    choria_rows::row(
        175,
        "HTTP signer with a certificate of its own; then trusted",
        "refused, nothing sent; asked",
    );
}

#[tokio::test]
async fn login_asks_before_trusting_and_writes_only_after_success() {
    use choria_client::login::{LoginTrust, login, remember};
    let org = Arc::new(Org::new());
    let directory = tempfile::tempdir().unwrap();
    let certified = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let (cert, key) = (directory.path().join("cert.pem"), directory.path().join("key.pem"));
    std::fs::write(&cert, certified.cert.pem()).unwrap();
    choria_host::private_file::write_private(&key, certified.signing_key.serialize_pem().as_bytes()).unwrap();
    let tls = choria_host::tls::server_config(&cert, &key, None).unwrap();
    let attempts = Arc::new(AtomicUsize::new(0));
    let (counted, issuing) = (Arc::clone(&attempts), Arc::clone(&org));
    let address = http(Some(tls), move |body| {
        counted.fetch_add(1, Ordering::SeqCst);
        if body["password"] != "s3cret" {
            return (200, json!({"error": "Login failed"}));
        }
        let public = choria_token::PublicKey::from_hex(body["public_key"].as_str().unwrap()).unwrap();
        let text = format!("{}:alice:s3cret", body["timestamp"].as_str().unwrap());
        assert!(public.verify(text.as_bytes(), &hex::decode(body["signature"].as_str().unwrap()).unwrap()));
        let (_, token) =
            issuing.client("up=alice", |claims| claims.standard.public_key = Some(public.to_hex()));
        (200, json!({"token": token}))
    })
    .await;
    let url = format!("https://localhost:{}/choria/v1/login", address.port());
    let token_file = directory.path().join("token");
    let text = format!(
        "plugin.security.provider = choria\nplugin.security.choria.token_file = {}\nplugin.login.aaasvc.login.url = {url}\n",
        token_file.display()
    );
    let mut config = ClientConfig::from_settings(
        choria_host::Settings::parse(&text, &directory.path().join("client.conf")).unwrap(),
    )
    .unwrap();
    let (right, wrong) =
        (choria_host::Secret::new("s3cret".to_owned()), choria_host::Secret::new("guess".to_owned()));

    // not known: the person is shown what to decide on, and no password has left
    let error = login(&config, "alice", &right, &LoginTrust::Verified).await.unwrap_err();
    let ClientError::UntrustedServer { fingerprint, certificate, .. } = error else { panic!("{error}") };
    assert_eq!(certificate.names, ["localhost"]);
    assert_eq!(attempts.load(Ordering::SeqCst), 0);
    let other = LoginTrust::Fingerprint("AA:".repeat(32));
    assert!(matches!(
        login(&config, "alice", &right, &other).await,
        Err(ClientError::UntrustedServer { .. })
    ));
    assert_eq!(attempts.load(Ordering::SeqCst), 0);

    // agreed once, remembered
    let done = login(&config, "alice", &right, &LoginTrust::Fingerprint(fingerprint.clone())).await.unwrap();
    assert_eq!(done.caller, "up=alice");
    remember(&config, &url, &fingerprint).unwrap();
    let before = std::fs::read_to_string(&token_file).unwrap();
    let error = login(&config, "alice", &wrong, &LoginTrust::Verified).await.unwrap_err();
    assert_eq!(error.to_string(), "login failed: Login failed");
    assert_eq!(error.exit_code(), 5);
    assert_eq!(std::fs::read_to_string(&token_file).unwrap(), before, "the working pair stays");
    let identity = config.credentials.clone().unwrap().load().unwrap();
    assert_eq!(identity.caller(), "up=alice");

    // a CA file needs no question
    std::fs::remove_file(directory.path().join("known_logins")).unwrap();
    config.ca = Some(cert.clone());
    login(&config, "alice", &right, &LoginTrust::Verified).await.unwrap();
    login(&config, "alice", &right, &LoginTrust::Insecure).await.unwrap();
}

fn site_service() -> Ddl {
    let ddl = json!({"metadata": {"name": "site", "timeout": 2, "service": true}, "actions": [{"action": "go", "display": "always"}]});
    Ddl::parse(ddl.to_string().as_bytes()).unwrap()
}

#[tokio::test]
async fn one_host_of_a_service_answers_and_only_to_whom_it_should() {
    let (broker, org) = (Broker::start(NONCE).await, Org::new());
    let served = Arc::new(AtomicUsize::new(0));
    for _ in 0..2 {
        let served = Arc::clone(&served);
        let policy = RequestPolicy::Verified(RequestVerifier::issuers(org.issuers()));
        serve(connect(&host_config(&broker, &org)).await, "site", policy, move |_| {
            served.fetch_add(1, Ordering::SeqCst);
            RpcReply {
                action: "go".to_owned(),
                statuscode: StatusCode::Ok,
                statusmsg: "OK".to_owned(),
                data: json!({}),
            }
        })
        .await;
    }
    let alice = connect(&config(broker.address, org.client("up=alice", |_| {}), Some(&org))).await;
    let quick = RpcOptions { timeout: Some(Duration::from_secs(2)), ..RpcOptions::default() };
    let summary = call(&alice, &site_service(), "go", Map::new(), quick.clone(), |_| {}).await.unwrap();
    assert_eq!((summary.ok, summary.verified), (1, 1));
    assert_eq!(served.load(Ordering::SeqCst), 1, "one of the two hosts");

    // no fleet access, another organization's issuer: no answer at all
    let none = connect(&config(
        broker.address,
        org.client("up=eve", |claims| claims.permissions.fleet_management = false),
        None,
    ))
    .await;
    let foreign = connect(&config(broker.address, Org::new().client("up=eve", |_| {}), None)).await;
    for connection in [&none, &foreign] {
        let result = call(connection, &site_service(), "go", Map::new(), quick.clone(), |_| {}).await;
        assert!(matches!(result, Err(ClientError::NoResponses)));
    }

    // a replay, a stale request, somebody else's reply subject, an unsigned request
    let body = br#"{"agent":"site","action":"go","data":{}}"#.to_vec();
    let subject = "choria.broadcast.service.site".to_owned();
    let fresh = alice.new_request("site", body.clone(), Default::default(), 60).unwrap();
    let secure = alice.sign(&fresh).await.unwrap();
    let payload = alice.transport(&secure, &alice.reply_subject(&fresh.id)).unwrap();
    alice.publish(subject.clone(), payload.clone()).await.unwrap();
    let mut stale = alice.new_request("site", body.clone(), Default::default(), 60).unwrap();
    stale.time -= 61_000_000_000;
    let stale = alice.sign(&stale).await.unwrap();
    alice
        .publish(subject.clone(), alice.transport(&stale, &alice.reply_subject("x")).unwrap())
        .await
        .unwrap();
    for reply in
        ["choria.node.n1", "$JS.API.STREAM.DELETE.X", "choria.reply.37bdf08389145a56c13096c178802d3b.x", ""]
    {
        let request = alice.new_request("site", body.clone(), Default::default(), 60).unwrap();
        let secure = alice.sign(&request).await.unwrap();
        alice.publish(subject.clone(), alice.transport(&secure, reply).unwrap()).await.unwrap();
    }
    let request = alice.new_request("site", body, Default::default(), 60).unwrap();
    let mut unsigned = alice.sign(&request).await.unwrap();
    unsigned.signature = choria_protocol::INSECURE_SIGNATURE.to_vec();
    alice
        .publish(subject.clone(), alice.transport(&unsigned, &alice.reply_subject("y")).unwrap())
        .await
        .unwrap();
    let both = async {
        while served.load(Ordering::SeqCst) < 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), both).await.expect("the fresh one is served");
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(served.load(Ordering::SeqCst), 2, "only the fresh one");

    let options = ServiceOptions {
        agent: "site".to_owned(),
        collectives: vec!["choria".to_owned()],
        policy: RequestPolicy::SignerService,
        timeout: Duration::from_secs(1),
    };
    assert!(Service::new(alice.clone(), options).is_err(), "only aaa_signer may skip verification");
}
