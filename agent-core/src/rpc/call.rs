//! One verified request as its agent sees it.

use crate::json::{self, Object};

/// A request whose caller, signature, collective and age have been checked.
///
/// All text borrows the receive buffer. `data` is the raw JSON object of the body, `{}` when the body had none.
#[derive(Debug, Clone, Copy)]
pub struct Call<'a> {
    pub agent: &'a str,
    pub action: &'a str,
    /// Arguments: the bytes of one JSON object.
    pub data: &'a [u8],
    /// Caller id of the envelope, e.g. `up=alice`.
    pub caller: &'a str,
    pub request_id: &'a str,
    /// Identity of the host the request was sent from.
    pub sender: &'a str,
    pub collective: &'a str,
    /// Validity of the request, seconds.
    pub ttl_seconds: u32,
    /// When the caller made the request, Unix nanoseconds.
    pub time_nanos: i64,
    /// The caller's token, verified. Empty in insecure provisioning.
    pub caller_token: &'a str,
    /// The token of the delegated signer, verified. Empty when the caller signed.
    pub signer_token: &'a str,
}

impl<'a> Call<'a> {
    /// The arguments, read on demand.
    pub fn args(&self) -> Result<Object<'a>, json::Error> {
        Object::parse(self.data)
    }
}
