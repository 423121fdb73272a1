//! What a provisioned device keeps of its configuration (docs/spec/08 §7.1).

use agent_core::config::Config;
use agent_core::json::Object;
use heapless::{String, Vec};

use super::brokers::{self, Broker, MAX_BROKERS};

/// Longest identity.
pub(crate) const IDENTITY: usize = 128;
/// Collectives a device is a member of; more are refused by `configure`.
pub(crate) const COLLECTIVES: usize = 4;
/// Longest name of a collective or organization.
const COLLECTIVE: usize = 32;

/// Settings that a device uses. Others are expected of a server and left out.
const KEPT: [&str; 13] = [
    "identity",
    "collectives",
    "main_collective",
    "plugin.choria.middleware_hosts",
    "plugin.choria.server.provision",
    "plugin.security.issuer.names",
    "plugin.security.choria.sign_replies",
    "rpcauthorization",
    "rpcauthprovider",
    "registration",
    "registerinterval",
    "loglevel",
    "plugin.choria.network.client_port",
];
const ISSUER: &str = "plugin.security.issuer.";
const PUBLIC: &str = ".public";

fn is_kept(name: &str) -> bool {
    KEPT.contains(&name) || (name.starts_with(ISSUER) && name.ends_with(PUBLIC))
}

/// Why a configuration is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unfit {
    Unreadable,
    TooLarge,
    /// Decision D14: the image's issuer wins.
    OtherIssuer,
}

impl Unfit {
    pub(crate) const fn message(self) -> &'static str {
        match self {
            Unfit::Unreadable => "a setting of the configuration cannot be read",
            Unfit::TooLarge => "the configuration is too large for this device",
            Unfit::OtherIssuer => {
                "the configuration names another issuer than the one this device was made with"
            }
        }
    }
}

/// Writes the settings that are kept as lines of `key = value`; returns the bytes and the lines, and how many were left out.
pub(crate) fn pack(
    settings: &Object<'_>,
    issuers: &[[u8; 32]],
    out: &mut [u8],
) -> Result<(usize, u32, u32), Unfit> {
    let (mut at, mut lines, mut left_out) = (0_usize, 0_u32, 0_u32);
    let mut put = |bytes: &[u8]| {
        let end = at.checked_add(bytes.len()).ok_or(Unfit::TooLarge)?;
        out.get_mut(at..end).ok_or(Unfit::TooLarge)?.copy_from_slice(bytes);
        at = end;
        Ok(())
    };
    for (name, value) in settings.entries() {
        let mut room = [0_u8; 128];
        let name = name.unescape(&mut room).map_err(|_| Unfit::Unreadable)?;
        if !is_kept(name) {
            left_out = left_out.saturating_add(1);
            continue;
        }
        let mut room = [0_u8; 256];
        let text = value.as_text().ok_or(Unfit::Unreadable)?;
        let text = text.unescape(&mut room).map_err(|_| Unfit::TooLarge)?;
        if text.contains(['\n', '\r']) {
            return Err(Unfit::Unreadable);
        }
        if name.starts_with(ISSUER) && name.ends_with(PUBLIC) && !issuers.is_empty() {
            let mut key = [0_u8; 32];
            let read =
                agent_core::encoding::hex::decode_to_slice(text.trim_ascii().as_bytes(), &mut key).is_ok();
            if !read || !issuers.contains(&key) {
                return Err(Unfit::OtherIssuer);
            }
        }
        for part in [name.as_bytes(), b" = ", text.as_bytes(), b"\n"] {
            put(part)?;
        }
        lines = lines.saturating_add(1);
    }
    Ok((at, lines, left_out))
}

/// The settings of a member, read at start and kept apart from the text they stood in.
#[derive(Debug)]
pub(crate) struct Membership {
    pub(crate) identity: String<IDENTITY>,
    /// The main one first.
    pub(crate) collectives: Vec<String<COLLECTIVE>, COLLECTIVES>,
    pub(crate) brokers: Vec<Broker, MAX_BROKERS>,
    pub(crate) organization: String<COLLECTIVE>,
    pub(crate) sign_replies: bool,
}

impl Membership {
    /// `image_identity` is the name where the configuration has none.
    pub(crate) fn read(text: &str, image_identity: &str) -> Membership {
        let config = Config::new(text);
        let mut collectives = Vec::new();
        let main = config.get("main_collective");
        let listed = config.list("collectives").filter(|name| Some(*name) != main);
        let default =
            if main.is_none() && config.get("collectives").is_none() { Some("choria") } else { None };
        for name in main.into_iter().chain(listed).chain(default) {
            if let Some(name) = string(name)
                && collectives.push(name).is_err()
            {
                break;
            }
        }
        let organization = config.list("plugin.security.issuer.names").next().unwrap_or("choria");
        Membership {
            // A name that does not fit is no name; the broker refuses it by its token.
            identity: string(config.get("identity").unwrap_or(image_identity)).unwrap_or_default(),
            collectives,
            brokers: brokers::parse(config.get("plugin.choria.middleware_hosts").into_iter()),
            organization: string(organization).unwrap_or_default(),
            sign_replies: config.bool("plugin.security.choria.sign_replies", true),
        }
    }
}

fn string<const N: usize>(text: &str) -> Option<String<N>> {
    String::try_from(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::format;
    use std::string::String as Text;
    use std::vec::Vec as List;

    fn pack_into(json: &str, issuers: &[[u8; 32]], room: usize) -> Result<(Text, u32, u32), Unfit> {
        let mut out = std::vec![0; room];
        let object = Object::parse(json.as_bytes()).map_err(|_| Unfit::Unreadable)?;
        let (length, lines, left_out) = pack(&object, issuers, &mut out)?;
        Ok((Text::from_utf8(out[..length].to_vec()).map_err(|_| Unfit::Unreadable)?, lines, left_out))
    }

    #[test]
    fn what_a_device_uses_is_kept_and_the_rest_is_counted() {
        let json = r#"{"identity":"d1.example.net","collectives":"choria, fleet","main_collective":"fleet",
            "plugin.choria.middleware_hosts":"nats://192.0.2.1:4222","plugin.security.choria.token_file":"/x",
            "plugin.yaml":"/facts","loglevel":"in\u0066o"}"#;
        let (text, lines, left_out) = pack_into(json, &[], 1024).unwrap();
        assert_eq!((lines, left_out), (5, 2));
        assert!(text.contains("loglevel = info\n") && !text.contains("token_file"));
        let member = Membership::read(&text, "other");
        assert_eq!(member.identity, "d1.example.net");
        let collectives: List<&str> = member.collectives.iter().map(String::as_str).collect();
        assert_eq!(collectives, ["fleet", "choria"], "the main one first, none twice");
        assert_eq!((member.brokers.len(), member.sign_replies), (1, true));
        let nothing = Membership::read("", "image.example.net");
        assert_eq!((nothing.identity.as_str(), nothing.collectives.len()), ("image.example.net", 1));
    }

    /// T-299: nothing is cut off; what does not fit is refused.
    #[test]
    fn a_configuration_is_taken_whole_or_not_at_all() {
        let many: List<Text> =
            (0..200).map(|n| format!(r#""plugin.unknown.{n}":"{}""#, "x".repeat(80))).collect();
        let json = format!(r#"{{"identity":"d1.example.net",{}}}"#, many.join(","));
        let (text, lines, left_out) = pack_into(&json, &[], 256).unwrap();
        assert_eq!((text.as_str(), lines, left_out), ("identity = d1.example.net\n", 1, 200));
        assert_eq!(pack_into(&json, &[], 20).unwrap_err(), Unfit::TooLarge);
        let long = format!(r#"{{"identity":"{}"}}"#, "x".repeat(300));
        assert_eq!(pack_into(&long, &[], 1024).unwrap_err(), Unfit::TooLarge);
        assert_eq!(pack_into(r#"{"identity":7}"#, &[], 1024).unwrap_err(), Unfit::Unreadable);
        assert_eq!(pack_into("{\"identity\":\"a\\nb = c\"}", &[], 1024).unwrap_err(), Unfit::Unreadable);
    }

    /// Decision D14: the image's issuer wins.
    #[test]
    fn another_issuer_is_refused() {
        let of = |byte: &str| format!(r#"{{"plugin.security.issuer.choria.public":"{}"}}"#, byte.repeat(32));
        assert!(pack_into(&of("2a"), &[[0x2a; 32]], 256).is_ok());
        assert_eq!(pack_into(&of("2b"), &[[0x2a; 32]], 256).unwrap_err(), Unfit::OtherIssuer);
        assert_eq!(pack_into(&of("zz"), &[[0x2a; 32]], 256).unwrap_err(), Unfit::OtherIssuer);
        assert!(pack_into(&of("2b"), &[], 256).is_ok(), "an image without a key takes what it is given");
    }
}
