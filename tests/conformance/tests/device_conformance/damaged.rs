//! What is broken in ways that nobody thought of: no verdict is expected, but the device's is the host's.

use anyhow::{Context as _, Result, ensure};
use choria_conformance::Kind;
use serde_json::json;

use crate::bench::{Case, Cases, fixture, key_of};
use crate::forge::NOW;
use crate::shot::transport;

/// Numbers that are the same in every run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % u64::try_from(limit.max(1)).unwrap()).unwrap()
    }

    /// One byte changed, cut off, doubled, or swapped with a piece from elsewhere.
    fn damage(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut damaged = bytes.to_vec();
        let at = self.below(bytes.len());
        match self.below(5) {
            0 => damaged[at] ^= 1 << self.below(8),
            1 => damaged[at] = b"\"\\{}[],:.0e-\n\x00\xff"[self.below(15)],
            2 => damaged.truncate(at),
            3 => damaged.insert(at, bytes[self.below(bytes.len())]),
            _ => {
                let from = self.below(bytes.len());
                let piece: Vec<u8> = bytes[from..].iter().take(1 + self.below(12)).copied().collect();
                damaged.splice(at..at, piece);
            }
        }
        damaged
    }
}

#[test]
fn documents_that_could_be_read_in_two_ways() -> Result<()> {
    let mut cases = Cases::default();
    let deep = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
    for (document, line) in [
        (r#"{"a":1,"b":[{"a":1},{"a":2}],"c":{"a":{}}}"#.to_owned(), "ok"),
        (r#"{"a":1,"a":2}"#.to_owned(), "refused a JSON member name repeats"),
        (r#"{"a":1,"A":2}"#.to_owned(), "refused a JSON member name repeats"),
        (r#"{"a":1,"\u0041":2}"#.to_owned(), "refused a JSON member name repeats"),
        (r#"{"x":[{"y":{"a":1,"A":2}}]}"#.to_owned(), "refused a JSON member name repeats"),
        (r#"{"a":1,}"#.to_owned(), "refused not valid JSON"),
        (r#"{"a":01}"#.to_owned(), "refused not valid JSON"),
        (r#"{"a":"\ud800"}"#.to_owned(), "refused not valid JSON"),
        ("{\"a\":\"\u{1}\"}".to_owned(), "refused not valid JSON"),
        (r#"{"a":1} x"#.to_owned(), "refused not valid JSON"),
        ("nul".to_owned(), "refused not valid JSON"),
        (deep(20), "ok"),
        (deep(5000), "refused JSON nested deeper"),
    ] {
        let name = document.chars().take(60).collect::<String>();
        cases.begins(name, Case::new(Kind::Json).bytes(document), line);
    }
    cases.begins("no text", Case::new(Kind::Json).bytes(b"{\"a\":\"\xff\"}"), "refused not valid JSON");
    cases.hold().map(drop)
}

#[test]
fn what_is_damaged_is_read_alike() -> Result<()> {
    let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15);
    let mut cases = Cases::default();
    let messages = fixture("protocol/v2_messages.json")?;
    for name in ["request_direct", "request_delegated"] {
        let message = &messages["messages"][name];
        let text = |key: &str| message[key].as_str().with_context(|| key.to_owned());
        for n in 0..60 {
            for (kind, key) in [(Kind::Request, "transport_json"), (Kind::Document, "request_json")] {
                let bytes = numbers.damage(text(key)?.as_bytes());
                cases.add(format!("{name} {key} {n}"), Case::new(kind).bytes(bytes), Vec::new());
            }
            let secure = numbers.damage(text("secure_request_json")?.as_bytes());
            let wire = transport(&secure, &json!({"reply": "choria.reply.x.y"}));
            cases.add(format!("{name} secure {n}"), Case::new(Kind::Request).bytes(wire), Vec::new());
        }
    }
    let reply = messages["messages"]["reply_signed"]["secure_reply_json"].as_str().context("no reply")?;
    let tokens = fixture("tokens/chain.json")?;
    let org = key_of(tokens["keys"]["org_issuer"]["public_hex"].as_str().context("no key")?);
    let alice = tokens["tokens"]["alice"]["token"].as_str().context("no token")?;
    let filters = fixture("filters/filters.json")?;
    let facts = filters["facts_json"].as_str().context("no facts")?;
    let filter = json!({"fact":[{"fact":"arr.0","operator":">=","value":"1.5"}],"identity":["n1","/x/"],
        "compound":[[{"expr":"true"}]],"agent":["rpcutil"],"cf_class":["c"]})
    .to_string();
    let broker =
        "INFO {\"a\":1}\r\nMSG a.b 7 r.s 5\r\nhello\r\nHMSG a 1 12 14\r\nNATS/1.0\r\n\r\nok\r\n-ERR 'x'\r\n";
    for n in 0..60 {
        cases.add(
            format!("reply {n}"),
            Case::new(Kind::Reply).bytes(numbers.damage(reply.as_bytes())),
            vec![],
        );
        // a token is text wherever it comes from
        let token = String::from_utf8_lossy(&numbers.damage(alice.as_bytes())).into_owned();
        let verify = Case::new(Kind::Token).bytes("client").trust(&[("choria", org)]).number(NOW);
        cases.add(format!("token {n}"), verify.bytes(&token), Vec::new());
        cases.add(format!("peek {n}"), Case::new(Kind::Peek).bytes("client").bytes(token), Vec::new());
        let asked = Case::new(Kind::Filter).bytes("n1").texts(&["rpcutil"]).texts(&["c"]);
        let asked = asked.bytes(numbers.damage(facts.as_bytes())).bytes(numbers.damage(filter.as_bytes()));
        cases.add(format!("filter {n}"), asked, Vec::new());
        let frames = Case::new(Kind::Frames).bytes(numbers.damage(broker.as_bytes())).number(7).number(8192);
        cases.add(format!("frames {n}"), frames, Vec::new());
        cases.add(format!("json {n}"), Case::new(Kind::Json).bytes(numbers.damage(facts.as_bytes())), vec![]);
    }
    let lines = cases.hold()?;
    let refused = lines.iter().filter(|line| line.contains("refused")).count();
    ensure!(lines.len() == 720 && refused > 300, "{} lines, {refused} refused", lines.len());
    Ok(())
}
