//! What a provisioned device keeps of its configuration (docs/spec/08 §7.1).

use agent_core::config::Config;
use agent_core::json::Object;
use heapless::{String, Vec};

use crate::brokers::{self, Broker, MAX_BROKERS};

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
            let read = agent_core::encoding::hex::decode_to_slice(text.trim().as_bytes(), &mut key).is_ok();
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
