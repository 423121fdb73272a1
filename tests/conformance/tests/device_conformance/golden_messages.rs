//! Messages of protocol v2: taken apart, written again to the same bytes, and accepted or not as upstream does.

use anyhow::{Context as _, Result};
use choria_conformance::{Kind, TX};
use serde_json::{Value, json};

use crate::bench::{Case, Cases, Line, digest, fixture, key_of};
use crate::forge::NOW;
use crate::shot::transport;

/// What is written again, or that it is more than a device ever sends.
fn again(text: &str) -> String {
    if text.len() <= TX { digest(text) } else { "no-room".to_owned() }
}

fn hops(wire: &str) -> Vec<String> {
    let wire: Value = serde_json::from_str(wire).unwrap();
    let hops = wire["headers"]["trace"].as_array().cloned().unwrap_or_default();
    hops.iter().flat_map(|hop| [0, 1, 2].map(|n| hop[n].as_str().unwrap().to_owned())).collect()
}

#[test]
fn every_message_is_read_in_place_and_written_again() -> Result<()> {
    let vectors = fixture("protocol/v2_messages.json")?;
    let mut cases = Cases::default();
    for (name, message) in vectors["messages"].as_object().context("no messages")? {
        let text = |key: &str| message[key].as_str();
        if let (Some(secure), Some(request)) =
            (text("secure_request_json"), text("request_json").or(text("request_json_signed")))
        {
            let wire = text("transport_json")
                .map_or_else(|| transport(secure.as_bytes(), &json!({})), str::to_owned);
            let mut lines = vec![
                Line::Begins(format!("data={} ", digest(secure))),
                Line::Has(format!(" request={} again={} ", digest(request), again(secure))),
                Line::Has(format!(" again={}", again(request))),
            ];
            lines.extend(text("body_utf8").map(|body| Line::Has(format!(" ok body={} ", digest(body)))));
            cases.add(name, Case::new(Kind::Request).bytes(wire), lines);
        }
        for wire in [text("transport_json"), text("after_federation_broker_json")].into_iter().flatten() {
            let lines = vec![Line::Begins("ok data=".into()), Line::Has(format!(" again={}", again(wire)))];
            cases.add(name, Case::new(Kind::Transport).bytes(wire).texts(&hops(wire)), lines);
        }
    }
    assert!(cases.hold()?.len() >= 9);
    Ok(())
}

#[test]
fn replies_are_written_and_read_again() -> Result<()> {
    let vectors = fixture("protocol/v2_messages.json")?;
    let signed = &vectors["messages"]["reply_signed"];
    let (document, body) = (
        signed["reply_json"].as_str().context("no reply")?,
        signed["body_utf8"].as_str().context("no body")?,
    );
    let mut cases = Cases::default();
    for name in ["reply_signed", "reply_unsigned"] {
        let secure = vectors["messages"][name]["secure_reply_json"].as_str().context("no secure reply")?;
        let line = format!(
            "reply={} signed={} again={} body={} again={}",
            digest(document),
            name == "reply_signed",
            digest(secure),
            digest(body),
            digest(document)
        );
        cases.is(name, Case::new(Kind::Reply).bytes(secure), line);
        let changed = secure.replace("\"reply\":\"eyJw", "\"reply\":\"eyJx");
        cases.begins("its hash", Case::new(Kind::Reply).bytes(changed), "refused secure_bad ");
    }
    cases.hold().map(drop)
}

/// Replies as a device builds them: what does not fit its buffers, or its broker, becomes a refusal of its own.
#[test]
fn replies_are_built_alike_and_never_cut() -> Result<()> {
    let mut cases = Cases::default();
    let mut alike = Vec::new();
    for signed in [false, true] {
        for (size, payload) in [(0, 4096), (400, 4096), (900, 4096), (900, 2048), (1100, 4096), (400, 64)] {
            let data = json!({"text": "x".repeat(size)}).to_string();
            let case = Case::new(Kind::Respond);
            let case = case.bytes("choria.reply.x.y").bytes("req1").bytes("rpcutil").bytes("ping").number(0);
            let case = case.bytes("OK").bytes(data).bytes("nats://broker.example.net:4222");
            let case = case.bytes(if signed { [5; 32].as_slice() } else { &[] });
            let case = case.bytes("the.server.token").number(NOW * 1_000_000_000).number(payload);
            let line = if payload == 64 { "refused" } else { "ok sent=" };
            cases.begins(format!("{size} bytes, signed {signed}"), case, line);
            alike.push((size, payload, signed));
        }
    }
    let pong = Case::new(Kind::Respond);
    let pong = pong.bytes("choria.reply.x.y").bytes("req1").bytes("discovery").bytes("").number(0).bytes("");
    cases.begins("pong", pong.bytes("").bytes("").bytes("").bytes("").number(1).number(4096), "ok sent=");
    let lines = cases.hold()?;
    // too much for the broker's payload, or for the scratch that holds body and document: what is sent then is a refusal
    let length = |size, payload, signed| -> Result<usize> {
        let at = alike.iter().position(|case| *case == (size, payload, signed)).context("no such case")?;
        let sent = lines[at].strip_prefix("ok sent=").and_then(|rest| rest.split_once(':'));
        Ok(sent.context("nothing was sent")?.0.parse()?)
    };
    for signed in [false, true] {
        assert!(length(900, 2048, signed)? < length(400, 4096, signed)?);
        assert_eq!(length(1100, 4096, signed)?, length(900, 2048, signed)?);
        assert!(length(900, 4096, signed)? > 2048);
    }
    assert!(length(900, 4096, true)? > length(900, 4096, false)?);
    Ok(())
}

#[test]
fn all_fourteen_verdicts_are_upstreams() -> Result<()> {
    let vectors = fixture("protocol/v2_secure_request_verdicts.json")?;
    let mut cases = Cases::default();
    for case in vectors["cases"].as_array().context("no cases")? {
        let name = case["name"].as_str().context("no name")?;
        let issuers = case["issuers"].as_object().context("no issuers")?;
        let issuers: Vec<(&str, [u8; 32])> =
            issuers.iter().map(|(name, key)| (name.as_str(), key_of(key.as_str().unwrap()))).collect();
        let secure = case["secure_request_json"].as_str().context("no request")?;
        let verdict = if case["expect"] == "allow" { "ok by=" } else { "refused " };
        for any in [0, 1] {
            let asked = Case::new(Kind::Accept).trust(&issuers).number(any).number(NOW);
            cases.begins(name, asked.bytes(transport(secure.as_bytes(), &json!({}))), verdict);
        }
    }
    assert_eq!(cases.hold()?.len(), 28);
    Ok(())
}

#[test]
fn doubtful_requests_are_refused() -> Result<()> {
    let vectors = fixture("protocol/v2_messages.json")?;
    let good = vectors["messages"]["request_direct"]["request_json"].as_str().context("no request")?;
    let mut cases = Cases::default();
    let mut add = |text: String, line: &str| {
        cases.begins(text.clone(), Case::new(Kind::Document).bytes(text), line);
    };
    add(good.to_owned(), "ok ");
    for ttl in ["0", "-5", "9223372036854775808", "\"60\"", "null", "1.5", "[]"] {
        add(good.replace("\"ttl\":60", &format!("\"ttl\":{ttl}")), "refused secure_bad ");
    }
    add(good.replace("\"ttl\":60", "\"ttl\":60,\"TTL\":61"), "refused json_ambiguous ");
    add(good.replace("\"ttl\":60", "\"ttl\":60,\"unknown\":{}"), "ok ");
    add(good.replace("\"agent\":\"rpcutil\",\"ttl\"", "\"agent\":\"\",\"ttl\""), "refused secure_bad ");
    add(good.replace("v2.request", "v2.reply"), "refused secure_bad ");
    add(good[..good.len() - 1].to_owned(), "refused secure_bad ");
    cases.hold().map(drop)
}
