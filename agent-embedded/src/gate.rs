//! Whom a device obeys, and whether it is meant.

use agent_core::clock::Clock;
use agent_core::dispatch::gate::{self, Accepted, Gate};
use agent_core::filter::{Filter, NoExpressions, NoRegex, Node};
use agent_core::rpc::ReplyWriter;
use agent_core::secure::{DelegatedCaller, Policy};
use agent_core::token::{Issuer, Proven, Trust, Verifier};

use crate::board::Board;
use crate::connection::own_time;

/// Room for the facts while a filter is evaluated.
const FACTS: usize = 384;

pub(crate) struct DeviceGate<'g, B> {
    pub(crate) board: &'g B,
    /// A candidate obeys its provisioner, a member the fleet's callers.
    pub(crate) member: bool,
    pub(crate) issuers: &'g [Issuer<'g>],
    pub(crate) identity: &'g str,
    pub(crate) agents: &'g [&'g str],
    pub(crate) scratch: &'g mut [u8],
    /// Learns from tokens how late it is at least.
    pub(crate) clock: &'g mut Clock,
    pub(crate) proven: &'g Proven,
}

impl<B: Board> Gate for DeviceGate<'_, B> {
    fn accept(&mut self, buffer: &mut [u8], now: Option<i64>) -> Result<Accepted, &'static str> {
        // Without a clock it is as late as it certainly was; the machine then serves nothing that matters.
        let seconds = now.map_or(self.clock.floor(), |nanos| nanos.div_euclid(1_000_000_000));
        let verifier = Verifier::new(Trust::Issuers(self.issuers));
        let verifier = match now {
            None => verifier.without_clock(),
            Some(_) if own_time(self.board, self.clock).is_none() => verifier.with_heard_time(),
            Some(_) => verifier,
        };
        let accepted = if self.member {
            let delegated_caller = DelegatedCaller::Match;
            let policy = Policy { verifier, delegated_caller, proven: Some(self.proven) };
            gate::member(buffer, &policy, seconds, self.scratch)
        } else if self.issuers.is_empty() {
            gate::Unverified::read(buffer)
        } else {
            gate::candidate(buffer, &verifier, seconds, self.scratch)
        };
        // Looked at where it is: it is large, and the stack is deep here.
        if let Ok(Accepted { issued: Some(issued), .. }) = &accepted {
            self.clock.raise(*issued, now);
        }
        accepted
    }

    fn matches(&mut self, filter: &[u8]) -> bool {
        let Ok(filter) = Filter::parse(filter) else { return false };
        let (facts, scratch) = self.scratch.split_at_mut(FACTS.min(self.scratch.len()));
        let mut out = ReplyWriter::new(facts);
        self.board.facts(&mut out);
        let facts = out.finish(agent_core::rpc::Status::ok()).data;
        let classes: &[&str] = &[];
        let node = Node { identity: self.identity, agents: &self.agents, classes: &classes, facts };
        filter.matches(&node, &NoRegex, &NoExpressions, scratch)
    }
}
