//! Names of symbols, as far as a reader of a report needs them.

/// The identifiers of a mangled name, outermost first: `agent_core::json::text::unescape_in_place`. Types that a generic was
/// made for follow behind; a name that is not mangled stays as it is.
pub(super) fn path(symbol: &str) -> String {
    let Some(mut rest) = symbol.strip_prefix("_R").or_else(|| symbol.strip_prefix("_ZN")) else {
        return symbol.to_owned();
    };
    let mut found = Vec::new();
    while let Some(first) = rest.chars().next() {
        match first {
            '0'..='9' => {
                let digits =
                    if first == '0' { 1 } else { rest.len() - rest.trim_start_matches(is_digit).len() };
                let (length, after) = rest.split_at(digits);
                let length: usize = length.parse().unwrap_or(0);
                let after = if length > 0 { after.strip_prefix('_').unwrap_or(after) } else { after };
                let Some((name, after)) = after.split_at_checked(length) else { break };
                if length > 0 {
                    found.push(name);
                }
                rest = after;
            }
            // Disambiguators, back references, lifetimes and constants end with an underscore.
            's' | 'B' | 'L' | 'G' | 'K' => rest = rest.split_once('_').map_or("", |(_, after)| after),
            other => rest = rest.get(other.len_utf8()..).unwrap_or_default(),
        }
    }
    found.join("::")
}

fn is_digit(c: char) -> bool {
    c.is_ascii_digit()
}

/// Where a call ends in a panic.
pub(super) fn is_panic(path: &str) -> bool {
    let last = path.rsplit("::").next().unwrap_or_default();
    path.starts_with("core::")
        && (path.starts_with("core::panicking::")
            || last.ends_with("_fail")
            || last.ends_with("_failed")
            || path.contains("::panic_"))
}

/// Code that belongs to nobody: it does what its callers ask for.
pub(super) fn is_passed_through(path: &str) -> bool {
    path.starts_with("core::") || path.starts_with("OUTLINED_FUNCTION_")
}

#[cfg(test)]
mod tests {
    use super::{is_panic, path};

    #[test]
    fn names_of_both_manglings() {
        for (symbol, read) in [
            (
                "_RNvNtCse4bOrpB5N9R_4core9panicking18panic_bounds_check",
                "core::panicking::panic_bounds_check",
            ),
            (
                "_RNvMs1_NtNtCshRfw0ie2vF0_10agent_core3rpc5replyNtB5_11ReplyWriter6finish",
                "agent_core::rpc::reply::ReplyWriter::finish",
            ),
            (
                "_ZN10agent_core4json8Document5parse17h0123456789abcdefE",
                "agent_core::json::Document::parse::h0123456789abcdef",
            ),
            ("OUTLINED_FUNCTION_7", "OUTLINED_FUNCTION_7"),
            ("_R9", ""),
        ] {
            assert_eq!(path(symbol), read);
        }
        assert!(is_panic("core::slice::index::slice_index_fail") && is_panic("core::option::unwrap_failed"));
        assert!(!is_panic("agent_core::session::connect_failed") && !is_panic("core::fmt::write"));
    }
}
