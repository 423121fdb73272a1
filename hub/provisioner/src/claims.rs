//! What a server token may contain: the helper's wish, the defaults of `docs/spec/04 §10.8`, and the limits that
//! hold whatever the helper says (`docs/spec/10` V14).

use std::collections::BTreeMap;
use std::time::Duration;

use choria_token::claims::{ServerClaims, ServerPermissions, Standard};
use choria_token::names;
use regex::Regex;
use serde::Deserialize;

use crate::helper::RequestedClaims;

/// The server permissions there are.
const PERMISSIONS: [&str; 4] = ["submission", "streams", "governor", "service_host"];

/// An expiry nearer than this is taken for the relative number that old samples send, and replaced.
const LEAST_VALIDITY: i64 = 3600;

/// What happens to a wish beyond the limits.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Excess {
    /// The excess is cut off and logged.
    #[default]
    Cap,
    /// The node is not provisioned.
    Refuse,
}

/// The section `server_claims_limits` as written.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct ClaimLimitsFile {
    max_validity: Option<String>,
    permissions: Option<Vec<String>>,
    collectives: Option<Vec<String>>,
    pub_subjects: Vec<String>,
    excess: Excess,
}

/// Why the section was refused.
#[derive(Debug, thiserror::Error)]
pub enum LimitsError {
    #[error("`max_validity`: {0}")]
    Validity(choria_host::duration::DurationError),
    #[error("`permissions`: `{0}` is not one of submission, streams, governor, service_host")]
    Permission(String),
    #[error("`collectives`: `{0}` is not a pattern: {1}")]
    Collective(String, regex::Error),
    #[error("`pub_subjects`: `{0}` is not a subject")]
    Subject(String),
}

/// The most a server token may contain. The organization is not here: it is always the issuer's own.
#[derive(Debug)]
pub struct ClaimLimits {
    max_validity: Duration,
    permissions: Vec<String>,
    collectives: Option<Vec<Regex>>,
    pub_subjects: Vec<String>,
    excess: Excess,
}

/// The wish that a limit refused.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClaimsRefused {
    #[error("the helper asks for {what}, which `server_claims_limits.{limit}` does not allow")]
    Excess { what: String, limit: &'static str },
    #[error("the helper asks for organization `{asked}`, but the signing key belongs to `{issuer}`")]
    Organization { asked: String, issuer: String },
    #[error("`{0}` cannot be a collective name")]
    Collective(String),
    #[error("no collective is left for the node")]
    NoCollective,
    #[error("`validity` of the helper: {0}")]
    Validity(choria_host::duration::DurationError),
}

/// What the issuer is asked to sign.
#[derive(Debug)]
pub struct Grant {
    pub claims: ServerClaims,
    pub validity: Duration,
    /// One sentence for each wish that was cut or replaced.
    pub notes: Vec<String>,
}

/// Whom the token is for.
#[derive(Clone, Copy, Debug)]
pub struct Applicant<'a> {
    pub identity: &'a str,
    /// 64 hex digits, proven.
    pub public_key: &'a str,
    /// The organization of whoever signs.
    pub org: &'a str,
    /// The configuration the node will get.
    pub configuration: &'a BTreeMap<String, String>,
}

impl ClaimLimits {
    /// Checks the section; `default_max` stands where it gives no `max_validity`.
    pub fn build(file: ClaimLimitsFile, default_max: Duration) -> Result<ClaimLimits, LimitsError> {
        let max_validity = match file.max_validity {
            None => default_max,
            Some(text) => choria_host::duration::parse(&text).map_err(LimitsError::Validity)?,
        };
        let permissions =
            file.permissions.unwrap_or_else(|| PERMISSIONS.iter().map(|name| (*name).to_string()).collect());
        if let Some(unknown) = permissions.iter().find(|name| !PERMISSIONS.contains(&name.as_str())) {
            return Err(LimitsError::Permission(unknown.clone()));
        }
        let compile = |text: String| match crate::config::pattern(&text) {
            Ok(pattern) => Ok(pattern),
            Err(error) => Err(LimitsError::Collective(text, error)),
        };
        let collectives = match file.collectives {
            None => None,
            Some(patterns) => Some(patterns.into_iter().map(compile).collect::<Result<_, _>>()?),
        };
        if let Some(bad) = file.pub_subjects.iter().find(|subject| !names::valid_subject(subject)) {
            return Err(LimitsError::Subject(bad.clone()));
        }
        Ok(ClaimLimits {
            max_validity,
            permissions,
            collectives,
            pub_subjects: file.pub_subjects,
            excess: file.excess,
        })
    }

    /// What of the helper's wish the token will hold. `default_validity` stands where the wish names no time or one
    /// that is over; `now_unix` in seconds.
    pub fn grant(
        &self,
        applicant: Applicant<'_>,
        wish: &RequestedClaims,
        default_validity: Duration,
        now_unix: i64,
    ) -> Result<Grant, ClaimsRefused> {
        let mut notes = Vec::new();
        let validity = self.validity(wish, default_validity, now_unix, &mut notes)?;
        if !wish.org.is_empty() && wish.org != applicant.org {
            return Err(ClaimsRefused::Organization {
                asked: wish.org.escape_debug().take(64).collect(),
                issuer: applicant.org.to_string(),
            });
        }
        let claims = ServerClaims {
            identity: applicant.identity.to_string(),
            collectives: self.collectives(applicant.configuration, wish, &mut notes)?,
            permissions: self.permissions(wish, &mut notes)?,
            org: applicant.org.to_string(),
            pub_subjects: self.pub_subjects(wish, &mut notes)?,
            standard: Standard {
                public_key: Some(applicant.public_key.to_string()),
                iss: "Choria Provisioner".to_string(),
                ..Standard::default()
            },
        };
        Ok(Grant { claims, validity, notes })
    }

    fn validity(
        &self,
        wish: &RequestedClaims,
        default: Duration,
        now: i64,
        notes: &mut Vec<String>,
    ) -> Result<Duration, ClaimsRefused> {
        let asked = match (&wish.validity, wish.exp) {
            (Some(text), _) => choria_host::duration::parse(text).map_err(ClaimsRefused::Validity)?,
            (None, None) => default,
            (None, Some(exp)) => {
                // `as` saturates, and turns not-a-number into 0
                let ahead = (exp as i64).saturating_sub(now);
                if ahead <= LEAST_VALIDITY {
                    notes.push(format!(
                        "`exp` {exp} of the helper is not an hour ahead (it is an absolute Unix time); used {} instead",
                        choria_host::duration::human(default)
                    ));
                    default
                } else {
                    Duration::from_secs(ahead.unsigned_abs())
                }
            }
        };
        if asked <= self.max_validity {
            return Ok(asked);
        }
        self.excess(notes, "max_validity", format!("a validity of {}", choria_host::duration::human(asked)))?;
        Ok(self.max_validity)
    }

    fn permissions(
        &self,
        wish: &RequestedClaims,
        notes: &mut Vec<String>,
    ) -> Result<ServerPermissions, ClaimsRefused> {
        let mut granted = ServerPermissions::default();
        for (name, value) in &wish.permissions {
            if value != &serde_json::Value::Bool(true) {
                continue;
            }
            if !self.permissions.contains(name) {
                let name: String = name.escape_debug().take(64).collect();
                self.excess(notes, "permissions", format!("the permission `{name}`"))?;
                continue;
            }
            match name.as_str() {
                "submission" => granted.submission = true,
                "streams" => granted.streams = true,
                "governor" => granted.governor = true,
                "service_host" => granted.service_host = true,
                _ => {}
            }
        }
        Ok(granted)
    }

    fn collectives(
        &self,
        configuration: &BTreeMap<String, String>,
        wish: &RequestedClaims,
        notes: &mut Vec<String>,
    ) -> Result<Vec<String>, ClaimsRefused> {
        let asked: Vec<String> = if !wish.collectives.is_empty() {
            wish.collectives.clone()
        } else if let Some(list) = configuration.get("collectives") {
            list.split(',').map(str::trim).filter(|name| !name.is_empty()).map(String::from).collect()
        } else if configuration
            .get("plugin.security.provider")
            .is_some_and(|provider| provider.trim() == "choria")
        {
            vec!["choria".to_string()]
        } else {
            vec!["mcollective".to_string()]
        };
        let mut granted = Vec::new();
        for name in asked {
            if !names::valid_collective(&name) {
                return Err(ClaimsRefused::Collective(name.escape_debug().take(64).collect()));
            }
            let allowed =
                self.collectives.as_ref().is_none_or(|patterns| patterns.iter().any(|p| p.is_match(&name)));
            if allowed {
                granted.push(name);
            } else {
                self.excess(notes, "collectives", format!("the collective `{name}`"))?;
            }
        }
        if granted.is_empty() { Err(ClaimsRefused::NoCollective) } else { Ok(granted) }
    }

    fn pub_subjects(
        &self,
        wish: &RequestedClaims,
        notes: &mut Vec<String>,
    ) -> Result<Vec<String>, ClaimsRefused> {
        let mut granted = Vec::new();
        for subject in &wish.pub_subjects {
            let allowed =
                names::valid_subject(subject) && self.pub_subjects.iter().any(|limit| covers(limit, subject));
            if allowed {
                granted.push(subject.clone());
            } else {
                let subject: String = subject.escape_debug().take(256).collect();
                self.excess(notes, "pub_subjects", format!("the subject `{subject}`"))?;
            }
        }
        Ok(granted)
    }

    fn excess(
        &self,
        notes: &mut Vec<String>,
        limit: &'static str,
        what: String,
    ) -> Result<(), ClaimsRefused> {
        let refused = ClaimsRefused::Excess { what, limit };
        match self.excess {
            Excess::Refuse => Err(refused),
            Excess::Cap => {
                notes.push(format!("{refused}; left out"));
                Ok(())
            }
        }
    }
}

/// Whether every subject that matches `subject` matches `limit` too.
fn covers(limit: &str, subject: &str) -> bool {
    let mut wanted = subject.split('.');
    for token in limit.split('.') {
        match (token, wanted.next()) {
            (_, None) => return false,
            (">", Some(_)) => return true,
            ("*", Some(other)) if other != ">" => {}
            (literal, Some(other)) if literal == other => {}
            _ => return false,
        }
    }
    wanted.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_700_000_000;
    const YEAR: Duration = Duration::from_secs(365 * 86_400);

    fn limits(yaml: &str) -> ClaimLimits {
        ClaimLimits::build(serde_saphyr::from_str(yaml).unwrap(), YEAR).unwrap()
    }

    fn grant(limits: &ClaimLimits, wish: serde_json::Value) -> Result<Grant, ClaimsRefused> {
        let configuration = BTreeMap::from([("collectives".to_string(), "choria, eu ,".to_string())]);
        let applicant =
            Applicant { identity: "n1", public_key: "00ff", org: "choria", configuration: &configuration };
        limits.grant(applicant, &serde_json::from_value(wish).unwrap(), YEAR, NOW)
    }

    #[test]
    fn defaults() {
        let grant = grant(&limits("{}"), serde_json::json!({})).unwrap();
        assert_eq!(grant.claims.collectives, ["choria", "eu"]);
        assert_eq!(grant.claims.org, "choria");
        assert_eq!(grant.claims.permissions, ServerPermissions::default());
        assert_eq!(grant.validity, YEAR);
        assert!(grant.notes.is_empty());
    }

    #[test]
    fn provider_decides_the_collective_when_nothing_else_does() {
        for (provider, collective) in [("choria", "choria"), ("file", "mcollective")] {
            let configuration =
                BTreeMap::from([("plugin.security.provider".to_string(), provider.to_string())]);
            let applicant =
                Applicant { identity: "n1", public_key: "00", org: "choria", configuration: &configuration };
            let grant = limits("{}").grant(applicant, &RequestedClaims::default(), YEAR, NOW).unwrap();
            assert_eq!(grant.claims.collectives, [collective]);
        }
    }

    #[test]
    fn t_154_a_greedy_helper_is_capped_and_each_cut_is_noted() {
        let wish = serde_json::json!({"exp": NOW + 50 * 365 * 86_400_i64, "pub_subjects": [">", "site.events"],
            "permissions": {"streams": true, "org_admin": true, "submission": false}});
        let limits = limits("{pub_subjects: [site.>], permissions: [streams, submission]}");
        let grant = grant(&limits, wish).unwrap();
        assert_eq!(grant.validity, YEAR);
        assert_eq!(grant.claims.pub_subjects, ["site.events"]);
        assert!(grant.claims.permissions.streams && !grant.claims.permissions.submission);
        assert_eq!(grant.notes.len(), 3, "{:?}", grant.notes);
        choria_rows::row(
            154,
            "exp +50 years, pub_subjects >, org_admin",
            "capped, three notes; refused in the refusing mode",
        );
    }

    #[test]
    fn or_refused() {
        let limits = limits("{excess: refuse, max_validity: 30d, collectives: ['eu*']}");
        for wish in [
            serde_json::json!({"validity": "31d", "collectives": ["eu"]}),
            serde_json::json!({"validity": "1d", "collectives": ["us"]}),
            serde_json::json!({"validity": "1d", "collectives": ["eu"], "pub_subjects": ["x"]}),
        ] {
            assert!(matches!(grant(&limits, wish), Err(ClaimsRefused::Excess { .. })));
        }
        assert!(grant(&limits, serde_json::json!({"validity": "30d", "collectives": ["eu1"]})).is_ok());
    }

    #[test]
    fn another_organization_is_never_issued() {
        let wish = serde_json::json!({"ou": "other"});
        assert!(matches!(grant(&limits("{}"), wish), Err(ClaimsRefused::Organization { .. })));
    }

    #[test]
    fn a_relative_expiry_gets_the_default_with_a_note() {
        let grant = grant(&limits("{}"), serde_json::json!({"exp": 31_536_000})).unwrap();
        assert_eq!(grant.validity, YEAR);
        assert_eq!(grant.notes.len(), 1);
    }

    #[test]
    fn names_that_are_no_subject_tokens_are_refused() {
        let wish = serde_json::json!({"collectives": ["a.>"]});
        assert!(matches!(grant(&limits("{}"), wish), Err(ClaimsRefused::Collective(_))));
    }

    #[test]
    fn covering() {
        for (limit, subject, expected) in [
            ("site.>", "site.a.b", true),
            ("site.>", "site", false),
            ("site.>", "site.>", true),
            ("site.*", "site.>", false),
            ("site.*", "site.*", true),
            ("site.a", "site.*", false),
            ("site.a", "site.a", true),
            ("site.a", "site.a.b", false),
        ] {
            assert_eq!(covers(limit, subject), expected, "{limit} {subject}");
        }
    }
}
