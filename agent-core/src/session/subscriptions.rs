//! Which subjects a node listens on (`docs/spec/03 §1.3`).

use crate::nats::Outgoing;
use crate::nats::sender::SendError;

/// Rows that a roster may have.
pub const MAX_AGENTS: usize = 256;

/// One agent as the connection sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AgentRow<'a> {
    pub name: &'a str,
    /// Asked on the service subject, in a queue group.
    pub service: bool,
    /// An agent that went away keeps its row, so that the others keep their subscription numbers.
    pub active: bool,
}

/// What is subscribed: every collective's node subject and one subject per agent and collective.
#[derive(Debug, Clone, Copy)]
pub struct Roster<'a> {
    pub collectives: &'a [&'a str],
    pub identity: &'a str,
    pub agents: &'a [AgentRow<'a>],
    /// False for a service host, which has no node subject.
    pub node_subjects: bool,
}

/// How a message reached us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrival<'a> {
    Broadcast { collective: &'a str, agent: &'a str },
    Service { collective: &'a str, agent: &'a str },
    Node { collective: &'a str },
}

impl<'a> Arrival<'a> {
    /// Takes a subject apart. `None` for subjects of other shapes.
    #[must_use]
    pub fn of(subject: &'a str) -> Option<Arrival<'a>> {
        let (collective, rest) = subject.split_once('.')?;
        if let Some(agent) = rest.strip_prefix("broadcast.agent.") {
            return Some(Arrival::Broadcast { collective, agent });
        }
        if let Some(agent) = rest.strip_prefix("broadcast.service.") {
            return Some(Arrival::Service { collective, agent });
        }
        rest.strip_prefix("node.").map(|_| Arrival::Node { collective })
    }

    #[must_use]
    pub const fn collective(&self) -> &'a str {
        match self {
            Arrival::Broadcast { collective, .. }
            | Arrival::Service { collective, .. }
            | Arrival::Node { collective } => collective,
        }
    }
}

/// Walks the roster and remembers which rows the broker knows.
#[derive(Debug, Clone, Default)]
pub(super) struct Walk {
    /// Next row: 0 is the node subjects, n the agent n-1.
    row: usize,
    collective: usize,
    known: [u64; MAX_AGENTS / 64],
}

impl Walk {
    /// Starts over. After a new connection nothing is known; after a change of agents only differences are sent.
    pub(super) const fn restart(&mut self, fresh: bool) {
        self.collective = 0;
        if fresh {
            self.known = [0; MAX_AGENTS / 64];
            self.row = 0;
        } else {
            self.row = 1;
        }
    }

    fn knows(&self, agent: usize) -> bool {
        self.known.get(agent / 64).is_some_and(|word| word & (1 << (agent % 64)) != 0)
    }

    fn mark(&mut self, agent: usize, known: bool) {
        if let Some(word) = self.known.get_mut(agent / 64) {
            let bit = 1 << (agent % 64);
            *word = if known { *word | bit } else { *word & !bit };
        }
    }

    /// Writes as many operations as fit. True when the walk is over.
    pub(super) fn write(&mut self, roster: &Roster<'_>, out: &mut Outgoing<'_>) -> Result<bool, SendError> {
        loop {
            if self.row > roster.agents.len().min(MAX_AGENTS) {
                return Ok(true);
            }
            match self.write_one(roster, out) {
                Ok(()) => {}
                // The rest goes into the next, empty buffer; a single line that never fits is an error.
                Err(SendError::NoRoom) if !out.is_empty() => return Ok(false),
                Err(SendError::BadSubject) => {}
                Err(error) => return Err(error),
            }
            self.collective = self.collective.saturating_add(1);
            if self.collective >= roster.collectives.len() {
                if let Some(agent) = self.row.checked_sub(1) {
                    let active = roster.agents.get(agent).is_some_and(|row| row.active);
                    self.mark(agent, active);
                }
                self.collective = 0;
                self.row = self.row.saturating_add(1);
            }
        }
    }

    fn write_one(&self, roster: &Roster<'_>, out: &mut Outgoing<'_>) -> Result<(), SendError> {
        let Some(collective) = roster.collectives.get(self.collective) else { return Ok(()) };
        let mut name = heapless::String::<512>::new();
        let sid = sid(self.row, self.collective);
        let Some(agent) = self.row.checked_sub(1) else {
            if !roster.node_subjects {
                return Ok(());
            }
            join(&mut name, &[collective, ".node.", roster.identity])?;
            return out.subscribe(&name, None, sid);
        };
        let Some(row) = roster.agents.get(agent) else { return Ok(()) };
        match (row.active, self.knows(agent)) {
            (true, true) | (false, false) => Ok(()),
            (false, true) => out.unsubscribe(sid),
            (true, false) if row.service => {
                join(&mut name, &[collective, ".broadcast.service.", row.name])?;
                out.subscribe(&name, Some(row.name), sid)
            }
            (true, false) => {
                join(&mut name, &[collective, ".broadcast.agent.", row.name])?;
                out.subscribe(&name, None, sid)
            }
        }
    }
}

fn join(to: &mut heapless::String<512>, parts: &[&str]) -> Result<(), SendError> {
    parts.iter().try_for_each(|part| to.push_str(part).map_err(|_| SendError::BadSubject))
}

/// Rows and collectives never share a number; 0 is never used.
fn sid(row: usize, collective: usize) -> u32 {
    let number = row.saturating_mul(256).saturating_add(collective).saturating_add(1);
    u32::try_from(number).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::String;
    use std::vec::Vec;

    fn drain(walk: &mut Walk, roster: &Roster<'_>, size: usize) -> String {
        let mut all = Vec::new();
        loop {
            let mut buffer = std::vec![0u8; size];
            let mut out = Outgoing::new(&mut buffer);
            let done = walk.write(roster, &mut out).unwrap();
            all.extend_from_slice(out.finish());
            if done {
                return String::from_utf8(all).unwrap();
            }
        }
    }

    #[test]
    fn every_collective_every_agent_once() {
        let mut agents = [
            AgentRow { name: "rpcutil", service: false, active: true },
            AgentRow { name: "choria_registry", service: true, active: true },
        ];
        let roster = Roster {
            collectives: &["choria", "edge"],
            identity: "n1.example.net",
            agents: &agents,
            node_subjects: true,
        };
        let expected = "SUB choria.node.n1.example.net 1\r\nSUB edge.node.n1.example.net 2\r\n\
            SUB choria.broadcast.agent.rpcutil 257\r\nSUB edge.broadcast.agent.rpcutil 258\r\n\
            SUB choria.broadcast.service.choria_registry choria_registry 513\r\n\
            SUB edge.broadcast.service.choria_registry choria_registry 514\r\n";
        for size in [70, 100, 4096] {
            let mut walk = Walk::default();
            walk.restart(true);
            assert_eq!(drain(&mut walk, &roster, size), expected);
        }
        let mut walk = Walk::default();
        walk.restart(true);
        drain(&mut walk, &roster, 4096);
        agents[0].active = false;
        let roster = Roster {
            collectives: &["choria", "edge"],
            identity: "n1.example.net",
            agents: &agents,
            node_subjects: true,
        };
        walk.restart(false);
        assert_eq!(drain(&mut walk, &roster, 4096), "UNSUB 257\r\nUNSUB 258\r\n");
        walk.restart(false);
        assert_eq!(drain(&mut walk, &roster, 4096), "");
    }

    #[test]
    fn subjects_taken_apart() {
        assert_eq!(
            Arrival::of("c.broadcast.agent.rpcutil"),
            Some(Arrival::Broadcast { collective: "c", agent: "rpcutil" })
        );
        assert_eq!(
            Arrival::of("c.broadcast.service.x"),
            Some(Arrival::Service { collective: "c", agent: "x" })
        );
        assert_eq!(Arrival::of("c.node.n1.example.net"), Some(Arrival::Node { collective: "c" }));
        assert_eq!(Arrival::of("c.reply.x"), None);
    }
}
