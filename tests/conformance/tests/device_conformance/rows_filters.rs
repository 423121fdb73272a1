//! Rows of 14.6 about filters, on the device: what it cannot evaluate does not match, and costs nothing.

use anyhow::Result;
use choria_conformance::Kind;
use serde_json::{Value, json};

use crate::bench::{Case, Cases};
use crate::forge::key;
use crate::shot::{Caller, READY, Shot, member};

fn asked(filter: &Value) -> Case {
    let case = Case::new(Kind::Filter).bytes("n1.example.net").texts(&["rpcutil"]).texts(&["c"]);
    case.bytes(r#"{"s":"x","n":1}"#).bytes(filter.to_string())
}

#[test]
fn t_252_t_253_t_254_filters_that_lead_nowhere() -> Result<()> {
    let mut cases = Cases::default();
    cases.begins("none", asked(&json!({})), "match restrictive=false");
    cases.begins(
        "all",
        asked(&json!({"identity":["n1.example.net"],"agent":["rpcutil"],"cf_class":["c"]})),
        "match ",
    );
    cases.begins("a fact", asked(&json!({"fact":[{"fact":"s","operator":"==","value":"X"}]})), "match ");
    cases.begins("unknown and empty", asked(&json!({"future":[]})), "match ");
    let path = vec!["a"; 5000].join(".");
    let hostile = [
        ("a path of 5,000 parts", json!({"fact":[{"fact":path,"operator":"==","value":"x"}]})),
        ("a path of 10 KiB", json!({"fact":[{"fact":"a".repeat(10_000),"operator":"==","value":"x"}]})),
        ("a pattern without end", json!({"identity":["/(a{1,1000}){1,1000}/"]})),
        ("one as a fact", json!({"fact":[{"fact":"s","operator":"=~","value":"(a{1,1000}){1,1000}"}]})),
        ("a pattern of 10 KiB", json!({"cf_class":[format!("/{}/", "(a|b)*".repeat(1700))]})),
        ("a pattern that every node matches", json!({"identity":["/n1/"]})),
        ("of an agent", json!({"agent":["/rpc/"]})),
        ("of a class", json!({"cf_class":["/c/"]})),
        ("an expression", json!({"compound":[[{"expr":"true"}]]})),
        ("a kind of tomorrow", json!({"future":["x"]})),
        ("half a fact", json!({"fact":[{"fact":"s","operator":"=="}]})),
        ("a fact as text", json!({"fact":["s==x"]})),
        ("65 facts", json!({"fact":vec![json!({"fact":"s","operator":"==","value":"x"}); 65]})),
        ("65 classes", json!({"cf_class":vec!["c"; 65]})),
    ];
    for (name, filter) in &hostile {
        cases.begins(*name, asked(filter), "no match ");
    }
    cases.begins("agent and Agent", asked(&json!({"agent":[],"Agent":[]})), "refused ");
    cases.begins("no list", asked(&json!({"agent":null})), "refused ");

    // and the same in requests to a connected device, which goes on
    let alice = Caller::fleet("up=alice", &key(3), &key(1));
    cases.begins("start", member(&[("choria", key(1).verifying_key().to_bytes())]), READY);
    let mut filtered = 0;
    for (n, (name, filter)) in hostile.iter().enumerate() {
        let shot = Shot::of(&alice, &format!("f{n}"), |document| document["filter"] = filter.clone());
        // five layers of a filter of 10 KiB are more than a device reads: it is never looked at
        let size = shot.wire().len();
        if size > choria_conformance::RX - 512 {
            continue;
        }
        cases.is(*name, shot.sent(), "dropped filtered ready");
        filtered += 1;
        let good = Shot::of(&alice, &format!("g{n}"), |_| {});
        cases.begins("the control", good.sent(), "call rpcutil#ping by up=alice status=0 ");
    }
    let path = vec!["a"; 1500].join(".");
    let shot = Shot::of(&alice, "long", |document| {
        document["filter"] = json!({"fact":[{"fact":path,"operator":"==","value":"x"}]});
    });
    cases.is("a path that still fits", shot.sent(), "dropped filtered ready");
    assert!(filtered >= 9, "{filtered}");
    cases.hold()?;
    for (row, tried) in [
        (252, "paths of 5,000 parts and of 10 KiB, one of 1,500 in a request"),
        (253, "(a{1,1000}){1,1000} and a pattern of 10 KiB"),
        (254, "patterns, expressions and a kind that nobody knows yet"),
    ] {
        choria_rows::row(row, format!("{tried}: on the device"), "no match; the next is served");
    }
    Ok(())
}
