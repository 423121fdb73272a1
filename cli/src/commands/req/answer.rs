//! One node's answer, as the commands show it.

use choria_client::FilteredReply;
use choria_protocol::rpc::StatusCode;
use serde_json::{Map, Value};

#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) sender: String,
    pub(crate) status: StatusCode,
    pub(crate) message: String,
    pub(crate) data: Map<String, Value>,
    /// When the node says that it answered, seconds since 1970.
    pub(crate) at: i64,
    /// `verified`, `unverified`, or why the proof does not hold.
    pub(crate) verification: String,
}

impl Answer {
    pub(crate) fn is_ok(&self) -> bool {
        self.status.is_ok()
    }

    /// What an expression can look at.
    pub(crate) fn as_filtered(&self) -> FilteredReply<'_> {
        FilteredReply {
            sender: &self.sender,
            status: self.status,
            message: &self.message,
            data: &self.data,
            time: self.at,
        }
    }
}

/// What a status is called beside a node's name; nothing when all is well.
pub(crate) fn status_text(status: StatusCode) -> &'static str {
    match status {
        StatusCode::Ok => "",
        StatusCode::Aborted => "Request Aborted",
        StatusCode::UnknownAction => "Unknown Action",
        StatusCode::MissingData => "Missing Request Data",
        StatusCode::InvalidData => "Invalid Request Data",
        StatusCode::UnknownError | StatusCode::Other(_) => "Unknown Request Status",
    }
}
