//! Whatever a person or a peer writes, readers answer and do not panic.
#![allow(clippy::let_underscore_must_use, clippy::unwrap_used)]

use choria_client::discovery::flatfile::{ListFormat, ListOptions, from_text};
use choria_client::{Amount, LimitMethod, ReplyVerifier, targets};
use choria_protocol::Filter;
use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn replies_of_any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        prop_assert!(ReplyVerifier::new(None).read(&bytes, "id").is_err());
    }

    #[test]
    fn lists_of_any_text(text in r#"[\[\]{}:," a-z0-9.\n#-]{0,80}"#, path in "[a-z.#0-9]{0,12}") {
        for format in [ListFormat::Text, ListFormat::Json, ListFormat::Yaml, ListFormat::Results] {
            let options = ListOptions { format, path: Some(path.clone()), all_results: true };
            if let Ok(found) = from_text(&text, &options, &Filter::default()) {
                prop_assert!(found.identities().iter().all(|name| choria_token::names::valid_identity(name)));
            }
        }
    }

    #[test]
    fn limits_keep_what_was_there(count in 1_usize..200, text in "[0-9]{1,3}%?", seed in any::<u64>()) {
        let nodes: Vec<String> = (0..count).map(|n| format!("n{n}")).collect();
        if let Ok(amount) = text.parse::<Amount>()
            && let Ok(kept) = targets::limit(nodes.clone(), amount, LimitMethod::Random, seed)
        {
            let unique: std::collections::HashSet<_> = kept.iter().collect();
            prop_assert_eq!(unique.len(), kept.len());
            prop_assert_eq!(kept.len(), amount.of(count));
            prop_assert!(kept.iter().all(|node| nodes.contains(node)));
        }
    }
}
