//! What an image was given at build time (docs/spec/08 §10).

use agent_core::baked::Baked;
use agent_core::x509pin::Pin;

/// Everything a blank device knows.
#[derive(Clone, Copy)]
pub struct Image<'i> {
    /// Text of the provisioning token.
    pub provisioning_jwt: &'i str,
    /// Organization issuers. With one, only its provisioners are obeyed and only its callers later on (decision D14).
    pub issuers: &'i [[u8; 32]],
    /// Who may be the broker. Without a pin there is no connection.
    pub pins: &'i [Pin],
    /// Instead of the host of the broker's URL.
    pub server_name: Option<&'i str>,
    /// Instead of the URLs of the provisioning token.
    pub urls: &'i [&'i str],
    /// Instead of a name made of the chip's number.
    pub identity: &'i str,
    /// Unix seconds of the personalisation: the time is never earlier.
    pub built: i64,
    /// Tokens with a policy are obeyed when a delegated signer of the organization has signed: it has asked the policy.
    pub trust_signer_for_policies: bool,
    /// Without a clock nothing but discovery and `rpcutil#ping` is served.
    pub require_clock: bool,
    /// `host[:port]` of a time server for boards without a clock, instead of the broker's host.
    pub time_server: Option<&'i str>,
}

impl core::fmt::Debug for Image<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Image").field("identity", &self.identity).finish_non_exhaustive()
    }
}

impl<'i> Image<'i> {
    /// Of what was written into the image. `identity` names a device whose image has no name.
    pub fn of(baked: &'i Baked<'_>, identity: &'i str) -> Image<'i> {
        Image {
            provisioning_jwt: baked.provisioning_jwt,
            issuers: &baked.issuers,
            pins: &baked.pins,
            server_name: baked.server_name,
            urls: &baked.urls,
            identity: baked.identity.unwrap_or(identity),
            built: baked.built,
            trust_signer_for_policies: baked.flags.trust_signer_for_policies,
            require_clock: baked.flags.require_clock,
            time_server: baked.time_server,
        }
    }
}
