//! The buffers of one agent, all static; sizes by profile (docs/spec/08 §6.4).

use agent_core::replay::ReplaySlot;

/// Bytes of each buffer.
#[derive(Debug, Clone, Copy)]
pub struct Profile {
    pub name: &'static str,
    /// Where a message is read into: its line and its payload.
    pub rx: usize,
    /// The largest line or reply that is sent.
    pub tx: usize,
    /// Claims of one token; body and document of a reply while they are signed.
    pub scratch: usize,
    /// Data of one reply; the provisioning token must fit.
    pub reply: usize,
    pub tcp_rx: usize,
    pub tcp_tx: usize,
    /// One record of the broker: its fragment size and 256 (docs/spec/08 §4.3).
    pub tls_rx: usize,
    pub tls_tx: usize,
    /// Requests remembered against repetition.
    pub replay: usize,
}

impl Profile {
    /// Bytes of the largest payload that is read; its line has 512.
    pub const fn payload(&self) -> usize {
        self.rx.saturating_sub(512)
    }
}

#[cfg(feature = "medium")]
pub const PROFILE: Profile = Profile {
    name: "medium",
    rx: 24 * 1024,
    tx: 16 * 1024,
    scratch: 8 * 1024,
    reply: 3 * 1024,
    tcp_rx: 8 * 1024,
    tcp_tx: 4 * 1024,
    tls_rx: 16_640,
    tls_tx: 2048,
    replay: 64,
};
#[cfg(all(feature = "small", not(feature = "medium")))]
pub const PROFILE: Profile = Profile {
    name: "small",
    rx: 12 * 1024,
    tx: 4 * 1024,
    scratch: 2816,
    reply: 1152,
    tcp_rx: 1248,
    tcp_tx: 1024,
    tls_rx: 4352,
    tls_tx: 768,
    replay: 64,
};
#[cfg(not(any(feature = "small", feature = "medium")))]
pub const PROFILE: Profile = Profile {
    name: "tiny",
    rx: 8 * 1024,
    tx: 4 * 1024,
    scratch: 3 * 1024,
    reply: 1152,
    tcp_rx: 2 * 1024,
    tcp_tx: 1024,
    tls_rx: 2304,
    tls_tx: 1024,
    replay: 64,
};

/// Largest server token that is kept.
pub(crate) const TOKEN: usize = 1256;

/// The buffers.
#[derive(Debug)]
pub struct Space {
    pub rx: [u8; PROFILE.rx],
    pub tx: [u8; PROFILE.tx],
    pub scratch: [u8; PROFILE.scratch],
    pub reply: [u8; PROFILE.reply],
    pub tcp_rx: [u8; PROFILE.tcp_rx],
    pub tcp_tx: [u8; PROFILE.tcp_tx],
    pub tls_rx: [u8; PROFILE.tls_rx],
    pub tls_tx: [u8; PROFILE.tls_tx],
    pub token: [u8; TOKEN],
    pub replay: [ReplaySlot; PROFILE.replay],
}

impl Space {
    /// All zeros: it costs no flash.
    pub const fn new() -> Space {
        Space {
            rx: [0; PROFILE.rx],
            tx: [0; PROFILE.tx],
            scratch: [0; PROFILE.scratch],
            reply: [0; PROFILE.reply],
            tcp_rx: [0; PROFILE.tcp_rx],
            tcp_tx: [0; PROFILE.tcp_tx],
            tls_rx: [0; PROFILE.tls_rx],
            tls_tx: [0; PROFILE.tls_tx],
            token: [0; TOKEN],
            replay: [ReplaySlot::FREE; PROFILE.replay],
        }
    }
}

impl Default for Space {
    fn default() -> Space {
        Space::new()
    }
}
