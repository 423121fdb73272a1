//! RPC bodies: the JSON inside the `message` of a request or reply (docs/spec/03 §4).

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{
    ProtocolError,
    encode::{emit_layer, parse_layer, require},
};

const REQUEST_LAYER: &str = "RPC request";
const REPLY_LAYER: &str = "RPC reply";

/// `{"agent":…,"action":…,"data":{…}}`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RpcRequest {
    pub agent: String,
    pub action: String,
    #[serde(default)]
    pub data: Map<String, Value>,
}

impl RpcRequest {
    /// Parses a body; repeated keys and case variants of the three names are refused.
    pub fn parse(bytes: &[u8]) -> Result<Self, ProtocolError> {
        let request: Self = parse_layer(REQUEST_LAYER, &[], bytes)?;
        // Case variants only matter beside the three names: inputs may be called what their agent likes.
        crate::ambiguity::check_top_level(REQUEST_LAYER, &["agent", "action", "data"], bytes)?;
        require(REQUEST_LAYER, "agent", !request.agent.is_empty())?;
        require(REQUEST_LAYER, "action", !request.action.is_empty())?;
        Ok(request)
    }

    pub fn to_bytes(&self) -> Result<Vec<u8>, ProtocolError> {
        emit_layer(REQUEST_LAYER, self)
    }
}

/// `{"action":…,"statuscode":0,"statusmsg":"OK","data":{…}}`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RpcReply {
    /// Empty when the node could not read the request; older peers leave it out.
    #[serde(default)]
    pub action: String,
    pub statuscode: StatusCode,
    #[serde(default)]
    pub statusmsg: String,
    /// An object from well-behaved agents; some write the string `"{}"` for nothing.
    #[serde(default)]
    pub data: Value,
}

impl RpcReply {
    pub fn parse(bytes: &[u8]) -> Result<Self, ProtocolError> {
        let mut reply: Self = parse_layer(REPLY_LAYER, &[], bytes)?;
        if reply.data.is_null() || reply.data.as_str() == Some("{}") {
            reply.data = Value::Object(Map::new());
        }
        Ok(reply)
    }

    pub fn to_bytes(&self) -> Result<Vec<u8>, ProtocolError> {
        emit_layer(REPLY_LAYER, self)
    }
}

/// How an action ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(from = "i64", into = "i64")]
pub enum StatusCode {
    Ok,
    /// The action failed or was denied.
    Aborted,
    UnknownAction,
    MissingData,
    InvalidData,
    UnknownError,
    /// A code that this version does not know.
    Other(i64),
}

impl StatusCode {
    pub fn is_ok(self) -> bool {
        self == Self::Ok
    }
}

impl From<i64> for StatusCode {
    fn from(code: i64) -> Self {
        match code {
            0 => Self::Ok,
            1 => Self::Aborted,
            2 => Self::UnknownAction,
            3 => Self::MissingData,
            4 => Self::InvalidData,
            5 => Self::UnknownError,
            other => Self::Other(other),
        }
    }
}

impl From<StatusCode> for i64 {
    fn from(code: StatusCode) -> Self {
        match code {
            StatusCode::Ok => 0,
            StatusCode::Aborted => 1,
            StatusCode::UnknownAction => 2,
            StatusCode::MissingData => 3,
            StatusCode::InvalidData => 4,
            StatusCode::UnknownError => 5,
            StatusCode::Other(other) => other,
        }
    }
}

impl std::fmt::Display for StatusCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Ok => f.write_str("OK"),
            Self::Aborted => f.write_str("Request Aborted"),
            Self::UnknownAction => f.write_str("Unknown Action"),
            Self::MissingData => f.write_str("Missing Request Data"),
            Self::InvalidData => f.write_str("Invalid Request Data"),
            Self::UnknownError => f.write_str("Unknown Request Status"),
            Self::Other(code) => write!(f, "Status {code}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_keeps_key_order_and_defaults_data() {
        let body = br#"{"agent":"rpcutil","action":"ping","data":{}}"#;
        let parsed = RpcRequest::parse(body).unwrap();
        assert_eq!(parsed.to_bytes().unwrap(), body);
        assert!(RpcRequest::parse(br#"{"agent":"rpcutil","action":"ping"}"#).unwrap().data.is_empty());
    }

    #[test]
    fn ambiguous_bodies_are_refused() {
        for body in [
            r#"{"agent":"a","action":"x","action":"y"}"#,
            r#"{"agent":"a","action":"x","Action":"y"}"#,
            r#"{"agent":"a","action":"x","data":{"k":1,"k":2}}"#,
        ] {
            assert_eq!(RpcRequest::parse(body.as_bytes()).unwrap_err().reason(), "json_ambiguous", "{body}");
        }
        // an input may differ from another only by case, and may be called Action
        assert!(
            RpcRequest::parse(br#"{"agent":"a","action":"x","data":{"Action":1,"ou":2,"OU":3}}"#).is_ok()
        );
    }

    #[test]
    fn odd_reply_data_becomes_an_object() {
        for data in ["null", "\"{}\"", "{}"] {
            let body = format!(r#"{{"statuscode":0,"statusmsg":"OK","data":{data}}}"#);
            assert_eq!(RpcReply::parse(body.as_bytes()).unwrap().data, serde_json::json!({}));
        }
        let odd = RpcReply::parse(br#"{"statuscode":77}"#).unwrap();
        assert_eq!(odd.statuscode, StatusCode::Other(77));
    }
}
