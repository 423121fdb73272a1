//! Provider `action_policy`: one policy file per agent (docs/spec/03 §8.1).
//!
//! ```text
//! policy default deny
//! allow<TAB>up=ann admins<TAB>ping status<TAB>os.family=RedHat<TAB>role::web
//! ```
//! Callers, actions, facts and classes; the first rule whose four columns all hold decides. Files are read for
//! each request, so that a change counts at once. What cannot be read denies.

use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use agent_core::filter::{Matcher, fact_matches, parse_fact_expression};
use choria_host::Settings;

use super::{Question, Verdict};
use crate::regexes::Regexes;

/// Largest policy or groups file, in bytes.
const MAX_FILE: u64 = 256 * 1024;
/// Room for the text of one fact beside a pattern.
const SCRATCH: usize = 16 * 1024;

/// Where the policies are and what holds without one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyFiles {
    directory: PathBuf,
    /// File for agents without one of their own.
    default: Option<String>,
    /// A file without a `policy default` line allows what no rule names.
    allow_unconfigured: bool,
}

/// Why a rule cannot be evaluated; the request is then denied.
type Broken = &'static str;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Line<'l> {
    Nothing,
    Default { allow: bool },
    Rule { allow: bool, columns: [&'l str; 4] },
    Ignored,
}

fn line(text: &str) -> Line<'_> {
    if text.starts_with('#') || text.trim().is_empty() {
        return Line::Nothing;
    }
    let mut words = text.split_whitespace();
    if (words.next(), words.next()) == (Some("policy"), Some("default")) {
        return words.next().map_or(Line::Ignored, |word| Line::Default { allow: word == "allow" });
    }
    let mut columns = text.split('\t').filter(|column| !column.is_empty()).map(str::trim);
    let allow = match columns.next() {
        Some("allow") => true,
        Some("deny") => false,
        _ => return Line::Ignored,
    };
    let mut next = || columns.next().unwrap_or_default();
    let columns = [next(), next(), next(), next()];
    Line::Rule { allow, columns }
}

impl PolicyFiles {
    pub(super) fn from_settings(settings: &Settings, directory: &Path) -> Self {
        let name = settings.get("plugin.actionpolicy.default_name").unwrap_or("default");
        PolicyFiles {
            directory: directory.join("policies"),
            default: settings.bool("plugin.actionpolicy.enable_default", false).then(|| name.to_owned()),
            allow_unconfigured: settings.bool("plugin.actionpolicy.allow_unconfigured", false),
        }
    }

    pub(super) fn decide(&self, question: &Question<'_>) -> Verdict {
        let deny = |reason: String| Verdict::Deny(reason);
        let plain = |name: &str| {
            !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'))
        };
        if !plain(question.agent) {
            return deny("the name of the agent is no file name".to_owned());
        }
        let own = self.directory.join(format!("{}.policy", question.agent));
        // one that is there and cannot be read is not one that is missing
        let (file, policy) = match (read(&own), &self.default) {
            (Err(error), Some(name)) if error.kind() == ErrorKind::NotFound && plain(name) => {
                let file = self.directory.join(format!("{name}.policy"));
                let policy = read(&file);
                (file, policy)
            }
            (Err(error), _) if error.kind() == ErrorKind::NotFound => {
                return deny(format!("there is no policy file {}", own.display()));
            }
            (policy, _) => (own, policy),
        };
        let policy = match policy {
            Ok(policy) => policy,
            Err(error) => return deny(format!("the policy {} cannot be read: {error}", file.display())),
        };
        let groups = match read(&self.directory.join("groups")) {
            Ok(groups) => groups,
            Err(error) if error.kind() == ErrorKind::NotFound => String::new(),
            Err(error) => return deny(format!("the groups of the policies cannot be read: {error}")),
        };
        let mut allow_rest = self.allow_unconfigured;
        for (number, text) in policy.lines().enumerate() {
            let place = || format!("{}:{}", file.display(), number + 1);
            match line(text) {
                Line::Nothing => {}
                Line::Default { allow } => allow_rest = allow,
                Line::Ignored => tracing::warn!(place = %place(), "a policy line is not understood"),
                Line::Rule { allow, columns } => match holds(columns, question, &groups) {
                    Ok(Some(true)) if allow => return Verdict::Allow,
                    Ok(Some(true)) => return deny(format!("{} denies", place())),
                    Ok(Some(false)) => {}
                    // A rule that would have denied may not be passed over.
                    Ok(None) if !allow => {
                        return deny(format!(
                            "{} denies by a compound statement, which is not supported",
                            place()
                        ));
                    }
                    Ok(None) => tracing::warn!(place = %place(), "compound statements are not supported"),
                    Err(reason) => return deny(format!("{}: {reason}", place())),
                },
            }
        }
        if allow_rest { Verdict::Allow } else { deny(format!("no rule of {} allows it", file.display())) }
    }
}

fn read(path: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    std::fs::File::open(path)?.take(MAX_FILE + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MAX_FILE {
        return Err(std::io::Error::other(format!("it is larger than {MAX_FILE} bytes")));
    }
    Ok(text)
}

/// Whether all four columns hold; `None`: a compound statement.
fn holds(columns: [&str; 4], question: &Question<'_>, groups: &str) -> Result<Option<bool>, Broken> {
    let [callers, actions, facts, classes] = columns;
    if facts.is_empty() || classes.is_empty() {
        return Err("the columns for facts and classes must be filled, with * for any");
    }
    if !caller(callers, question.caller, groups)? || !words(actions).any(|a| a == "*" || a == question.action)
    {
        return Ok(Some(false));
    }
    if is_compound(facts) || is_compound(classes) {
        return Ok(None);
    }
    if facts != "*" && !all_facts(facts, &question.node.facts())? {
        return Ok(Some(false));
    }
    Ok(Some(classes == "*" || all_classes(classes, &question.node.classes())?))
}

fn words(column: &str) -> impl Iterator<Item = &str> {
    column.split(' ').filter(|word| !word.is_empty())
}

fn caller(column: &str, caller: &str, groups: &str) -> Result<bool, Broken> {
    for word in words(column) {
        let names = || {
            groups.lines().any(|line| {
                let mut members = line.split(' ');
                members.next() == Some(word) && members.any(|member| member == caller)
            })
        };
        if word == "*" || word == caller {
            return Ok(true);
        }
        let holds = match pattern(word) {
            Some(pattern) => {
                Regexes.matches(pattern, false, caller).ok_or("a pattern of callers cannot be evaluated")?
            }
            None => names(),
        };
        if holds {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The inside of `/…/`.
fn pattern(word: &str) -> Option<&str> {
    word.strip_prefix('/')?.strip_suffix('/').filter(|pattern| !pattern.is_empty())
}

fn is_compound(column: &str) -> bool {
    words(column).any(|word| {
        word.starts_with('!')
            || matches!(word, "not" | "and" | "or")
            || word.starts_with('(')
            || word.ends_with(')')
    })
}

fn all_facts(column: &str, facts: &[u8]) -> Result<bool, Broken> {
    let mut scratch = vec![0u8; SCRATCH];
    for word in words(column) {
        let wanted = parse_fact_expression(word).ok_or("a fact column holds what is no fact expression")?;
        match fact_matches(facts, wanted.fact, wanted.operator, wanted.value, &Regexes, &mut scratch) {
            Ok(true) => {}
            Ok(false) => return Ok(false),
            Err(_) => return Err("a fact of the policy cannot be compared as it asks"),
        }
    }
    Ok(true)
}

/// As class filters do: a pattern ignores case, a plain name is lower-cased and compared with the class as it is.
fn all_classes(column: &str, classes: &[String]) -> Result<bool, Broken> {
    for word in words(column) {
        let holds = match pattern(word) {
            Some(pattern) => {
                let of = |text: &str| {
                    Regexes.matches(pattern, true, text).ok_or("a pattern of classes cannot be evaluated")
                };
                // evaluated once even without classes: a broken rule is broken on every node
                of("")?;
                classes.iter().map(|class| of(class)).collect::<Result<Vec<bool>, Broken>>()?.contains(&true)
            }
            None => classes.contains(&word.to_lowercase()),
        };
        if !holds {
            return Ok(false);
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::super::tests::Known;
    use super::*;
    use choria_host::rego::RequestFilter;

    struct Policies(tempfile::TempDir);

    impl Policies {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            std::fs::create_dir(dir.path().join("policies")).unwrap();
            Policies(dir)
        }

        fn write(&self, name: &str, text: &str) {
            std::fs::write(self.0.path().join("policies").join(name), text).unwrap();
        }

        fn ask(&self, settings: &str, agent: &str, action: &str, caller: &str) -> Verdict {
            let settings = Settings::parse(settings, Path::new("x")).unwrap();
            PolicyFiles::from_settings(&settings, self.0.path()).decide(&Question {
                agent,
                action,
                data: b"{}",
                caller,
                sender: "",
                collective: "",
                ttl_seconds: 60,
                time_nanos: 0,
                caller_token: "",
                filter: RequestFilter::default(),
                node: &Known {
                    facts: r#"{"os":{"family":"RedHat"},"cpus":4}"#,
                    classes: vec!["apache".into(), "role::web".into()],
                },
            })
        }

        fn allows(&self, rules: &str, action: &str, caller: &str) -> bool {
            self.write("puppet.policy", rules);
            self.ask("", "puppet", action, caller) == Verdict::Allow
        }
    }

    #[test]
    fn rules_in_order() {
        let p = Policies::new();
        let rules = "# comment\n\npolicy default deny\ndeny\tup=bob\t*\t*\t*\nallow\tup=ann\tstatus enable\t*\t*\nallow\t/^up=a/\tonce\t*\t*\n";
        assert!(p.allows(rules, "status", "up=ann"));
        assert!(p.allows(rules, "once", "up=anything"));
        assert!(!p.allows(rules, "disable", "up=ann"));
        assert!(!p.allows(rules, "status", "up=bob"));
        assert!(p.allows("policy default allow\n", "x", "up=bob"));
        assert!(!p.allows("policy default allow\npolicy default no\n", "x", "up=bob"));
        assert!(!p.allows("allow\t/(/\t*\t*\t*\n", "x", "up=bob"), "a malformed pattern fails the rule");
        assert!(!p.allows("allow up=bob * * *\n", "x", "up=bob"), "blanks are not tabs");
    }

    #[test]
    fn facts_classes_and_groups() {
        let p = Policies::new();
        p.write("groups", "admins up=ann up=eve\n");
        assert!(p.allows("allow\tadmins\t*\tos.family=redhat cpus>=4\tapache /^ROLE/\n", "x", "up=eve"));
        assert!(!p.allows("allow\tadmins\t*\t*\t*\n", "x", "up=bob"));
        assert!(!p.allows("allow\t*\t*\tos.family=debian\t*\n", "x", "up=eve"));
        assert!(!p.allows("allow\t*\t*\t*\tapache nginx\n", "x", "up=eve"));
    }

    #[test]
    fn doubt_denies() {
        let p = Policies::new();
        assert!(
            matches!(p.ask("", "puppet", "x", "up=ann"), Verdict::Deny(reason) if reason.contains("no policy file"))
        );
        let allow_all = "allow\t*\t*\t*\t*\n";
        assert!(!p.allows(&format!("allow\t*\t*\t*\n{allow_all}"), "x", "up=ann"), "a column is missing");
        assert!(!p.allows(&format!("allow\t*\t*\tnonsense\t*\n{allow_all}"), "x", "up=ann"));
        assert!(!p.allows(&format!("deny\t*\t*\t*\tapache and nginx\n{allow_all}"), "x", "up=ann"));
        assert!(p.allows(&format!("allow\t*\t*\t*\t!nginx\n{allow_all}"), "x", "up=ann"));
        // a rule that would have denied is not passed over because it is broken
        for broken in ["deny\t/(up=ann/\t*\t*\t*", "deny\t*\t*\t*\t/(role/", "deny\tgroup\t*\tcpus>=x\t*"] {
            let rules = format!("{}\n{allow_all}", broken.replace("group", "up=ann"));
            assert!(!p.allows(&rules, "x", "up=ann"), "{broken}");
        }
        p.write("default.policy", allow_all);
        assert!(matches!(p.ask("", "other", "x", "up=ann"), Verdict::Deny(_)));
        assert_eq!(p.ask("plugin.actionpolicy.enable_default = 1", "other", "x", "up=ann"), Verdict::Allow);
        let unconfigured = "plugin.actionpolicy.allow_unconfigured = 1";
        p.write("puppet.policy", "deny\tup=bob\t*\t*\t*\n");
        assert_eq!(p.ask(unconfigured, "puppet", "x", "up=ann"), Verdict::Allow);
        assert!(matches!(p.ask(unconfigured, "missing", "x", "up=ann"), Verdict::Deny(_)));
        assert!(matches!(p.ask("", "../puppet", "x", "up=ann"), Verdict::Deny(_)));
        // a folder where a file should be cannot be read, whoever runs the test
        let folder = |name: &str| std::fs::create_dir(p.0.path().join("policies").join(name)).unwrap();
        folder("unread.policy");
        let default = "plugin.actionpolicy.enable_default = 1";
        assert!(
            matches!(p.ask(default, "unread", "x", "up=ann"), Verdict::Deny(_)),
            "no default in its place"
        );
        p.write("puppet.policy", &format!("deny\tadmins\t*\t*\t*\n{allow_all}"));
        assert_eq!(p.ask("", "puppet", "x", "up=ann"), Verdict::Allow);
        folder("groups");
        assert!(
            matches!(p.ask("", "puppet", "x", "up=ann"), Verdict::Deny(_)),
            "who is an admin is not known"
        );
    }

    proptest::proptest! {
        #[test]
        fn any_policy_is_read(rules in "(?s)(allow|deny|policy default|#)?[\\t a-z*/(!=<>]{0,80}\\n?", caller in ".{0,20}") {
            Policies::new().allows(&rules, "x", &caller);
        }

        #[test]
        fn only_an_allow_can_allow(rules in "((deny|policy|#)[\\t a-z*/(!]{0,40}\\n){0,5}") {
            proptest::prop_assume!(!rules.contains("allow"));
            proptest::prop_assert!(!Policies::new().allows(&rules, "x", "up=ann"));
        }
    }
}
