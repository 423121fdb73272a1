//! The permission flags of client and server tokens (`docs/spec/01 §6.3, §6.4`).

use super::reject::Reject;
use crate::json::{Kind, Span, members};

/// A set of permission flags.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Permissions(u32);

/// Wire names; the position is the bit.
const NAMES: [&str; 15] = [
    "fleet_management",
    "signed_fleet_management",
    "authentication_delegator",
    "provisioner",
    "org_admin",
    "system_user",
    "service",
    "streams_admin",
    "streams_user",
    "events_viewer",
    "election_user",
    "governor",
    "submission",
    "streams",
    "service_host",
];

impl Permissions {
    pub const FLEET_MANAGEMENT: Permissions = Permissions(1);
    pub const SIGNED_FLEET_MANAGEMENT: Permissions = Permissions(1 << 1);
    pub const AUTHENTICATION_DELEGATOR: Permissions = Permissions(1 << 2);
    pub const PROVISIONER: Permissions = Permissions(1 << 3);
    pub const ORG_ADMIN: Permissions = Permissions(1 << 4);
    pub const SUBMISSION: Permissions = Permissions(1 << 12);
    pub const STREAMS: Permissions = Permissions(1 << 13);
    pub const SERVICE_HOST: Permissions = Permissions(1 << 14);

    /// Whether all of `flags` are set.
    pub fn has(self, flags: Permissions) -> bool {
        self.0 & flags.0 == flags.0
    }

    pub(super) fn read(object: Option<&[u8]>) -> Result<Permissions, Reject> {
        let Some(object) = object else { return Ok(Permissions::default()) };
        let mut bits = 0_u32;
        for member in members(object, Span::whole(object), &NAMES)?.iter().rev() {
            let bit = match member.map(|member| member.kind) {
                Some(Kind::True) => 1,
                None | Some(Kind::False) => 0,
                Some(_) => return Err(Reject::ClaimInvalid("permissions")),
            };
            bits = (bits << 1) | bit;
        }
        Ok(Permissions(bits))
    }
}
