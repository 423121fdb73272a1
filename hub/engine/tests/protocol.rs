//! The client protocol at its edges, on raw sockets.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    clippy::print_stdout,
    clippy::large_futures,
    reason = "a test says what went wrong by stopping there"
)]

mod support;

use std::time::{Duration, Instant};

use nats_engine::{AccountConfig, CloseReason, EngineConfig};
use support::*;
use tokio::io::AsyncWriteExt;

#[tokio::test]
async fn info_says_what_clients_need_and_nonces_are_fresh() {
    let (engine, address) = start().await;
    let (one, two) = (Raw::open(address).await, Raw::open(address).await);
    for key in
        ["server_id", "server_name", "version", "proto", "go", "host", "port", "max_payload", "client_id"]
    {
        assert!(!one.info[key].is_null(), "{key}");
    }
    assert_eq!(one.info["auth_required"], true);
    assert_eq!(one.info["headers"], true);
    assert_eq!(one.info["port"], address.port());
    let nonce = |raw: &Raw| raw.info["nonce"].as_str().unwrap().to_owned();
    assert_eq!(nonce(&one).len(), 15);
    assert_ne!(nonce(&one), nonce(&two));
    engine.shutdown().await;
}

#[tokio::test]
async fn refused_peers_all_see_the_same() {
    let (engine, address) = start().await;
    let deep = format!("CONNECT {{\"x\":{}}}\r\n", "[".repeat(100));
    let cases = [
        ("PUB a 0\r\n\r\n".to_owned(), "-ERR 'Authorization Violation'\r\n"),
        ("PING\r\n".to_owned(), "-ERR 'Authorization Violation'\r\n"),
        ("SUB a 1\r\n".to_owned(), "-ERR 'Authorization Violation'\r\n"),
        ("PUB a 5\r\nhello\r\n".to_owned(), "-ERR 'Authorization Violation'\r\n"),
        (connect_line("main/a", "").replace("pw", "no"), "-ERR 'Authorization Violation'\r\n"),
        (connect_line("main/late", ""), "-ERR 'Authorization Violation'\r\n"),
        (connect_line("missing/a", ""), "-ERR 'Authorization Violation'\r\n"),
        (connect_line("main/a", ",\"account\":\"other\""), "-ERR 'Authorization Violation'\r\n"),
        (connect_line("main/a", ",\"new_account\":true"), "-ERR 'Authorization Violation'\r\n"),
        ("CONNECT {}\r\n".to_owned(), "-ERR 'Authorization Violation'\r\n"),
        (connect_line("main/a", ",\"user\":\"main/b\""), ""),
        ("CONNECT {nonsense\r\n".to_owned(), ""),
        (deep, ""),
        (connect_line("main/a", ",\"protocol\":2"), "-ERR 'invalid client protocol'\r\n"),
        (
            connect_line("main/a", ",\"no_responders\":true"),
            "-ERR 'no responders requires headers support'\r\n",
        ),
        ("GET / HTTP/1.1\r\n\r\n".to_owned(), "-ERR 'Unknown Protocol Operation'\r\n"),
        (format!("CONNECT {}\r\n", "x".repeat(65_537)), "-ERR 'maximum control line exceeded'\r\n"),
        (format!("SUB {} 1\r\n", "x".repeat(5000)), "-ERR 'maximum control line exceeded'\r\n"),
    ];
    for (text, expected) in cases {
        let mut raw = Raw::open(address).await;
        raw.send(&text).await;
        let shown: String = text.chars().take(60).collect();
        assert_eq!(raw.rest().await, expected, "{shown}");
    }
    assert!(engine.connections().is_empty());
    engine.shutdown().await;
}

#[tokio::test]
async fn a_connect_line_of_64_kib_is_read_and_later_lines_are_not() {
    let (engine, address) = start().await;
    let padding = format!(",\"jwt\":\"{}\"", "j".repeat(65_000));
    let mut raw = Raw::user(address, "main/a", &padding).await;
    raw.send(&format!("SUB {} 1\r\n", "x".repeat(5000))).await;
    assert_eq!(raw.rest().await, "-ERR 'maximum control line exceeded'\r\n");
    engine.shutdown().await;
}

#[tokio::test]
async fn silence_ends_in_a_timeout_wherever_it_begins() {
    let (engine, address) = start().await;
    let line = connect_line("main/a", "");
    for cut in [0, 1, 7, 20, line.len() - 1] {
        let mut raw = Raw::open(address).await;
        raw.send(&line[..cut]).await;
        let began = Instant::now();
        assert_eq!(raw.rest().await, "-ERR 'Authentication Timeout'\r\n", "cut at {cut}");
        assert!(began.elapsed() < Duration::from_secs(3));
    }
    engine.shutdown().await;
}

#[tokio::test]
async fn one_set_of_credentials_per_connection() {
    let (engine, address) = start().await;
    let mut raw = Raw::user(address, "main/a", "").await;
    raw.send("CONNECT {\"verbose\":true}\r\n").await;
    assert_eq!(raw.line().await, "+OK");
    raw.send(&connect_line("main/a", "")).await;
    assert_eq!(raw.rest().await, "-ERR 'Authorization Violation'\r\n");
    engine.shutdown().await;
}

#[tokio::test]
async fn verbose_pedantic_and_bare_line_feeds() {
    let (engine, address) = start().await;
    let mut raw = Raw::open(address).await;
    raw.send("CONNECT {\"user\":\"main/a\",\"pass\":\"pw\"}\nPING\n").await;
    assert_eq!(raw.line().await, "+OK");
    assert_eq!(raw.line().await, "PONG");
    raw.send("sub a 1\nUNSUB 9\nPUB a.* 0\r\n\r\nSUB a..b 2\nPUB a 2\nhi\r\n").await;
    let mut lines = Vec::new();
    for _ in 0..8 {
        lines.push(raw.line().await);
    }
    assert_eq!(
        lines,
        [
            "+OK",
            "+OK",
            "-ERR 'Invalid Publish Subject'",
            "+OK",
            "-ERR 'Invalid Subject'",
            "MSG a 1 2",
            "hi",
            "+OK"
        ]
    );
    engine.shutdown().await;
}

#[tokio::test]
async fn errors_after_connect_have_their_texts() {
    let (engine, address) = start().await;
    for (text, expected) in [
        ("NONSENSE\r\n", "-ERR 'Unknown Protocol Operation'\r\n"),
        ("PUB a 2\r\nhello\r\n", "-ERR 'Unknown Protocol Operation'\r\n"),
        ("PUB a 1048577\r\n", "-ERR 'Maximum Payload Violation'\r\n"),
        ("PUB a -1\r\n", ""),
        ("PUB a 99999999999999999999\r\n", ""),
        ("HPUB a 10 5\r\n", ""),
        ("SUB a\r\n", ""),
        ("-ERR 'gone'\r\n", ""),
    ] {
        let mut raw = Raw::user(address, "main/a", "").await;
        raw.send(text).await;
        assert_eq!(raw.rest().await, expected, "{text}");
    }
    engine.shutdown().await;
}

#[tokio::test]
async fn a_session_cut_at_every_byte_behaves_the_same() {
    let (engine, address) = start().await;
    let script = "SUB a 1\r\nHPUB a r 12 14\r\nNATS/1.0\r\n\r\nhi\r\nPUB a 3\r\nxyz\r\n";
    let expected = ["HMSG a 1 r 12 14", "NATS/1.0", "", "hi", "MSG a 1 3", "xyz"];
    for cut in (0..script.len()).step_by(3) {
        let mut raw = Raw::user(address, "main/a", ",\"headers\":true").await;
        raw.send(&script[..cut]).await;
        tokio::time::sleep(Duration::from_millis(2)).await;
        raw.send(&script[cut..]).await;
        assert_eq!(raw.sync().await, expected, "cut at {cut}");
    }
    engine.shutdown().await;
}

#[tokio::test]
async fn headers_are_stripped_for_peers_that_do_not_know_them() {
    let (engine, address) = start().await;
    let mut old = Raw::user(address, "main/old", "").await;
    old.send("SUB a 1\r\n").await;
    old.sync().await;
    let mut new = Raw::user(address, "main/new", ",\"headers\":true").await;
    new.send("HPUB a 18 20\r\nNATS/1.0\r\nA: b\r\n\r\nhi\r\n").await;
    assert_eq!(new.sync().await, Vec::<String>::new());
    assert_eq!(old.line().await, "MSG a 1 2");
    assert_eq!(old.line().await, "hi");
    engine.shutdown().await;
}

#[tokio::test]
async fn echo_unsubscribe_and_duplicate_ids() {
    let (engine, address) = start().await;
    let mut raw = Raw::user(address, "main/a", ",\"echo\":false").await;
    raw.send("SUB a 1\r\nPUB a 1\r\nx\r\n").await;
    assert!(raw.sync().await.is_empty());
    let mut other = Raw::user(address, "main/b", "").await;
    other.send("SUB a 1\r\nSUB b 1\r\nUNSUB 1 2\r\n").await;
    other.sync().await;
    raw.send("PUB b 1\r\nx\r\nPUB a 1\r\n1\r\nPUB a 1\r\n2\r\nPUB a 1\r\n3\r\n").await;
    raw.sync().await;
    assert_eq!(other.sync().await, ["MSG a 1 1", "1", "MSG a 1 1", "2"]);
    // A maximum below what was delivered ends it at once.
    other.send("SUB a 2\r\nPUB a 1\r\nz\r\nUNSUB 2 1\r\nPUB a 1\r\nz\r\n").await;
    assert_eq!(other.sync().await, ["MSG a 2 1", "z"]);
    assert_eq!(engine.stats().subscriptions, 1);
    engine.shutdown().await;
}

#[tokio::test]
async fn no_responders_has_its_exact_form() {
    let (engine, address) = start().await;
    let mut raw = Raw::user(address, "main/a", ",\"headers\":true,\"no_responders\":true").await;
    raw.send("SUB inbox.* 7\r\nPUB nobody.here inbox.1 0\r\n\r\n").await;
    assert_eq!(
        raw.sync().await,
        ["HMSG inbox.1 7 43 43", "NATS/1.0 503", "Nats-Subject: nobody.here", "", ""]
    );
    engine.shutdown().await;
}

#[tokio::test]
async fn queue_groups_get_one_each() {
    let (engine, address) = start().await;
    let mut members = Vec::new();
    for number in 0..4 {
        let mut raw = Raw::user(address, "main/w", "").await;
        // Two patterns, one group: still one delivery.
        let subject = if number % 2 == 0 { "jobs.a" } else { "jobs.*" };
        raw.send(&format!("SUB {subject} group 1\r\n")).await;
        raw.sync().await;
        members.push(raw);
    }
    let mut plain = Raw::user(address, "main/p", "").await;
    plain.send("SUB jobs.> 1\r\n").await;
    plain.sync().await;
    let mut sender = Raw::user(address, "main/s", "").await;
    for _ in 0..100 {
        sender.send("PUB jobs.a 0\r\n\r\n").await;
    }
    sender.sync().await;
    let mut counts = Vec::new();
    for member in &mut members {
        counts.push(member.sync().await.len() / 2);
    }
    assert_eq!(counts.iter().sum::<usize>(), 100);
    assert!(counts.iter().all(|count| *count > 5), "{counts:?}");
    assert_eq!(plain.sync().await.len(), 200);
    engine.shutdown().await;
}

#[tokio::test]
async fn permissions_are_enforced_with_their_texts() {
    let (engine, address) = start().await;
    let mut raw = Raw::user(address, "main/narrow", "").await;
    raw.send(concat!(
        "PUB ok.yes 0\r\n\r\nPUB ok.no 0\r\n\r\nPUB no 0\r\n\r\nPUB ok.a _R_.x.y 0\r\n\r\nPUB ok.a $JS.ACK.x 0\r\n\r\n",
        "SUB a.reply.me.> 1\r\nSUB a.reply.me.x q 2\r\nSUB > 3\r\nSUB *.reply.> 4\r\nSUB a.reply.other.> q 5\r\n",
    ))
    .await;
    assert_eq!(
        raw.sync().await,
        [
            "-ERR 'Permissions Violation for Publish to \"ok.no\"'",
            "-ERR 'Permissions Violation for Publish to \"no\"'",
            "-ERR 'Permissions Violation for Publish with Reply of \"_R_.x.y\"'",
            "-ERR 'Permissions Violation for Publish with Reply of \"$JS.ACK.x\"'",
            "-ERR 'Permissions Violation for Subscription to \">\"'",
            "-ERR 'Permissions Violation for Subscription to \"*.reply.>\"'",
            "-ERR 'Permissions Violation for Subscription to \"a.reply.other.>\" using queue \"q\"'",
        ]
    );
    // A wide subscription with a narrow deny is let in and filtered.
    let mut filtered = Raw::user(address, "main/filtered", "").await;
    filtered.send("SUB > 1\r\n").await;
    assert!(filtered.sync().await.is_empty());
    let mut all = Raw::user(address, "main/all", "").await;
    all.send("PUB a.reply.x 0\r\n\r\nPUB a.b 0\r\n\r\nPUB $JS.EVENT.ADVISORY.x 0\r\n\r\nPUB $SYS.x 0\r\n\r\nPUB _R_.a.b 0\r\n\r\n").await;
    assert_eq!(all.sync().await.len(), 3);
    assert_eq!(filtered.sync().await, ["MSG a.b 1 0", ""]);
    engine.shutdown().await;
}

#[tokio::test]
async fn sessions_end_with_their_credentials() {
    let (engine, address) = start().await;
    let mut raw = Raw::user(address, "main/short", "").await;
    let began = Instant::now();
    let rest = raw.rest().await;
    assert!(rest.ends_with("-ERR 'User Authentication Expired'\r\n"), "{rest}");
    // four seconds in whole ones, and one to notice
    let range = Duration::from_secs(2)..Duration::from_secs(5);
    assert!(range.contains(&began.elapsed()), "{:?}", began.elapsed());
    engine.shutdown().await;
}

#[tokio::test]
async fn kicks_pings_and_stale_connections() {
    let config = EngineConfig { ping_interval: Duration::from_millis(100), ..config() };
    let (engine, address) = start_with(config, vec![AccountConfig::named("main")]).await;
    let mut silent = Raw::user(address, "main/silent", "").await;
    assert_eq!(silent.rest().await, "PING\r\nPING\r\n-ERR 'Stale Connection'\r\n");
    engine.shutdown().await;

    let (engine, address) = start().await;
    let mut kicked = Raw::user(address, "main/kicked", "").await;
    let mut revoked = Raw::user(address, "main/revoked", "").await;
    assert_eq!(engine.kick(|c| c.user == "kicked"), 1);
    assert_eq!(engine.close_where(CloseReason::CredentialsRevoked, |c| c.user == "revoked"), 1);
    assert!(!kicked.rest().await.contains("ERR"));
    assert!(revoked.rest().await.ends_with("-ERR 'Authorization Violation'\r\n"));
    engine.shutdown().await;
}

#[tokio::test]
async fn limits_on_connections_and_subscriptions() {
    let config = EngineConfig { max_connections: 2, max_subscriptions: 3, ..config() };
    let (engine, address) = start_with(config, vec![AccountConfig::named("main")]).await;
    let mut one = Raw::user(address, "main/a", "").await;
    let _two = Raw::user(address, "main/b", "").await;
    let mut three = Raw::open(address).await;
    assert_eq!(three.rest().await, "-ERR 'maximum connections exceeded'\r\n");
    one.send("SUB a 1\r\nSUB b 2\r\nSUB c 3\r\nSUB d 4\r\nSUB e 5\r\n").await;
    assert_eq!(one.sync().await, ["-ERR 'maximum subscriptions exceeded'"; 2]);
    let deep = vec!["a"; 40].join(".");
    one.send(&format!("SUB {deep} 9\r\n")).await;
    assert!(one.sync().await[0].ends_with("too many tokens'"));
    engine.shutdown().await;
}

/// Nothing is lost of what comes too fast: it is read later, and what comes behind it waits as well.
#[tokio::test]
async fn a_connection_with_a_pace_is_read_no_faster() {
    let (engine, address) = start_with(config(), vec![AccountConfig::named("main")]).await;
    let mut paced = Raw::user(address, "main/paced", "").await;
    let mut other = Raw::user(address, "main/a", "").await;
    other.send("SUB t 1\r\n").await;
    assert!(other.sync().await.is_empty());
    let began = Instant::now();
    paced.send(&"PUB t 2\r\nhi\r\n".repeat(200)).await;
    assert!(paced.sync().await.is_empty());
    assert!(began.elapsed() >= Duration::from_millis(1_900), "100 at once, then 50 a second");
    let heard = other.sync().await;
    assert_eq!(heard.iter().filter(|line| line.starts_with("MSG t 1")).count(), 200);

    paced.send("PUB event.a 2\r\nhi\r\nPUB event.b 2\r\nhi\r\nPUB event.c 2\r\nhi\r\n").await;
    assert_eq!(paced.sync().await, ["-ERR 'Permissions Violation for Publish to \"event.c\", too often'"]);
    paced.send("PUB event.d 17\r\n12345678901234567\r\n").await;
    assert_eq!(paced.sync().await, ["-ERR 'Permissions Violation for Publish to \"event.d\", too large'"]);
    engine.shutdown().await;
}

#[tokio::test]
async fn some_are_let_in_only_while_their_account_has_room() {
    let (engine, address) = start_with(config(), vec![AccountConfig::named("main")]).await;
    let one = Raw::user(address, "main/crowd", "").await;
    let _two = Raw::user(address, "main/a", "").await;
    let mut three = Raw::open(address).await;
    three.send("CONNECT {\"user\":\"main/crowd\",\"pass\":\"pw\",\"verbose\":false}\r\nPING\r\n").await;
    assert_eq!(three.rest().await, "-ERR 'Authorization Violation'\r\n");
    let _others_are_not_concerned = Raw::user(address, "main/b", "").await;
    drop(one);
    let began = Instant::now();
    while engine.stats().connections > 2 {
        tokio::time::sleep(Duration::from_millis(5)).await;
        assert!(began.elapsed() < Duration::from_secs(10), "still counted");
    }
    engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_stops_is_cut_and_others_are_not() {
    let config = EngineConfig { max_pending: 256 * 1024, write_deadline: Duration::from_secs(2), ..config() };
    let (engine, address) = start_with(config, vec![AccountConfig::named("main")]).await;
    let mut slow = Raw::user(address, "main/slow", "").await;
    slow.send("SUB flood 1\r\n").await;
    slow.sync().await;
    let mut sender = Raw::user(address, "main/s", "").await;
    let payload = "x".repeat(32 * 1024);
    let message = format!("PUB flood {}\r\n{payload}\r\n", payload.len());
    let began = Instant::now();
    while engine.stats().slow_consumers == 0 {
        sender.send(&message).await;
        assert!(began.elapsed() < Duration::from_secs(15), "never cut");
    }
    assert!(sender.sync().await.is_empty());
    assert!(!slow.rest().await.contains("ERR"));
    engine.shutdown().await;
}

/// Taking a little now and then does not keep a queue for ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_sips_is_cut() {
    let config = EngineConfig { write_deadline: Duration::from_secs(2), ..config() };
    let (engine, address) = start_with(config, vec![AccountConfig::named("main")]).await;
    let mut slow = Raw::user(address, "main/slow", "").await;
    slow.send("SUB flood 1\r\n").await;
    slow.sync().await;
    let mut sender = Raw::user(address, "main/s", "").await;
    let message = format!("PUB flood {}\r\n{}\r\n", 512 * 1024, "x".repeat(512 * 1024));
    for _ in 0..64 {
        sender.send(&message).await;
    }
    let sipping = tokio::spawn(async move {
        // some 100 KiB a second: the 32 MiB would take minutes, and a deadline that began anew with each sip, too
        while slow.sip(10 * 1024).await {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
    let began = Instant::now();
    while engine.stats().slow_consumers == 0 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert!(began.elapsed() < Duration::from_secs(20), "never cut");
    }
    assert!(sender.sync().await.is_empty());
    sipping.abort();
    engine.shutdown().await;
}

/// The common bound takes from those who hold the most, not from whoever is sent the next message.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_all_hold_together_is_bounded_at_the_cost_of_those_who_hold_it() {
    let total = 16 * 1024 * 1024;
    let config = EngineConfig { max_pending_total: total, ..config() };
    let (engine, address) = start_with(config, vec![AccountConfig::named("main")]).await;
    let mut slow = Vec::new();
    for number in 0..4 {
        let mut one = Raw::user(address, &format!("main/slow{number}"), "").await;
        one.send("SUB flood 1\r\n").await;
        one.sync().await;
        slow.push(one);
    }
    let mut modest = Raw::user(address, "main/modest", "").await;
    modest.send("SUB drops 1\r\n").await;
    modest.sync().await;
    let mut sender = Raw::user(address, "main/s", "").await;
    let flood = format!("PUB flood 65536\r\n{}\r\n", "x".repeat(65536));
    let drop = format!("PUB drops 65536\r\n{}\r\n", "x".repeat(65536));
    let began = Instant::now();
    while engine.stats().slow_consumers == 0 {
        for _ in 0..16 {
            sender.send(&flood).await;
            let held: usize = engine.connections().iter().map(|one| one.pending_bytes).sum();
            assert!(held <= total + 4 * 1024 * 1024, "{held} bytes are held");
        }
        sender.send(&drop).await;
        sender.sync().await;
        // its queue is its own business while it reads
        assert!(modest.sync().await.iter().any(|line| line.starts_with("MSG drops")));
        assert!(began.elapsed() < Duration::from_secs(20), "nobody was cut");
    }
    sender.sync().await;
    assert!(engine.connections().iter().any(|one| one.user.contains("modest")), "the modest one was cut");
    engine.shutdown().await;
}

#[tokio::test]
async fn shutdown_and_lame_duck() {
    let config = EngineConfig {
        lame_duck_grace: Duration::from_millis(50),
        lame_duck_duration: Duration::from_millis(50),
        ..config()
    };
    let (engine, address) = start_with(config, vec![AccountConfig::named("main")]).await;
    let mut raw = Raw::user(address, "main/a", ",\"protocol\":1").await;
    let info = raw.line().await;
    assert!(info.contains("\"connect_info\":true") && info.contains("\"remote_account\":\"main\""), "{info}");
    engine.lame_duck().await;
    assert!(raw.rest().await.contains("\"ldm\":true"));
    assert!(engine.listen("127.0.0.1:0".parse().unwrap(), None).await.is_err());
}

#[tokio::test]
async fn tls_required_means_tls() {
    let (server, _) = tls();
    let engine = nats_engine::Engine::new(
        config(),
        vec![AccountConfig::named("main")],
        std::sync::Arc::new(TestUsers),
    )
    .unwrap();
    let address = engine.listen("127.0.0.1:0".parse().unwrap(), Some(server)).await.unwrap().local_addr();
    let mut silent = Raw::open(address).await;
    assert_eq!(silent.info["tls_required"], true);
    assert_eq!(silent.rest().await, "-ERR 'Secure Connection - TLS Required'\r\n");
    let mut plain = Raw::open(address).await;
    plain.send(&connect_line("main/a", "")).await;
    assert!(!plain.rest().await.contains("PONG"));
    assert!(engine.connections().is_empty());
    engine.shutdown().await;
}

#[tokio::test]
async fn peers_that_stall_do_not_keep_others_out() {
    let config = EngineConfig { max_unauthenticated: 20, auth_timeout: Duration::from_secs(5), ..config() };
    let (engine, address) = start_with(config, vec![AccountConfig::named("main")]).await;
    let mut stalled = Vec::new();
    for _ in 0..20 {
        let mut raw = Raw::open(address).await;
        raw.send("CONNE").await;
        stalled.push(raw);
    }
    let began = Instant::now();
    let mut control = Raw::user(address, "main/a", "").await;
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    assert!(control.sync().await.is_empty());
    engine.shutdown().await;
}

#[tokio::test]
async fn half_sent_connect_lines_are_bounded_together() {
    // long enough for all twelve to be there at the same time
    let auth_timeout = Duration::from_secs(5);
    let config = EngineConfig { max_unauthenticated_bytes: 256 * 1024, auth_timeout, ..config() };
    let (engine, address) = start_with(config, vec![AccountConfig::named("main")]).await;
    let half = format!("CONNECT {{\"jwt\":\"{}", "j".repeat(40_000));
    let mut throttled = 0;
    let mut peers = Vec::new();
    for _ in 0..12 {
        let mut raw = Raw::open(address).await;
        raw.send(&half).await;
        peers.push(raw);
    }
    for peer in &mut peers {
        throttled += usize::from(peer.rest().await.contains("throttling is active"));
    }
    assert!((4..=9).contains(&throttled), "{throttled}");
    // Given back: the next one comes in.
    Raw::user(address, "main/a", "").await;
    engine.shutdown().await;
}

#[tokio::test]
async fn an_address_that_keeps_failing_waits_and_a_good_peer_beside_it_does_not() {
    let failures = nats_engine::FailurePolicy { free: 5, exempt_loopback: false, ..Default::default() };
    let config = EngineConfig { failures, ..config() };
    let (engine, address) = start_with(config, vec![AccountConfig::named("main")]).await;
    let mut times = Vec::new();
    for _ in 0..8 {
        let began = Instant::now();
        let mut raw = Raw::open(address).await;
        raw.send(&connect_line("main/a", "").replace("pw", "no")).await;
        assert_eq!(raw.rest().await, "-ERR 'Authorization Violation'\r\n");
        times.push(began.elapsed());
    }
    // the quickest of a few: what else the machine does is not the engine's time
    let free = times[..5].iter().min().unwrap();
    assert!(*free < Duration::from_millis(90) && times[7] >= Duration::from_millis(300), "{times:?}");
    let mut good = Duration::MAX;
    for _ in 0..10 {
        let began = Instant::now();
        Raw::user(address, "main/a", "").await;
        good = good.min(began.elapsed());
    }
    assert!(good < Duration::from_millis(100), "{good:?}");
    engine.shutdown().await;
}

#[tokio::test]
async fn an_error_reaches_a_peer_that_is_still_sending() {
    let (engine, address) = start().await;
    let mut raw = Raw::user(address, "main/a", "").await;
    raw.send(&format!("NONSENSE{}", "PUB a 1\r\nx\r\n".repeat(10_000))).await;
    raw.socket.shutdown().await.ok();
    assert_eq!(raw.rest().await, "-ERR 'Unknown Protocol Operation'\r\n");
    engine.shutdown().await;
}

#[tokio::test]
async fn an_open_engine_needs_no_connect() {
    let open = std::sync::Arc::new(nats_engine::Open::new("main"));
    let engine = nats_engine::Engine::new(config(), vec![AccountConfig::named("main")], open).unwrap();
    let address = engine.listen("127.0.0.1:0".parse().unwrap(), None).await.unwrap().local_addr();
    let mut raw = Raw::open(address).await;
    assert!(raw.info["auth_required"].is_null() && raw.info["nonce"].is_null());
    raw.send("SUB a 1\r\nPUB a 1\r\nx\r\n").await;
    assert_eq!(raw.sync().await, ["+OK", "MSG a 1 1", "x", "+OK"]);
    engine.shutdown().await;
}
