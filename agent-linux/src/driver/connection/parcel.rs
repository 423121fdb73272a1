//! The address of a reply, kept while its call runs.

use agent_core::dispatch::Return;
use agent_core::wire::transport::FederationHeaders;

/// An owned [`Return`].
#[derive(Debug, Clone)]
pub(super) struct Parcel {
    subject: String,
    request_id: String,
    agent: String,
    action: String,
    federation: Option<Federation>,
}

#[derive(Debug, Clone)]
struct Federation {
    request: Option<String>,
    reply: Option<String>,
    targets: Option<Vec<u8>>,
}

impl Parcel {
    pub(super) fn of(to: &Return<'_>) -> Parcel {
        Parcel {
            subject: to.subject.to_owned(),
            request_id: to.request_id.to_owned(),
            agent: to.agent.to_owned(),
            action: to.action.to_owned(),
            federation: to.federation.as_ref().map(|headers| Federation {
                request: headers.request.map(str::to_owned),
                reply: headers.reply.map(str::to_owned),
                targets: headers.targets.map(<[u8]>::to_vec),
            }),
        }
    }

    pub(super) fn address(&self) -> Return<'_> {
        Return {
            subject: &self.subject,
            request_id: &self.request_id,
            agent: &self.agent,
            action: &self.action,
            federation: self.federation.as_ref().map(|headers| FederationHeaders {
                request: headers.request.as_deref(),
                reply: headers.reply.as_deref(),
                targets: headers.targets.as_deref(),
            }),
        }
    }

    /// For the log.
    pub(super) fn request_id(&self) -> &str {
        &self.request_id
    }
}
