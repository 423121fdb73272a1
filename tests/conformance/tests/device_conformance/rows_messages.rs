//! Rows of 14.6 about what a message says and where its answer goes, on the device.

use anyhow::Result;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use choria_conformance::Kind;
use serde_json::json;

use crate::bench::{Case, Cases, Line};
use crate::forge::key;
use crate::shot::{Caller, NANOS, READY, Shot, inbox, member, message, transport};

const SERVED: &str = "call rpcutil#ping by up=alice status=0 ";
const NODE: &str = "choria.node.n1.example.net";

struct Range {
    cases: Cases,
    alice: Caller,
    sent: usize,
}

impl Range {
    fn new() -> Range {
        let mut cases = Cases::default();
        cases.begins("start", member(&[("choria", key(1).verifying_key().to_bytes())]), READY);
        Range { cases, alice: Caller::fleet("up=alice", &key(3), &key(1)), sent: 0 }
    }

    fn shot(&mut self) -> Shot {
        self.sent += 1;
        Shot::of(&self.alice, &format!("r{}", self.sent), |_| {})
    }

    /// Silence and one reason, whatever came; then a good request is served.
    fn drops(&mut self, name: &str, case: Case, reason: &str) {
        self.cases.is(name, case, format!("dropped {reason} ready"));
        self.control();
    }

    fn control(&mut self) {
        let good = self.shot();
        self.cases.begins("the control", good.sent(), SERVED);
    }

    fn answers(&mut self, name: &str, shot: &Shot, line: &str) {
        self.cases.begins(name, shot.sent(), line);
    }
}

#[test]
fn t_106_t_233_t_234_t_235_answers_go_to_the_caller_only() -> Result<()> {
    let mut range = Range::new();
    let (bobs, pattern) = (inbox("up=bob", "x"), inbox("up=alice", "*"));
    for reply in [
        bobs.as_str(),
        pattern.as_str(),
        "choria.reply.x\r\nPUB choria.node.n2 1\r\nb",
        "$JS.API.STREAM.DELETE.X",
        "choria.lifecycle.event.x.y",
        "choria.node.n2",
        "choria.reply.>",
        "mars.reply.x.y",
        "",
    ] {
        let shot = range.shot().with(|shot| shot.headers["reply"] = reply.into());
        range.drops(reply, shot.sent(), "reply_refused");
    }
    let none = range.shot().with(|shot| shot.headers = json!({}));
    range.drops("no header", none.sent(), "reply_refused");
    range.cases.hold()?;
    for (row, tried) in [
        (106, "a reply subject with line ends and a PUB"),
        (233, "the inbox of another caller, of no collective of the device's"),
        (234, "stream API, life cycle, node, wildcards"),
        (235, "no reply header, an empty one"),
    ] {
        choria_rows::row(
            row,
            format!("{tried}: a connected device"),
            "reply_refused; not a byte is sent; the next is served",
        );
    }
    Ok(())
}

#[test]
fn t_237_t_239_t_240_t_245_subjects_names_and_bodies_agree() -> Result<()> {
    let mut range = Range::new();
    for subject in [
        "choria.broadcast.agent.rpcutil",
        "choria.broadcast.agent.discovery",
        "mt_collective.broadcast.agent.rpcutil",
    ] {
        let shot = range.shot().with(|shot| shot.subject = subject.into());
        if subject == "choria.broadcast.agent.rpcutil" {
            range.answers(subject, &shot, SERVED);
        } else {
            range.drops(subject, shot.sent(), "subject_mismatch");
        }
    }
    let alice = range.alice.clone();
    let elsewhere = Shot::of(&alice, "c1", |document| document["collective"] = "mars".into());
    range.drops("mars", elsewhere.sent(), "collective_unknown");
    let unknown = Shot::asking(&alice, "a1", "unknown", r#"{"agent":"unknown","action":"ping","data":{}}"#);
    range.drops("an unknown agent", unknown.sent(), "agent_unknown");
    let action =
        Shot::asking(&alice, "a2", "rpcutil", r#"{"agent":"rpcutil","action":"nonsense","data":{}}"#);
    range.answers("an unknown action", &action, "call rpcutil#nonsense by up=alice status=2 ");
    for (id, body) in [
        ("b1", r#"{"agent":"choria_provision","action":"ping","data":{}}"#),
        ("b2", r#"{"action":"ping","data":{}}"#),
        ("b3", r#"{"agent":"rpcutil","action":"ping","data":[]}"#),
        ("b4", "no JSON"),
        // base64 of a body, which is decoded once and not again
        ("b5", "eyJhZ2VudCI6InJwY3V0aWwiLCJhY3Rpb24iOiJwaW5nIiwiZGF0YSI6e319"),
    ] {
        range.answers(body, &Shot::asking(&alice, id, "rpcutil", body), "answer status=4 ");
        range.control();
    }
    for (id, body) in [("d1", "ping"), ("d2", "cGluZw=="), ("d3", "{\"ping\":1}")] {
        range.answers(body, &Shot::asking(&alice, id, "discovery", body), "pong to=");
    }
    range.drops("pong", Shot::asking(&alice, "d4", "discovery", "pong").sent(), "agent_unknown");
    range.cases.hold()?;
    for (row, tried, seen) in [
        (237, "another agent, another collective in the subject", "subject_mismatch, silence"),
        (239, "collective mars", "collective_unknown, silence"),
        (240, "an unknown agent; an unknown action", "agent_unknown, silence; status 2"),
        (245, "a body for another agent, for none, without an object, in base64", "status 4, no agent runs"),
    ] {
        choria_rows::row(row, format!("{tried}: a connected device"), seen);
    }
    Ok(())
}

#[test]
fn t_242_t_243_t_256_layers_that_are_broken_or_mean_two_things() -> Result<()> {
    let mut range = Range::new();
    let alice = range.alice.clone();
    let deep = format!("{}{}", "[".repeat(2500), "]".repeat(2500));
    let own = json!({"reply": inbox("up=alice", "x")});
    for outer in [
        "",
        "{}",
        "null",
        "[]",
        "{\"protocol\":",
        "\u{0}\u{1}",
        deep.as_str(),
        r#"{"protocol":"io.choria.protocol.v2.transport","data":"!","headers":{}}"#,
        r#"{"protocol":"io.choria.protocol.v2.transport","data":7,"headers":{}}"#,
        r#"{"protocol":"io.choria.protocol.v2.transport","data":"e30=","headers":[]}"#,
    ] {
        range.drops(outer, message(NODE, outer, 0, NANOS), "transport_bad");
    }
    let good = Shot::of(&alice, "s", |_| {}).secure().to_string();
    let bad_secure = [
        "{}".to_owned(),
        "null".to_owned(),
        "{\"protocol\":".to_owned(),
        deep.clone(),
        good[..good.len() - 1].to_owned(),
        good.replacen("\"caller\":\"", "\"caller\":7,\"x\":\"", 1),
        good.replacen("\"request\":\"", "\"request\":\"!", 1),
        good.replacen("\"signature\":\"", "\"signature\":null,\"x\":\"", 1),
    ];
    for secure in &bad_secure {
        let name = secure.chars().take(60).collect::<String>();
        // a signature of null is none
        let reason = if secure.contains("\"signature\":null") { "sig_bad" } else { "secure_bad" };
        range.drops(&name, message(NODE, transport(secure.as_bytes(), &own), 0, NANOS), reason);
    }
    let document = Shot::of(&alice, "s", |_| {}).document;
    let bad_documents = [
        "{}".to_owned(),
        "null".to_owned(),
        "{\"protocol\":".to_owned(),
        deep,
        r#"{"protocol":"io.choria.protocol.v2.reply"}"#.to_owned(),
        document[..document.len() - 1].to_owned(),
        document.replacen("\"id\":\"s\"", "\"id\":7", 1),
        document.replacen("\"time\":", "\"time\":\"x\",\"y\":", 1),
        document.replacen("\"message\":\"", "\"message\":\"!", 1),
    ];
    for document in &bad_documents {
        let name = document.chars().take(60).collect::<String>();
        range.drops(&name, Shot::text(&alice, "s", document.clone()).sent(), "secure_bad");
    }

    let documents = [
        document.replacen("\"agent\":\"rpcutil\"", "\"agent\":\"rpcutil\",\"agent\":\"discovery\"", 1),
        document.replacen("\"agent\":\"rpcutil\"", "\"agent\":\"rpcutil\",\"Agent\":\"discovery\"", 1),
        document.replacen("\"caller\":", "\"Caller\":\"up=root\",\"caller\":", 1),
    ];
    for twice in documents {
        assert_ne!(twice, document);
        range.drops(&twice, Shot::text(&alice, "s", twice.clone()).sent(), "json_ambiguous");
    }
    let twice = good.replacen("\"caller\":", "\"Caller\":\"x\",\"caller\":", 1);
    range.drops(
        "secure request",
        message(NODE, transport(twice.as_bytes(), &own), 0, NANOS),
        "json_ambiguous",
    );
    let wire = transport(good.as_bytes(), &own);
    let twice = wire.replacen("\"data\":", "\"Data\":\"\",\"data\":", 1);
    range.drops("transport", message(NODE, twice, 0, NANOS), "json_ambiguous");
    let twice = wire.replacen("\"reply\":", "\"REPLY\":\"\",\"reply\":", 1);
    range.drops("headers", message(NODE, twice, 0, NANOS), "json_ambiguous");
    for (id, body) in [
        ("j1", r#"{"agent":"rpcutil","action":"ping","action":"inventory","data":{}}"#),
        ("j2", r#"{"agent":"rpcutil","action":"ping","Action":"inventory","data":{}}"#),
        ("j3", r#"{"agent":"rpcutil","action":"ping","data":{"fact":"a","fact":"b"}}"#),
        ("j4", r#"{"agent":"rpcutil","action":"ping","data":{"x":[{"a":1,"A":2}]}}"#),
    ] {
        range.drops(body, Shot::asking(&alice, id, "rpcutil", body).sent(), "json_ambiguous");
    }

    let fits = choria_conformance::RX - 512;
    for (size, line) in [
        (fits, "dropped transport_bad ready".to_owned()),
        (fits + 1, format!("oversize {NODE} {} ready", fits + 1)),
        (2 << 20, format!("oversize {NODE} {} ready", 2 << 20)),
    ] {
        let blanks = i64::try_from(size)?;
        range.cases.is(format!("{size} blanks"), message(NODE, "", blanks, NANOS), line);
        range.control();
    }
    let sent = range.sent;
    // four bodies were read before they were found ambiguous
    let validated = sent + 4;
    let counted = vec![
        Line::Has(format!("validated: {validated},")),
        Line::Has("too_large: 2,".into()),
        Line::Has(format!("replies: {sent},")),
    ];
    range.cases.add("counters", Case::new(Kind::Counters), counted);
    range.cases.hold()?;
    for (row, tried, seen) in [
        (
            242,
            "27 broken transports, secure requests and requests",
            "dropped and counted, the next is served",
        ),
        (
            243,
            "names twice or in another case: transport, headers, secure request, request, body, inputs",
            "json_ambiguous",
        ),
        (
            256,
            "a message of a byte more than fits, one of 2 MiB",
            "drained and counted, the connection lives",
        ),
    ] {
        choria_rows::row(row, format!("{tried}: a connected device"), seen);
    }
    Ok(())
}

/// Only what has a time is served, but for what a lost device is found with.
#[test]
fn without_a_clock_a_member_only_says_that_it_is_there() -> Result<()> {
    let mut range = Range::new();
    let alice = range.alice.clone();
    let lost = |shot: Shot| shot.with(|shot| shot.now = choria_conformance::NEVER);
    // without a time no token is expired, and none is too early: those of the vectors begin later than 1970
    let early = lost(Shot::of(&alice, "r1", |_| {}));
    range.cases.is("a token of today", early.sent(), "dropped token_early ready");
    let body = STANDARD.encode("{}");
    let odd = Shot::of(&alice, "r2", |document| document["message"] = body.into());
    range.answers("a body without anything", &odd, "answer status=4 ");
    range.control();
    range.cases.hold().map(drop)
}
