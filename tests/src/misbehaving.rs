//! Connections that do everything wrong that `docs/spec/10 §9` bounds, over and over, and what the hub does about it.

mod crowd;
mod member;
mod peer;
mod stranger;
mod web;

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Result;

use crate::forge::Key;

pub use crowd::{Crowd, Tally};
use peer::{Peer, Tls};

/// Where to misbehave, and with which credentials.
#[derive(Debug)]
pub struct Target {
    pub broker: SocketAddr,
    pub login: SocketAddr,
    pub monitoring: SocketAddr,
    /// The organization's key: some who misbehave are members.
    pub org: Key,
    /// What every waiting node holds.
    pub provisioning: String,
    pub(crate) tls: Tls,
}

impl Target {
    pub fn new(
        broker: SocketAddr,
        login: SocketAddr,
        monitoring: SocketAddr,
        org: Key,
        provisioning: String,
        ca: &std::path::Path,
    ) -> Result<Target> {
        Ok(Target { broker, login, monitoring, org, provisioning, tls: Tls::trusting(ca)? })
    }
}

/// One way to misbehave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Way {
    Silence,
    HalfAHandshake,
    GarbageBeforeTls,
    SilenceInTls,
    ConnectCutInTheMiddle,
    ConnectByteByByte,
    ConnectTooLong,
    TenMebibytesWithoutALine,
    DeepJson,
    WrongCredentials,
    PublishBeforeConnect,
    Churn,
    HugeSize,
    NegativeSize,
    PayloadTooLarge,
    ManySubscriptions,
    StrangeSubjects,
    PingsWithoutReading,
    SlowConsumer,
    Flood,
    CandidateFlood,
    LoginSilence,
    LoginSlowHead,
    LoginSlowBody,
    LoginHugeBody,
    LoginHugeHead,
    MonitoringSlowHead,
    MonitoringWithoutReading,
}

/// How the hub ends it.
#[derive(Debug, Clone, Copy)]
pub struct End {
    /// What the peer is told, if it lives to hear it.
    pub words: &'static str,
    /// After this at the latest; the rest is the machine's.
    pub within: Duration,
    /// `reason=` of the broker's log.
    pub reason: &'static str,
}

/// For a machine with other things to do.
const SLACK: Duration = Duration::from_secs(20);

impl Way {
    pub const ALL: [Way; 28] = [
        Way::Silence,
        Way::HalfAHandshake,
        Way::GarbageBeforeTls,
        Way::SilenceInTls,
        Way::ConnectCutInTheMiddle,
        Way::ConnectByteByByte,
        Way::ConnectTooLong,
        Way::TenMebibytesWithoutALine,
        Way::DeepJson,
        Way::WrongCredentials,
        Way::PublishBeforeConnect,
        Way::Churn,
        Way::HugeSize,
        Way::NegativeSize,
        Way::PayloadTooLarge,
        Way::ManySubscriptions,
        Way::StrangeSubjects,
        Way::PingsWithoutReading,
        Way::SlowConsumer,
        Way::Flood,
        Way::CandidateFlood,
        Way::LoginSilence,
        Way::LoginSlowHead,
        Way::LoginSlowBody,
        Way::LoginHugeBody,
        Way::LoginHugeHead,
        Way::MonitoringSlowHead,
        Way::MonitoringWithoutReading,
    ];

    /// How the hub ends it; `None`: the hub bears it, and refuses what goes too far without ending the connection.
    pub fn end(self) -> Option<End> {
        let after = |seconds: u64, words, reason| {
            Some(End { words, within: Duration::from_secs(seconds) + SLACK, reason })
        };
        match self {
            Way::Silence | Way::HalfAHandshake => {
                after(4, "Secure Connection - TLS Required", "tls_required")
            }
            Way::GarbageBeforeTls => after(2, "", "tls_required"),
            Way::SilenceInTls | Way::ConnectCutInTheMiddle | Way::ConnectByteByByte => {
                after(4, "Authentication Timeout", "auth_timeout")
            }
            Way::ConnectTooLong => after(2, "maximum control line exceeded", "line_too_long"),
            // the reset of what was not read may overtake the words
            Way::TenMebibytesWithoutALine => after(2, "", "line_too_long"),
            Way::DeepJson => after(2, "", "connect_malformed"),
            Way::WrongCredentials => after(2, "Authorization Violation", "sig_bad"),
            Way::PublishBeforeConnect => after(2, "Authorization Violation", "no_credentials"),
            Way::HugeSize | Way::PayloadTooLarge => after(2, "Maximum Payload Violation", "protocol"),
            Way::NegativeSize => after(2, "", "protocol"),
            Way::SlowConsumer => after(10, "", "slow_consumer"),
            Way::LoginSilence | Way::LoginSlowHead => after(5, "", ""),
            Way::LoginSlowBody => after(15, " 408 ", ""),
            Way::LoginHugeBody => after(5, " 413 ", ""),
            Way::LoginHugeHead => after(5, " 431 ", ""),
            Way::MonitoringSlowHead | Way::MonitoringWithoutReading => after(10, "", ""),
            Way::Churn
            | Way::ManySubscriptions
            | Way::StrangeSubjects
            | Way::PingsWithoutReading
            | Way::Flood
            | Way::CandidateFlood => None,
        }
    }

    /// What a connection that stays is told.
    pub fn refusal(self) -> Option<&'static str> {
        match self {
            Way::ManySubscriptions => Some("maximum subscriptions exceeded"),
            Way::StrangeSubjects => Some("too many tokens"),
            Way::CandidateFlood => Some("Permissions Violation"),
            _ => None,
        }
    }

    /// Misbehaves once; what was heard until the end.
    pub(crate) async fn once(self, target: &Target, peer: Peer) -> Result<Vec<u8>> {
        match self {
            Way::LoginSilence
            | Way::LoginSlowHead
            | Way::LoginSlowBody
            | Way::LoginHugeBody
            | Way::LoginHugeHead
            | Way::MonitoringSlowHead
            | Way::MonitoringWithoutReading => web::misbehave(self, target, peer).await,
            Way::Churn
            | Way::HugeSize
            | Way::NegativeSize
            | Way::PayloadTooLarge
            | Way::ManySubscriptions
            | Way::StrangeSubjects
            | Way::PingsWithoutReading
            | Way::SlowConsumer
            | Way::Flood
            | Way::CandidateFlood => member::misbehave(self, target, peer).await,
            _ => stranger::misbehave(self, target, peer).await,
        }
    }
}
