//! The DDLs that are part of the program.

use super::Ddl;

/// Name and text of each built-in agent.
const TEXTS: [(&str, &str); 5] = [
    ("aaa_signer", include_str!("builtin/aaa_signer.json")),
    ("choria_provision", include_str!("builtin/choria_provision.json")),
    ("choria_util", include_str!("builtin/choria_util.json")),
    ("discovery", include_str!("builtin/discovery.json")),
    ("rpcutil", include_str!("builtin/rpcutil.json")),
];

/// The built-in DDL of an agent.
pub fn builtin(agent: &str) -> Option<Ddl> {
    let (_, text) = TEXTS.iter().find(|(name, _)| *name == agent)?;
    // The tests below parse each of them, so a built-in text cannot fail here.
    Ddl::parse(text.as_bytes()).ok()
}

/// Names of the built-in DDLs, sorted.
pub fn builtin_names() -> impl Iterator<Item = &'static str> {
    TEXTS.iter().map(|(name, _)| *name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_builtin_parses_under_its_own_name() {
        for (name, text) in TEXTS {
            let ddl = Ddl::parse(text.as_bytes()).unwrap_or_else(|e| panic!("{name}: {e}"));
            assert_eq!(ddl.name(), name);
            for action in &ddl.actions {
                assert!(!action.description.is_empty(), "{name}#{}", action.name);
                for (input, declared) in &action.input {
                    assert!(
                        !declared.prompt.is_empty() && !declared.description.is_empty(),
                        "{name} {input}"
                    );
                }
            }
        }
        assert!(builtin("rpcutil").is_some() && builtin("nope").is_none());
    }
}
