//! Drives agent-core on tokio and rustls: the server that runs on a fleet node.
