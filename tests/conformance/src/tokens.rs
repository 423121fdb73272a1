//! Tokens, and requests that are accepted because of them.

use core::fmt::Write;

use agent_core::dispatch::gate::{self, Accepted};
use agent_core::secure::{DelegatedCaller, Policy, open};
use agent_core::token::{
    ClientClaims, Issuer, ProvisioningClaims, ServerClaims, Trust, Verifier, peek_client, peek_provisioning,
    peek_server,
};

use crate::case::{Fault, Fields};
use crate::show::{Digest, Hex};
use crate::{Buffers, RX};

/// Most issuers of a case.
const ISSUERS: usize = 4;

/// Whose tokens are believed: a count, then organization and key. Without organizations they are signers.
pub(crate) struct Trusted<'c> {
    issuers: heapless::Vec<Issuer<'c>, ISSUERS>,
    signers: heapless::Vec<[u8; 32], ISSUERS>,
}

impl<'c> Trusted<'c> {
    pub(crate) fn read(fields: &mut Fields<'c>) -> Result<Trusted<'c>, Fault> {
        let mut trusted = Trusted { issuers: heapless::Vec::new(), signers: heapless::Vec::new() };
        for _ in 0..fields.size()? {
            let (organization, key) = (fields.text()?, fields.array()?);
            let pushed = if organization.is_empty() {
                trusted.signers.push(key).is_ok()
            } else {
                trusted.issuers.push(Issuer { organization, key }).is_ok()
            };
            if !pushed {
                return Err(Fault::Case);
            }
        }
        Ok(trusted)
    }

    pub(crate) fn verifier(&self) -> Verifier<'_> {
        Verifier::new(if self.signers.is_empty() {
            Trust::Issuers(&self.issuers)
        } else {
            Trust::Signers(&self.signers)
        })
    }

    pub(crate) fn issuers(&self) -> &[Issuer<'c>] {
        &self.issuers
    }
}

pub(crate) fn verify(
    fields: &mut Fields<'_>,
    buffers: &mut Buffers<'_>,
    out: &mut dyn Write,
) -> Result<(), Fault> {
    let (kind, trusted) = (fields.text()?, Trusted::read(fields)?);
    let (now, token) = (fields.number()?, fields.text()?);
    let (verifier, scratch) = (trusted.verifier(), buffers.scratch.as_mut_slice());
    macro_rules! show {
        ($verdict:expr, $claims:ident) => {
            match $verdict {
                Ok(token) => {
                    write!(out, "ok ")?;
                    $claims(token.claims(), out)?;
                    proof(token.public_key(), token.expires(), token.jti(), out)?;
                    if let Some(chain) = token.chain_issuer() {
                        write!(out, " chain={}:{}", chain.jti, Hex(&chain.key))?;
                    }
                }
                Err(reject) => write!(out, "refused {} {reject}", reject.reason())?,
            }
        };
    }
    match kind {
        "client" => show!(verifier.verify_client(token, now, scratch), client),
        "server" => show!(verifier.verify_server(token, now, scratch), server),
        "provisioning" => show!(verifier.verify_provisioning(token, now, scratch), provisioning),
        _ => return Err(Fault::Case),
    }
    Ok(())
}

pub(crate) fn peek(
    fields: &mut Fields<'_>,
    buffers: &mut Buffers<'_>,
    out: &mut dyn Write,
) -> Result<(), Fault> {
    let (kind, token, scratch) = (fields.text()?, fields.text()?, buffers.scratch.as_mut_slice());
    macro_rules! show {
        ($token:expr, $claims:ident) => {
            match $token {
                Ok(token) => {
                    write!(out, "ok ")?;
                    $claims(token.claims(), out)?;
                    proof(token.public_key(), token.expires(), token.jti(), out)?;
                }
                Err(reject) => write!(out, "refused {} {reject}", reject.reason())?,
            }
        };
    }
    match kind {
        "client" => show!(peek_client(token, scratch), client),
        "server" => show!(peek_server(token, scratch), server),
        "provisioning" => show!(peek_provisioning(token, scratch), provisioning),
        _ => return Err(Fault::Case),
    }
    Ok(())
}

fn client(claims: &ClientClaims<'_>, out: &mut dyn Write) -> Result<(), Fault> {
    write!(out, "caller={} ou={} {:?}", claims.caller_id, claims.organization, claims.permissions)?;
    write!(out, " policy={} agents={}", claims.policy_bytes, claims.agents.is_some())?;
    write!(out, " properties={}", Digest(claims.user_properties.unwrap_or_default()))?;
    write!(out, " publish={}", Digest(claims.publish_subjects.unwrap_or_default()))?;
    Ok(write!(out, " subscribe={}", Digest(claims.subscribe_subjects.unwrap_or_default()))?)
}

fn server(claims: &ServerClaims<'_>, out: &mut dyn Write) -> Result<(), Fault> {
    write!(out, "identity={} ou={} {:?}", claims.identity, claims.organization, claims.permissions)?;
    Ok(write!(out, " collectives={}", Digest(claims.collectives.unwrap_or_default()))?)
}

fn provisioning(claims: &ProvisioningClaims<'_>, out: &mut dyn Write) -> Result<(), Fault> {
    write!(out, "access={} secure={} urls={}", Digest(claims.token.as_bytes()), claims.secure, claims.urls)?;
    write!(out, " srv={} default={}", claims.srv_domain, claims.provision_by_default)?;
    write!(out, " user={} ou={} v2={}", claims.user, claims.organization, claims.protocol_two)?;
    Ok(write!(out, " update={}", claims.may_update)?)
}

fn proof(key: Option<&[u8; 32]>, expires: Option<i64>, jti: &str, out: &mut dyn Write) -> Result<(), Fault> {
    let key = key.map(<[u8; 32]>::as_slice).unwrap_or_default();
    Ok(write!(out, " key={} expires={} jti={jti}", Hex(key), expires.unwrap_or_default())?)
}

pub(crate) fn accept(
    fields: &mut Fields<'_>,
    buffers: &mut Buffers<'_>,
    out: &mut dyn Write,
) -> Result<(), Fault> {
    let (trusted, delegated_caller) = (Trusted::read(fields)?, delegated(fields)?);
    let (now, message) = (fields.number()?, fields.bytes()?);
    let Some(buffer) = received(buffers.rx, message) else { return Ok(write!(out, "refused too_large")?) };
    let policy = Policy { verifier: trusted.verifier(), delegated_caller, proven: None };
    let scratch = buffers.scratch.as_mut_slice();
    let verdict = open(buffer).map_err(agent_core::secure::Refusal::from);
    match verdict.and_then(|envelope| envelope.verify(buffer, &policy, now, scratch)) {
        Ok(verified) => {
            let request = verified.request();
            write!(out, "ok by={} as={}", verified.caller().claims().caller_id, request.caller.text(buffer))?;
            write!(out, " id={} agent={}", request.id.text(buffer), request.agent.text(buffer))?;
            write!(out, " ttl={} time={}", request.ttl, request.time)?;
            write!(out, " body={}", Digest(request.message.of(buffer)))?;
            write!(out, " token={}", Digest(verified.caller_token().of(buffer)))?;
            if let Some(signer) = verified.signer() {
                write!(out, " signer={} until={}", Hex(&signer.key), signer.expires.unwrap_or_default())?;
            }
            Ok(())
        }
        Err(refusal) => Ok(write!(out, "refused {} {refusal}", refusal.reason())?),
    }
}

pub(crate) fn delegated(fields: &mut Fields<'_>) -> Result<DelegatedCaller, Fault> {
    Ok(if fields.flag()? { DelegatedCaller::Any } else { DelegatedCaller::Match })
}

/// The message where a device has it.
pub(crate) fn received<'r>(rx: &'r mut [u8; RX], message: &[u8]) -> Option<&'r mut [u8]> {
    let place = rx.get_mut(..message.len())?;
    place.copy_from_slice(message);
    Some(place)
}

pub(crate) fn obey(
    fields: &mut Fields<'_>,
    buffers: &mut Buffers<'_>,
    out: &mut dyn Write,
) -> Result<(), Fault> {
    let trusted = Trusted::read(fields)?;
    let (now, message) = (fields.number()?, fields.bytes()?);
    let Some(buffer) = received(buffers.rx, message) else { return Ok(write!(out, "refused too_large")?) };
    match gate::candidate(buffer, &trusted.verifier(), now, buffers.scratch.as_mut_slice()) {
        Ok(Accepted { request, inbox, .. }) => {
            Ok(write!(out, "ok as={} inbox={}", request.caller.text(buffer), inbox.md5.as_str())?)
        }
        Err(reason) => Ok(write!(out, "refused {reason}")?),
    }
}
