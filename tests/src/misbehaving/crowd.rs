//! Many who misbehave at once, and what became of each attempt.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::peer::Peer;
use super::{Target, Way};

/// Between two attempts of one, so that the attackers do not take the machine from those they attack.
const BREATH: Duration = Duration::from_millis(200);

/// What became of one way.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    pub attempts: u64,
    /// Attempts in which the words were heard that this way ends, or is refused, with.
    pub heard: u64,
    /// Attempts that could not begin: nobody took the connection, or hung up during the handshake.
    pub turned_away: u64,
    pub longest: Duration,
    /// Still connected when it should long have been over.
    pub endless: u64,
    pub last_words: String,
}

/// Everybody.
#[derive(Debug)]
pub struct Crowd {
    tallies: Arc<Mutex<BTreeMap<Way, Tally>>>,
    stop: watch::Sender<bool>,
    members: JoinSet<()>,
}

impl Crowd {
    /// Lets `size` connections misbehave, spread over all ways, each from an address of its own.
    pub fn gather(target: &Arc<Target>, size: usize) -> Crowd {
        let (stop, stopped) = watch::channel(false);
        let tallies = Arc::new(Mutex::new(BTreeMap::new()));
        let mut members = JoinSet::new();
        for (number, way) in Way::ALL.into_iter().cycle().take(size).enumerate() {
            let [.., high, low] = number.to_be_bytes();
            let peer = Peer { from: Ipv4Addr::new(127, 66, high, low.saturating_add(1)), number };
            let (target, tallies, mut stopped) = (Arc::clone(target), Arc::clone(&tallies), stopped.clone());
            members.spawn(async move {
                tokio::select! {
                    () = misbehave(way, &target, peer, &tallies) => {}
                    _ = stopped.changed() => {}
                }
            });
        }
        Crowd { tallies, stop, members }
    }

    /// Everybody leaves at once, wherever they stand.
    pub async fn disperse(mut self) -> BTreeMap<Way, Tally> {
        self.stop.send_replace(true);
        while self.members.join_next().await.is_some() {}
        self.tallies.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

async fn misbehave(way: Way, target: &Target, peer: Peer, tallies: &Mutex<BTreeMap<Way, Tally>>) {
    let words = way.end().map(|end| end.words).or(way.refusal()).unwrap_or_default();
    let limit = way.end().map_or(Duration::from_secs(60), |end| end.within);
    loop {
        let began = Instant::now();
        let outcome = tokio::time::timeout(limit, way.once(target, peer)).await;
        {
            let mut tallies = tallies.lock().unwrap_or_else(PoisonError::into_inner);
            let tally = tallies.entry(way).or_default();
            tally.attempts += 1;
            match outcome {
                Err(_) => tally.endless += 1,
                Ok(Err(_)) => tally.turned_away += 1,
                Ok(Ok(heard)) => {
                    let heard = String::from_utf8_lossy(&heard);
                    tally.heard += u64::from(heard.contains(words));
                    tally.last_words = heard.chars().take(120).collect();
                    tally.longest = tally.longest.max(began.elapsed());
                }
            }
        }
        tokio::time::sleep(BREATH).await;
    }
}

impl Tally {
    /// It was tried, it ended in time, and as it should.
    pub fn is_as_agreed(&self, way: Way) -> Result<()> {
        ensure!(self.attempts > self.turned_away, "{way:?} was never tried: {self:?}");
        ensure!(self.endless == 0, "{way:?} did not end: {self:?}");
        // a member that is pushed aside in the middle hears less
        ensure!(self.heard > 0, "{way:?} did not end as agreed: {self:?}");
        Ok(())
    }
}
