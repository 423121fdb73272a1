//! Public keys whose seeds are published as test data, docs/spec/10 K12.

use crate::key::PublicKey;

/// Public keys of every seed in `tests/fixtures` and in upstream's own test data.
const PUBLISHED: &[&str] = &[
    // org_issuer
    "2948fe63b93079bfef6328d9349ac60b6a6f0c50cfa8b1c7a3bff9e82f8c87ff",
    // other_issuer
    "2d250cbdf87734527880237ce6450f4893ab4d8f3422725d36e110212b9e17bf",
    // aaa_chain_issuer
    "5d009d4fbffe4cb72904e5e636e11a64c4f739bd3eb17540d6de9112cc088d4a",
    // provisioner
    "904850fa6dc8f802a794abe29aa844ee21da73b2b429e2455d155c88c091396f",
    // request_signer
    "da7f689484164aaa71c93b8ad1b9ea772785c73a74e448b0fecbea29bf0ae3bc",
    // alice
    "32728c7fbb8c84a16e4bfb222c9706bd0f991b82d93321eba649bd36549a2bb1",
    // mail_user
    "0545da3a45a58c2edc540ba6d5cd400882c66734e73a21544c36ef25971f12e5",
    // bob
    "24aeb4cf84d27c335050fcdd61fd8262b964e58c176400fe948eaa1bfade198d",
    // observer
    "c08d12d0792388a951d6539171b6230c51f228284164519048c106e9e7a5f6ee",
    // server_direct
    "379ae6a50860b24eca95ab2b10c744e935feaa5c61d7aa2e3befe5eebe122d6b",
    // server_chained
    "96b47adc3377426530e6e7eff372248942a0ab918ef257432f6adbeb8b221bdb",
    // forger
    "4b00f22367621519e3820fe1a0cdb7e5fe411c72a9342a70f27edf4bb0a30a8e",
    // upstream signer
    "3899a8bb4b6e6e09c91c27f28f086f0b40f1d3091a8c83c07320bc6cfdf67730",
    // upstream other
    "1454a451cdefe5937da64a79faffa6e54f3c083ae78f72bb7f39a7aa37975c8b",
];

/// Whether the private half of this key is published. Anything that loads a key for real use refuses such a key.
pub fn is_published_test_key(key: &PublicKey) -> bool {
    PUBLISHED.contains(&key.to_hex().as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_of_the_vectors_is_listed() {
        let text = std::fs::read_to_string(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../../tests/fixtures/tokens/chain.json"
        ));
        let vectors: serde_json::Value = serde_json::from_str(&text.unwrap()).unwrap();
        for (name, key) in vectors["keys"].as_object().unwrap() {
            let key = PublicKey::from_hex(key["public_hex"].as_str().unwrap()).unwrap();
            assert!(is_published_test_key(&key), "{name}");
        }
    }
}
