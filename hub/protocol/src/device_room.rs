//! What fits into a microcontroller (docs/spec/08 §6.3, §6.4) [ours].

/// Bytes of the largest message that a device of profile `small` reads; a larger one is dropped unread.
pub const SMALL_DEVICE_MESSAGE: usize = 11_776;

/// Bytes of a caller's token with which a request still fits there, a signer's token and 400 bytes of arguments included.
pub const SMALL_DEVICE_TOKEN: usize = 6 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rpc::RpcRequest;
    use crate::{Filter, Headers, Request, SecureRequest, Transport};

    /// A request to a device as a client with a request signer writes it.
    fn request(token: usize, arguments: usize) -> usize {
        let data = serde_json::json!({ "text": "x".repeat(arguments) });
        let body = RpcRequest {
            agent: "rpcutil".into(),
            action: "get_fact".into(),
            data: data.as_object().cloned().unwrap(),
        };
        let mut filter = Filter::default();
        filter.add_agent("rpcutil");
        let request = Request {
            message: body.to_bytes().unwrap(),
            id: "2bCa8Ep0Bi3rgX0v7cOWXuZLdgX".into(),
            sender: "workstation.example.net".into(),
            caller: "up=somebody.with.a.name".into(),
            collective: "choria".into(),
            agent: "rpcutil".into(),
            ttl: 60,
            time: 1_790_000_000_000_000_000,
            filter,
        };
        let secure = SecureRequest {
            request: request.to_bytes().unwrap(),
            signature: vec![7; 64],
            caller: "t".repeat(token),
            signer: Some("s".repeat(890)),
        };
        let headers = Headers {
            reply: "choria.reply.0123456789abcdef0123456789abcdef.2bCa8Ep0Bi3rgX0v7cOWXuZLdgX".into(),
            sender: "workstation.example.net".into(),
            ..Headers::default()
        };
        Transport { data: secure.to_bytes().unwrap(), headers }.to_bytes().unwrap().len()
    }

    #[test]
    fn a_token_at_the_limit_fits_and_what_is_said_of_it_is_true() {
        let size = request(SMALL_DEVICE_TOKEN, 400);
        assert!(size <= SMALL_DEVICE_MESSAGE, "{size}");
        // nor is the limit lower than it need be
        let size = request(SMALL_DEVICE_TOKEN + 512, 400);
        assert!(size > SMALL_DEVICE_MESSAGE, "{size}");
    }
}
