//! Tokens: upstream's verdicts, and what is read of those that are good.

use anyhow::{Context as _, Result};
use choria_conformance::Kind;
use serde_json::Value;

use crate::bench::{Case, Cases, Line, digest, fixture, key_of, upstream};
use crate::forge::NOW;

fn text<'v>(value: &'v Value, name: &str) -> &'v str {
    value[name].as_str().unwrap_or_else(|| panic!("no {name} in {value}"))
}

fn verify(kind: &str, trust: &[(&str, [u8; 32])], token: &str) -> Case {
    Case::new(Kind::Token).bytes(kind).trust(trust).number(NOW).bytes(token)
}

#[test]
fn every_verdict_is_upstreams() -> Result<()> {
    let vectors = fixture("tokens/verdicts.json")?;
    let mut cases = Cases::default();
    for case in vectors["cases"].as_array().context("no cases")? {
        let name = text(case, "name");
        let key = key_of(text(case, "verify_with_hex"));
        let verdict = if case["expect"] == "ok" { "ok " } else { "refused " };
        let word = match name {
            "forged_chain_issuer" | "forged_with_real_issuer_name" | "tcs_of_other_user" => "chain_forged ",
            "jti_not_from_iat" => "chain_forged ",
            "issuer_expired" => "issuer_expired ",
            "expired" => "token_expired ",
            "direct_nbf_future" => "token_early ",
            "direct_wrong_purpose" => "kind_mismatch ",
            "wrong_issuer_bob" => "sig_bad ",
            "no_issexp" | "no_public_key_chained" => "chain_incomplete ",
            "alg_none" | "alg_hs256" => "alg_refused ",
            _ => "",
        };
        let case = verify(text(case, "kind"), &[("", key)], text(case, "token"));
        cases.begins(name, case, format!("{verdict}{word}"));
    }
    assert_eq!(cases.hold()?.len(), 39);
    Ok(())
}

#[test]
fn claims_of_the_chain_vectors_are_read() -> Result<()> {
    let vectors = fixture("tokens/chain.json")?;
    let org = key_of(text(&vectors["keys"]["org_issuer"], "public_hex"));
    let mut cases = Cases::default();
    for (name, entry) in vectors["tokens"].as_object().context("no tokens")? {
        let token = text(entry, "token");
        let Some(claims) = entry["claims_json"].as_str() else { continue };
        let claims: Value = serde_json::from_str(claims)?;
        let kind = match text(&claims, "purpose") {
            "choria_client_id" => "client",
            "choria_server" => "server",
            _ => "provisioning",
        };
        let subject = match kind {
            "client" => format!("ok caller={} ", text(&claims, "callerid")),
            "server" => format!("ok identity={} ", text(&claims, "identity")),
            _ => format!("ok access={} ", digest(text(&claims, "cht"))),
        };
        let mut lines = vec![Line::Begins(subject.clone())];
        if let Some(key) = claims["public_key"].as_str() {
            lines.push(Line::Has(format!(" key={key} ")));
        }
        if let Some(jti) = claims["jti"].as_str() {
            lines.push(Line::Has(format!(" jti={jti}")));
        }
        let chain = claims["iss"].as_str().and_then(|issuer| issuer.strip_prefix("C-"));
        if kind == "client" {
            // NAMES of permissions in their order: the first two decide about requests
            let bits = ["fleet_management", "signed_fleet_management", "authentication_delegator"];
            let set = |name: &&str| claims["permissions"][*name] == true;
            let known: u32 = bits.iter().enumerate().filter(|(_, n)| set(n)).map(|(bit, _)| 1 << bit).sum();
            if known > 0
                && claims["permissions"]
                    .as_object()
                    .is_some_and(|all| all.len() == known.count_ones() as usize)
            {
                lines.push(Line::Has(format!(" Permissions({known}) ")));
            }
            let policy = claims["opa_policy"].is_string();
            lines.push(if policy {
                Line::Lacks(" policy=0 ".into())
            } else {
                Line::Has(" policy=0 ".into())
            });
        }
        match chain.filter(|_| kind != "provisioning").and_then(|chain| chain.split_once('.')) {
            Some((jti, key)) => lines.push(Line::Has(format!(" chain={jti}:{key}"))),
            None => lines.push(Line::Lacks(" chain=".into())),
        }
        // tokens of this file are all of the organization's own fleet; provisioning tokens may be signed otherwise
        cases.add(name.as_str(), verify(kind, &[("choria", org)], token), lines);
        cases.begins(name.as_str(), Case::new(Kind::Peek).bytes(kind).bytes(token), subject);
    }
    assert!(cases.hold()?.len() >= 18);
    Ok(())
}

#[test]
fn upstreams_own_tokens() -> Result<()> {
    let mut cases = Cases::default();
    if let (Some(token), Some(good), Some(other)) = (
        upstream("tokens/upstream/ed25519/good-provisioning.jwt"),
        upstream("tokens/upstream/ed25519/signer.public"),
        upstream("tokens/upstream/ed25519/other.public"),
    ) {
        let token = token.trim_end();
        cases.begins("good", verify("provisioning", &[("", key_of(&good))], token), "ok ");
        cases.begins("other", verify("provisioning", &[("", key_of(&other))], token), "refused sig_bad ");
        cases.begins("client", verify("client", &[("", key_of(&good))], token), "refused kind_mismatch ");
    }
    for (file, secure) in [("secure", true), ("insecure", false)] {
        let Some(token) = upstream(&format!("tokens/upstream/broker-provisioning/{file}.jwt")) else {
            continue;
        };
        let peek = Case::new(Kind::Peek).bytes("provisioning").bytes(token.trim_end());
        cases.add(file, peek, vec![Line::Begins("ok ".into()), Line::Has(format!(" secure={secure} "))]);
        cases.begins(
            file,
            verify("provisioning", &[("", [7; 32])], token.trim_end()),
            "refused alg_refused ",
        );
    }
    if let Some(token) = upstream("tokens/upstream/docs-2022/server-chained.jwt") {
        let peek = Case::new(Kind::Peek).bytes("server").bytes(token.trim_end());
        cases.begins("docs-2022", peek, "ok identity=");
    }
    cases.hold().map(drop)
}
