//! The INFO line (`docs/spec/09 §A3`).

use std::net::SocketAddr;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use serde::Serialize;

use crate::client::Client;
use crate::engine::Shared;

/// INFO as clients read it.
#[derive(Debug, Serialize)]
struct Info<'a> {
    server_id: &'a str,
    server_name: &'a str,
    version: &'a str,
    proto: u8,
    /// Some clients insist on the key.
    go: &'static str,
    host: String,
    port: u16,
    headers: bool,
    #[serde(skip_serializing_if = "is_false")]
    auth_required: bool,
    #[serde(skip_serializing_if = "is_false")]
    tls_required: bool,
    max_payload: usize,
    #[serde(skip_serializing_if = "is_false")]
    jetstream: bool,
    client_id: u64,
    client_ip: String,
    #[serde(skip_serializing_if = "str::is_empty")]
    nonce: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    cluster: &'a str,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    connect_urls: &'a [String],
    #[serde(skip_serializing_if = "is_false")]
    ldm: bool,
    #[serde(skip_serializing_if = "is_false")]
    connect_info: bool,
    #[serde(skip_serializing_if = "str::is_empty")]
    remote_account: &'a str,
    #[serde(skip_serializing_if = "is_false")]
    acc_is_sys: bool,
    #[serde(skip_serializing_if = "is_zero")]
    api_lvl: u8,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde asks for")]
fn is_false(value: &bool) -> bool {
    !value
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde asks for")]
fn is_zero(value: &u8) -> bool {
    *value == 0
}

impl Shared {
    fn info(&self, cid: u64, remote: Option<SocketAddr>, port: u16) -> Info<'_> {
        let listening = self.listening.read().unwrap_or_else(PoisonError::into_inner);
        let bound = listening.iter().find(|bound| bound.address.port() == port).or(listening.first());
        Info {
            server_id: &self.server_id,
            server_name: self.name(),
            version: &self.config.version,
            proto: 1,
            go: "rust",
            host: bound.map(|bound| bound.address.ip().to_string()).unwrap_or_default(),
            port: bound.map_or(port, |bound| bound.address.port()),
            headers: true,
            auth_required: self.authenticator.required(),
            tls_required: bound.is_some_and(|bound| bound.tls),
            max_payload: self.config.max_payload,
            jetstream: self.config.jetstream,
            client_id: cid,
            client_ip: remote.map(|remote| remote.ip().to_string()).unwrap_or_default(),
            nonce: "",
            cluster: &self.config.cluster_name,
            connect_urls: &self.config.connect_urls,
            ldm: false,
            connect_info: false,
            remote_account: "",
            acc_is_sys: false,
            api_lvl: u8::from(self.config.jetstream),
        }
    }

    /// The first line on a new connection.
    pub(crate) fn info_line(
        &self,
        cid: u64,
        remote: SocketAddr,
        nonce: &str,
        tls: bool,
        port: u16,
    ) -> Vec<u8> {
        let nonce = if self.authenticator.nonce_required() { nonce } else { "" };
        line(&Info { nonce, tls_required: tls, ..self.info(cid, Some(remote), port) })
    }

    /// The line after the first PONG: what the connection has become.
    pub(crate) fn connected_info(&self, client: &Client) -> Vec<u8> {
        line(&Info {
            connect_info: true,
            remote_account: &client.account.name,
            acc_is_sys: self.config.system_account.as_deref() == Some(client.account.name.as_str()),
            ldm: self.lame_duck.load(Ordering::Relaxed),
            ..self.info(client.cid, client.remote, 0)
        })
    }

    /// The line that sends clients to another server.
    pub(crate) fn lame_duck_info(&self, client: &Client) -> Vec<u8> {
        line(&Info { ldm: true, ..self.info(client.cid, client.remote, 0) })
    }
}

fn line(info: &Info<'_>) -> Vec<u8> {
    let mut line = b"INFO ".to_vec();
    line.extend_from_slice(&serde_json::to_vec(info).unwrap_or_default());
    line.extend_from_slice(b"\r\n");
    line
}
