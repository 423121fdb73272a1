//! Signatures per second of one core, without transport:
//! `cargo test --release -p choria-aaa --test aaa speed -- --ignored --nocapture`

use std::sync::Arc;
use std::time::Instant;

use choria_aaa::{Audit, AuthorizerKind, Collectives, Metrics, SignRequest, Signer, SignerParts};

use crate::fixture::{Site, request};

#[test]
#[ignore = "a measurement"]
fn signatures_per_second() {
    let mut site = Site::new();
    site.set("/basicjwt_signer/rate", 0);
    let config = site.load().expect("a configuration").signer.expect("a signer");
    for authorizer in [AuthorizerKind::ActionList, AuthorizerKind::Opa] {
        let metrics = Arc::new(Metrics::new("speed").expect("metrics"));
        let parts = SignerParts {
            authorizer,
            site: "speed".to_owned(),
            collectives: Collectives::Common(vec!["choria".to_owned()]),
            audit: Audit::new(&[], false, "speed", None, Arc::clone(&metrics)).expect("no audit"),
            metrics,
            state: Arc::default(),
        };
        let signer = Signer::new(&config, parts).expect("a signer");
        let (seed, token) = site.token("up=bob", |claims| claims.agents = vec!["*".to_owned()]);
        let asked: Vec<_> = (0..4000)
            .map(|_| {
                let bytes = request("up=bob", "rpcutil", "ping").to_bytes().expect("bytes");
                let proof = hex::encode(seed.sign(&bytes));
                (bytes, proof)
            })
            .collect();
        let started = Instant::now();
        for (bytes, proof) in &asked {
            let signed =
                signer.sign(SignRequest { request: bytes, token: &token, signature: proof, from: "here" });
            assert!(signed.is_ok(), "{signed:?}");
        }
        let rate = asked.len() as f64 / started.elapsed().as_secs_f64();
        println!("{}: {rate:.0} signatures/s", authorizer.name());
    }
}
