//! The HTTP side: wrong requests, slow peers, health, start and reload.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use choria_aaa::Aaa;
use choria_token::Seed;
use serde_json::json;

use crate::fixture::{PASSWORD, Site, agent, login_body};

#[test]
fn t_204_wrong_requests_get_json_answers() {
    let site = Site::new();
    let server = site.start();
    let (status, body) = server.get(&server.url("/choria/v1/login"));
    assert_eq!(status, 405, "{body}");
    assert!(body.contains("\"code\":405"));
    assert_eq!(server.post("/choria/v1/nothing", &json!({})).0, 404);
    assert_eq!(server.post("/choria/v1/../../etc/passwd", &json!({})).0, 404);
    assert_eq!(server.post("/", &json!({})).0, 404);
    assert_eq!(server.post_raw("/choria/v1/login", "text/plain", b"{}").0, 415);
    assert_eq!(server.post_raw("/choria/v1/login", "application/json", b"{").0, 400);
    assert_eq!(server.post_raw("/choria/v1/login", "application/json", b"[1]").0, 400);
    assert_eq!(server.post_raw("/choria/v1/login", "application/json", br#"["bob","pw","","",""]"#).0, 400);
    assert_eq!(server.post_raw("/choria/v1/sign", "application/json", b"[]").0, 400);
    let (status, body) = server.post_raw("/choria/v1/sign", "application/json", b"");
    assert_eq!((status, body["code"].as_u64()), (422, Some(602)));
    assert_eq!(server.post_raw("/choria/v1/sign", "application/json; charset=utf-8", b"{}").0, 200);
    choria_rows::row(
        204,
        "GET, text/plain, ../, unknown path, broken JSON",
        "405, 415, 404, 400 with JSON bodies",
    );
}

#[test]
fn parts_that_are_not_configured_say_so() {
    let mut site = Site::new();
    site.set("/signer", "");
    let server = site.start();
    let (status, body) = server.post("/choria/v1/sign", &json!({}));
    assert_eq!((status, body["error"].as_str()), (501, Some("No signer configured")));
    drop(server);
    site.set("/signer", "basicjwt");
    site.set("/authenticator", "");
    let server = site.start();
    let (status, body) = server.post("/choria/v1/login", &json!({}));
    assert_eq!((status, body["error"].as_str()), (501, Some("No authenticator configured")));
}

#[test]
fn t_203_large_heads_and_bodies_are_cut() {
    let site = Site::new();
    let server = site.start_plain();
    assert_eq!(server.post_raw("/choria/v1/login", "application/json", &vec![b' '; 17 * 1024]).0, 413);
    let exchange = |head: &str, chunk: &[u8]| {
        let mut stream = TcpStream::connect(server.address).expect("connected");
        stream.set_read_timeout(Some(Duration::from_secs(10))).expect("timeout");
        let mut sent = stream.write_all(head.as_bytes());
        for _ in 0..2048 {
            if sent.is_err() {
                break;
            }
            sent = stream.write_all(chunk);
        }
        let mut answer = Vec::new();
        let _read = stream.read_to_end(&mut answer);
        String::from_utf8_lossy(&answer).into_owned()
    };
    let announced = exchange(
        "POST /choria/v1/sign HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 1073741824\r\n\r\n",
        b"",
    );
    assert!(announced.starts_with("HTTP/1.1 413"), "{announced}");
    let chunk = format!("400\r\n{}\r\n", "x".repeat(1024));
    let chunked = exchange(
        "POST /choria/v1/sign HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n",
        chunk.as_bytes(),
    );
    assert!(chunked.is_empty() || chunked.starts_with("HTTP/1.1 413"), "{chunked}");
    let head = exchange(
        "POST /choria/v1/sign HTTP/1.1\r\nHost: x\r\n",
        format!("X: {}\r\n", "x".repeat(500)).as_bytes(),
    );
    assert!(head.is_empty() || head.starts_with("HTTP/1.1 431"), "{head}");
    choria_rows::row(203, "body of 17 KiB, announced 1 GiB, chunked, header of 1 MiB", "413, 413, cut, 431");
}

#[test]
fn t_202_slow_peers_are_cut_and_others_are_served() {
    let site = Site::new();
    let server = site.start_plain();
    let mut slow: Vec<_> = (0..200)
        .map(|i| {
            let mut stream = TcpStream::connect(server.address).expect("connected");
            let text: &[u8] = if i % 2 == 0 {
                b"POST /choria/v1/lo"
            } else {
                b"POST /choria/v1/login HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{"
            };
            stream.write_all(text).expect("written");
            stream
        })
        .collect();
    let key = Seed::generate().expect("a seed");
    assert!(server.login(&login_body(&key, "bob", PASSWORD, 0))["token"].is_string());
    let started = Instant::now();
    for stream in &mut slow {
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("timeout");
        let mut answer = Vec::new();
        // An end, with or without an answer, and not our own time-out.
        let ended = stream.read_to_end(&mut answer);
        assert!(ended.is_ok() || ended.is_err_and(|e| e.kind() == std::io::ErrorKind::ConnectionReset));
    }
    assert!(started.elapsed() < Duration::from_secs(19), "{:?}", started.elapsed());
    choria_rows::row(
        202,
        "200 connections that stop in header or body",
        "all ended within 19 s; a login in between works",
    );
}

#[test]
fn health_and_metrics_have_a_port_of_their_own() {
    let mut site = Site::new();
    site.set("/monitor_port", 1);
    let server = site.start();
    let key = Seed::generate().expect("a seed");
    server.login(&login_body(&key, "bob", "wrong", 0));
    let monitor = server.monitor.expect("a monitor");
    let get = |path: &str| server.get(&format!("http://127.0.0.1:{}{path}", monitor.port()));
    assert_eq!(get("/healthz"), (200, "ok\n".to_owned()));
    assert_eq!(get("/readyz"), (200, "ready\n".to_owned()));
    let (status, text) = get("/metrics");
    assert_eq!(status, 200);
    assert!(
        text.contains("choria_aaa_authenticator_errors{authenticator=\"userlist\",site=\"ginkgo\"} 1"),
        "{text}"
    );
    assert_eq!(server.get(&server.url("/metrics")).0, 404);
}

#[test]
fn t_172_a_client_that_does_not_know_the_certificate_sends_nothing() {
    let (site, other) = (Site::new(), Site::new());
    let server = site.start();
    let stranger = agent(Some(&other.path("https.crt")));
    assert!(stranger.post(server.url("/choria/v1/login")).send(&b"{}"[..]).is_err());
    choria_rows::row(172, "a client that trusts another CA", "the handshake fails");
}

#[test]
fn a_client_certificate_can_be_required() {
    let mut site = Site::new();
    site.set("/tls_ca", site.path("https.crt").display().to_string());
    let server = site.start();
    let client = agent(Some(&site.path("https.crt")));
    assert!(
        client
            .post(server.url("/choria/v1/login"))
            .header("Content-Type", "application/json")
            .send(&b"{}"[..])
            .is_err()
    );
}

fn start(site: &Site) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let config = site.load().map_err(|e| e.to_string())?;
        let aaa = Aaa::start(config).await.map_err(|e| e.to_string())?;
        aaa.stop().await;
        Ok(())
    })
}

#[test]
fn what_cannot_work_does_not_start() {
    assert_eq!(start(&Site::new()), Ok(()));
    let mut site = Site::new();
    site.set("/tls_certificate", json!(null));
    site.set("/tls_key", json!(null));
    assert!(start(&site).is_err_and(|e| e.contains("tls_certificate")));

    let mut site = Site::new();
    site.set("/basicjwt_signer/signing_seed", site.path("chain.seed").display().to_string());
    assert!(start(&site).is_err_and(|e| e.contains("is not its seed")));

    let mut site = Site::new();
    site.set("/basicjwt_signer/signing_token", site.path("chain.jwt").display().to_string());
    assert!(start(&site).is_err_and(|e| e.contains("authentication_delegator")));

    let mut site = Site::new();
    site.set("/userlist_authenticator/signing_key", site.path("signer.seed").display().to_string());
    assert!(start(&site).is_err_and(|e| e.contains("seed")));

    let site = Site::new();
    std::fs::write(site.path("users.json"), "[{").expect("written");
    assert!(start(&site).is_err_and(|e| e.contains("users.json")));
}

#[test]
fn a_reload_takes_what_is_good_and_keeps_the_rest() {
    let mut site = Site::new();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let mut aaa = Aaa::start(site.load().expect("a configuration")).await.expect("started");
        assert!(aaa.reload().is_ok());
        site.set("/authorizer", "nonsense");
        let _unloadable = site.load().is_err();
        assert!(aaa.reload().is_err());
        site.set("/authorizer", "actionlist");
        site.load().expect("a configuration");
        assert!(aaa.reload().is_ok());
        // The audit log was moved away and is opened anew.
        std::fs::rename(site.path("audit.json"), site.path("audit.1")).expect("moved");
        aaa.reload().expect("reloaded");
        assert!(site.path("audit.json").exists());
        aaa.stop().await;
    });
}
