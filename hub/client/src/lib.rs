//! The operator's side of the protocol: connect, sign, discover, request, collect replies.
