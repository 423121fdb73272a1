//! From power-on to a connected agent: what is stored decides whether the device is a candidate or a member.

use agent_core::clock::Clock;
use agent_core::dispatch::{ClockRule, ReplyCheck, Rules};
use agent_core::ed25519::SigningKey;
use agent_core::machine::{Config, Core};
use agent_core::nats::Limits;
use agent_core::provision::{After, Provision};
use agent_core::replay::ReplayCache;
use agent_core::rpc::AgentMeta;
use agent_core::session::{AgentRow, Client, SessionConfig};
use agent_core::token::{Issuer, Proven, Reject, Trust, Verifier, peek_provisioning};
use embassy_net::Stack;
use embassy_time::{Duration, Instant, Timer};
use heapless::{String, Vec};

use crate::agents::{Agents, BUILT_IN};
use crate::board::{Board, Key, Store};
use crate::brokers::{self, Broker, MAX_BROKERS};
use crate::connection::{CONNECT_MS, Life, Transport, time};
use crate::generator::Generator;
use crate::image::Image;
use crate::settings::{COLLECTIVES, Membership};
use crate::space::{PROFILE, Space};

/// Agents of a device, the built-in ones included.
const MAX_AGENTS: usize = 12;
/// Longest validity of a request, seconds (docs/spec/10 §9).
const TTL_CAP: u32 = 60;
const PROVISIONING: &str = "provisioning";
const NO_BROKER: &str =
    if cfg!(feature = "dns") { "no broker has an address or a name" } else { "no broker has an address" };
/// Of a candidate, whose image names keys and no organization.
const ORGANIZATION: &str = "choria";

/// Runs the agent for ever: returns only into a restart of the board.
pub async fn run<B: Board, S: Store, A: Agents>(
    board: &B,
    store: &mut S,
    own: &mut A,
    image: &Image<'_>,
    stack: Stack<'_>,
    space: &mut Space,
) -> ! {
    match life(board, store, own, image, stack, space).await {
        Ok(After::Restart { delay_ms }) => {
            board.say(format_args!("restarting in {delay_ms} ms"));
            sleep(board, Duration::from_millis(delay_ms.into())).await;
            board.reset()
        }
        // Nothing of it goes on until somebody takes the power away and gives it back.
        Ok(After::Shutdown { .. }) => rest(board, "shut down").await,
        Err(why) => {
            board.say(format_args!("not starting: {why}"));
            rest(board, "shut down").await
        }
    }
}

/// Does nothing any more, without a watchdog taking it for dead.
async fn rest<B: Board>(board: &B, what: &str) -> ! {
    board.say(format_args!("{what}"));
    loop {
        sleep(board, Duration::from_secs(3600)).await;
    }
}

async fn sleep<B: Board>(board: &B, duration: Duration) {
    let until = Instant::now() + duration;
    while Instant::now() < until {
        board.feed_watchdog();
        Timer::at(until.min(Instant::now() + Duration::from_secs(1))).await;
    }
}

async fn life<B: Board, S: Store, A: Agents>(
    board: &B,
    store: &mut S,
    own: &mut A,
    image: &Image<'_>,
    stack: Stack<'_>,
    space: &mut Space,
) -> Result<After, &'static str> {
    let Space { rx, tx, scratch, reply, tcp_rx, tcp_tx, tls_rx, tls_tx, token, replay } = space;
    let drawn = Drawn::from(board)?;
    let (member, membership) = recall(store, image, token, rx).await?;
    let is_member = member.is_some();
    let clock = Clock::new(floor(store, image).await);
    let wall = time(board, &clock, Instant::now().as_millis());

    let mut access = String::<128>::new();
    let asked = admit(image, wall, clock.floor(), scratch, &mut access, is_member)?;
    let brokers = match (image.urls, is_member) {
        ([], true) => membership.brokers,
        ([], false) => asked,
        (urls, _) => brokers::parse(urls.iter().copied()),
    };
    if brokers.is_empty() {
        return Err(NO_BROKER);
    }
    let organization = if is_member { membership.organization.as_str() } else { ORGANIZATION };
    let mut issuers = Vec::<Issuer<'_>, 4>::new();
    for key in image.issuers {
        let _fits = issuers.push(Issuer { organization, key: *key }).is_ok();
    }
    let users: &[AgentMeta] = if is_member { A::METAS } else { &[] };
    let mut names = Vec::<&str, MAX_AGENTS>::new();
    for meta in BUILT_IN.iter().chain(users) {
        names.push(meta.name).map_err(|_| "more agents than a device has room for")?;
    }
    let rows: Vec<AgentRow<'_>, MAX_AGENTS> =
        names.iter().map(|name| AgentRow { name, service: false, active: true }).collect();
    let identity = if is_member { membership.identity.as_str() } else { image.identity };
    let collectives: Vec<&str, COLLECTIVES> = match is_member {
        true => membership.collectives.iter().map(String::as_str).collect(),
        false => core::iter::once(PROVISIONING).collect(),
    };
    let collectives = collectives.as_slice();
    let own_key = member.and_then(|(seed, _)| SigningKey::from_seed(&seed));
    let mut life = Life {
        board,
        store,
        own,
        image,
        core: machine(
            identity,
            collectives,
            is_member,
            image.require_clock,
            brokers.len(),
            ReplayCache::new(replay, wall.unwrap_or(0), drawn.replay),
            drawn.core,
        ),
        provision: Provision::new(!is_member),
        member: is_member,
        identity,
        collectives,
        main_collective: collectives.first().copied().unwrap_or_default(),
        issuers: &issuers,
        access: &access,
        token: member.map_or(image.provisioning_jwt, |(_, token)| token),
        seed: member.map(|(seed, _)| seed),
        key: own_key.filter(|_| membership.sign_replies),
        rows: &rows,
        names: &names,
        brokers: &brokers,
        rng: Generator::new(drawn.tls),
        rx,
        tx,
        scratch,
        reply,
        dials: 0,
        broker_url: String::new(),
        kept_floor: clock.floor(),
        proven: Proven::default(),
        clock,
        asked_ms: None,
    };
    board.say(format_args!("starting identity={identity} member={is_member}"));
    let mut transport = Transport { stack, tcp_rx, tcp_tx, tls_rx, tls_tx };
    Ok(life.run(&mut transport).await)
}

/// The machine of this device. Apart from the rest of its life: what it takes to make it is off the stack when it runs.
#[inline(never)]
fn machine<'c>(
    identity: &'c str,
    collectives: &'c [&'c str],
    member: bool,
    require_clock: bool,
    brokers: usize,
    replay: ReplayCache<'c>,
    seed: [u8; 32],
) -> Core<'c> {
    let settled = Config {
        identity,
        session: SessionConfig {
            client: Client { name: identity, lang: "rust", version: crate::VERSION },
            require_tls: true,
            servers: u32::try_from(brokers).unwrap_or(1),
            connect_timeout_ms: CONNECT_MS,
            ping_interval_ms: 30_000,
            pings_out: 2,
            limits: Limits { info: 4096, payload: PROFILE.payload() },
        },
        rules: Rules {
            collectives,
            ttl_cap_seconds: TTL_CAP,
            reply_check: ReplyCheck::Caller,
            reply_targets: &[],
            federation: false,
            clock: if member && require_clock { ClockRule::Required } else { ClockRule::Optional },
        },
        component: if member { "server" } else { "provision_mode_server" },
        version: crate::VERSION,
        legacy_events: false,
        node_subjects: true,
    };
    Core::new(settled, replay, seed)
}

/// Looks at the provisioning token: one that is not the organization's, or over, is never presented. Returns its brokers.
#[inline(never)]
fn admit(
    image: &Image<'_>,
    wall: Option<i64>,
    floor: i64,
    scratch: &mut [u8],
    access: &mut String<128>,
    member: bool,
) -> Result<Vec<Broker, MAX_BROKERS>, &'static str> {
    let jwt = image.provisioning_jwt;
    let claims = if image.issuers.is_empty() {
        *peek_provisioning(jwt, scratch).map_err(|reject| reject.reason())?.claims()
    } else {
        let issuers = image.issuers.iter().map(|key| Issuer { organization: ORGANIZATION, key: *key });
        let issuers: Vec<Issuer<'_>, 4> = issuers.take(4).collect();
        let verifier = Verifier::new(Trust::Issuers(&issuers));
        let verifier = if wall.is_some() { verifier } else { verifier.without_clock() };
        let now = wall.map_or(floor, |nanos| nanos.div_euclid(1_000_000_000));
        match verifier.verify_provisioning(jwt, now, scratch) {
            Ok(verified) => *verified.claims(),
            // A member was let in by it once; without its access token nobody can send the device back.
            Err(Reject::Expired) if member => return Ok(Vec::new()),
            Err(reject) => return Err(reject.reason()),
        }
    };
    access.push_str(claims.token).map_err(|_| "the access token of the provisioning token is too long")?;
    Ok(brokers::parse(core::iter::once(claims.urls)))
}

/// The time that it certainly is by now, Unix seconds: that of the image, or a later one that was kept.
async fn floor<S: Store>(store: &mut S, image: &Image<'_>) -> i64 {
    let mut kept = [0_u8; 8];
    let kept = match store.get(Key::TimeFloor, &mut kept).await {
        Ok(Some(bytes)) => bytes.try_into().map_or(0, i64::from_le_bytes),
        _ => 0,
    };
    kept.max(image.built)
}

/// What the storage holds of a member: its seed and token, and its settings. Without all of it the device is a candidate.
pub(crate) async fn recall<'t, S: Store>(
    store: &mut S,
    image: &Image<'_>,
    token: &'t mut [u8],
    room: &mut [u8],
) -> Result<(Option<([u8; 32], &'t str)>, Membership), &'static str> {
    let unreadable = |_| "the storage cannot be read";
    let nobody = || Membership::read("", image.identity);
    let mut seed = [0_u8; 32];
    if store.get(Key::Committed, &mut seed).await.map_err(unreadable)?.is_none() {
        return Ok((None, nobody()));
    }
    let kept = store.get(Key::Seed, &mut seed).await.map_err(unreadable)?;
    let whole = kept.is_some_and(|bytes| bytes.len() == 32);
    let token = store.get(Key::ServerToken, token).await.map_err(unreadable)?;
    let token = token.and_then(|bytes| core::str::from_utf8(bytes).ok());
    let text = store.get(Key::Config, room).await.map_err(unreadable)?;
    match (whole, token, text.map(core::str::from_utf8)) {
        (true, Some(token), Some(Ok(text))) => {
            Ok((Some((seed, token)), Membership::read(text, image.identity)))
        }
        _ => Ok((None, nobody())),
    }
}

/// Random bytes of one start.
struct Drawn {
    core: [u8; 32],
    tls: [u8; 32],
    replay: [u8; 16],
}

impl Drawn {
    fn from<B: Board>(board: &B) -> Result<Drawn, &'static str> {
        let mut drawn = Drawn { core: [0; 32], tls: [0; 32], replay: [0; 16] };
        for part in [&mut drawn.core[..], &mut drawn.tls[..], &mut drawn.replay[..]] {
            board.random(part).map_err(|_| "no entropy")?;
        }
        Ok(drawn)
    }
}
