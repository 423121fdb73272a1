//! A subscription: whose it is, what it asks for, how much it has had.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize};

use crate::client::Client;
use crate::in_process::LocalQueue;

/// Longest subscription id kept without an allocation.
const INLINE: usize = 22;

/// A subscription id as the client wrote it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Sid {
    Short(u8, [u8; INLINE]),
    Long(Box<[u8]>),
}

impl Sid {
    pub(crate) fn new(bytes: &[u8]) -> Sid {
        let mut short = [0u8; INLINE];
        match (short.get_mut(..bytes.len()), u8::try_from(bytes.len())) {
            (Some(place), Ok(len)) => {
                place.copy_from_slice(bytes);
                Sid::Short(len, short)
            }
            _ => Sid::Long(bytes.into()),
        }
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        match self {
            Sid::Short(len, bytes) => bytes.get(..usize::from(*len)).unwrap_or_default(),
            Sid::Long(bytes) => bytes,
        }
    }
}

/// One subscription in one account's table. What an import sees of it in another account is a second one that
/// points back to it.
#[derive(Debug)]
pub(crate) struct Sub {
    pub(crate) client: Arc<Client>,
    pub(crate) sid: Sid,
    pub(crate) subject: Box<[u8]>,
    /// Empty: no queue group.
    pub(crate) queue: Box<[u8]>,
    /// Some messages that match are denied to the client: ask before each delivery.
    pub(crate) filtered: bool,
    /// Deliveries after which it ends; 0: none.
    pub(crate) max: AtomicU64,
    pub(crate) delivered: AtomicU64,
    /// Its place in the list of its node, kept by the table.
    pub(crate) slot: AtomicUsize,
    /// Set on what an import sees.
    pub(crate) shadow: Option<Shadow>,
    /// Where messages go when the client is in-process.
    pub(crate) local: Option<Arc<LocalQueue>>,
}

/// The importing side of a shadow subscription.
#[derive(Debug)]
pub(crate) struct Shadow {
    pub(crate) parent: Arc<Sub>,
    /// Put before the subject at delivery, with its dot; may be empty.
    pub(crate) prefix: Box<[u8]>,
    /// Index of the exporting account, whose table holds the shadow.
    pub(crate) account: usize,
}

impl Sub {
    /// The subscription that the client knows.
    pub(crate) fn own(&self) -> &Sub {
        self.shadow.as_ref().map_or(self, |shadow| &shadow.parent)
    }
}
