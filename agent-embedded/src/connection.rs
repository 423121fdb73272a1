//! The machine with its transport: one connection after the other, until the device starts anew.

use core::cell::RefCell;
use core::fmt::Write as _;
use core::net::Ipv4Addr;
use core::pin::pin;

use agent_core::clock::Clock;
use agent_core::dispatch::{Body, Signer, Via};
use agent_core::ed25519::SigningKey;
use agent_core::lifecycle::Kind;
use agent_core::machine::{Buffers, Core, Event, Input, Now, Output};
use agent_core::provision::{self, After, Moment, Provision};
use agent_core::rpc::{Call, ReplyWriter, Status, StatusCode, StatusText};
use agent_core::session::{AgentRow, Credentials};
use agent_core::token::{Issuer, Proven};
use agent_core::x509pin::ServerName;
use embassy_futures::select::{Either, select};
use embassy_net::tcp::TcpSocket;
use embassy_net::{IpAddress, Stack};
use embassy_time::{Duration, Instant, Timer, with_timeout};
use embedded_io_async::{Read as _, Write as _};
use embedded_tls::{Aes128GcmSha256, TlsConfig, TlsConnection, TlsContext, TlsWriter};
use heapless::String;

use crate::agents::{About, Agents, choria_util, rpcutil};
use crate::board::{Board, Key, Store};
use crate::brokers::{self, Broker, Host, MAX_URL};
use crate::gate::DeviceGate;
use crate::generator::Generator;
use crate::image::Image;
#[cfg(feature = "dns")]
use crate::names;
use crate::provisioning::{self, Surroundings};
use crate::sntp;
use crate::socket::Socket;
use crate::tls::{PinVerifier, Provider};
use crate::waiting::within;

/// Seconds for TCP and TLS, each.
const HANDSHAKE: u32 = 10;
/// Seconds for a name: a server that is silent is left for the second one after 15.
#[cfg(feature = "dns")]
const NAMES: u32 = 20;
/// Time from dial to connected: the sum of what each step may take, and a little.
pub(crate) const CONNECT_MS: u64 = if cfg!(feature = "dns") { 75_000 } else { 20_000 };
/// Time to get bytes out; no watchdog bites within it.
const WRITE: Duration = Duration::from_secs(5);
/// Time for INFO.
const GREETING_PATIENCE: Duration = Duration::from_secs(5);
/// Bytes that are taken from the socket at once before TLS; INFO comes in these.
const GREETING: usize = 64;
/// A time that was heard so long ago is asked for again: before the next connection, and by ending one.
const HEARD_MS: u64 = 3_600_000;
const STALE_MS: u64 = 24 * HEARD_MS;
/// Between questions that nobody answered, while no time is known at all; else an hour.
const UNANSWERED_MS: u64 = 600_000;
/// The floor of the time is kept when it has risen by a day, seconds: flash wears.
const FLOOR_STEP: i64 = 86_400;

/// What stays the same over all connections.
pub(crate) struct Life<'l, B, S, A> {
    pub(crate) board: &'l B,
    pub(crate) store: &'l mut S,
    pub(crate) own: &'l mut A,
    pub(crate) image: &'l Image<'l>,
    pub(crate) core: Core<'l>,
    pub(crate) provision: Provision,
    pub(crate) member: bool,
    pub(crate) identity: &'l str,
    pub(crate) collectives: &'l [&'l str],
    pub(crate) main_collective: &'l str,
    pub(crate) issuers: &'l [Issuer<'l>],
    /// Access token of the provisioning token.
    pub(crate) access: &'l str,
    /// The token that is presented: the server's, or the provisioning token.
    pub(crate) token: &'l str,
    pub(crate) seed: Option<[u8; 32]>,
    /// Signs replies; `None` while provisioning and where the configuration says so.
    pub(crate) key: Option<SigningKey>,
    pub(crate) rows: &'l [AgentRow<'l>],
    pub(crate) names: &'l [&'l str],
    pub(crate) brokers: &'l [Broker],
    pub(crate) rng: Generator,
    pub(crate) rx: &'l mut [u8],
    pub(crate) tx: &'l mut [u8],
    pub(crate) scratch: &'l mut [u8],
    pub(crate) reply: &'l mut [u8],
    pub(crate) dials: usize,
    pub(crate) broker_url: String<MAX_URL>,
    pub(crate) clock: Clock,
    pub(crate) proven: Proven,
    /// The floor that is stored.
    pub(crate) kept_floor: i64,
    /// When a time server was asked last, monotonic milliseconds.
    pub(crate) asked_ms: Option<u64>,
}

/// Buffers of the transport, used by one connection after the other.
pub(crate) struct Transport<'t> {
    pub(crate) stack: Stack<'t>,
    pub(crate) tcp_rx: &'t mut [u8],
    pub(crate) tcp_tx: &'t mut [u8],
    pub(crate) tls_rx: &'t mut [u8],
    pub(crate) tls_tx: &'t mut [u8],
}

/// Where bytes go: nowhere before TLS.
enum Wire<'w, 's: 'w, 'd: 's> {
    Down,
    Tls(TlsWriter<'w, Socket<'s, 'd>, Aes128GcmSha256>),
}

impl<'w, 's: 'w, 'd: 's> Wire<'w, 's, 'd> {
    /// False when the transport is gone or does not take bytes in time.
    async fn send(&mut self, bytes: &[u8]) -> bool {
        let work = async {
            match self {
                Wire::Down => false,
                Wire::Tls(writer) => writer.write_all(bytes).await.is_ok() && writer.flush().await.is_ok(),
            }
        };
        with_timeout(WRITE, work).await.unwrap_or(false)
    }
}

/// What a run of steps leaves to do.
#[derive(Debug, Clone, Copy)]
enum Todo {
    Rest,
    Dial,
    Secure,
    Drop,
    Leave(After),
}

impl<B: Board, S: Store, A: Agents> Life<'_, B, S, A> {
    fn now(&self) -> Now {
        let mono_ms = Instant::now().as_millis();
        Now { mono_ms, wall_nanos: time(self.board, &self.clock, mono_ms) }
    }

    /// Asks a time server where the board has no clock. Nobody is asked often.
    async fn learn_time(&mut self, broker: Ipv4Addr, transport: &mut Transport<'_>) {
        let now = Instant::now().as_millis();
        if !self.may_ask(now, HEARD_MS) {
            return;
        }
        self.asked_ms = Some(now);
        let named = self.image.time_server.and_then(|server| brokers::one(server, agent_core::sntp::PORT));
        let server = match named {
            Some(Broker { host, port }) => self.find(transport.stack, &host).await.map(|found| (found, port)),
            None => Some((broker, agent_core::sntp::PORT)),
        };
        let Transport { stack, tcp_rx, tcp_tx, .. } = transport;
        if let Some(server) = server
            && let Some((nanos, at)) = sntp::ask(*stack, server, &mut self.rng, tcp_rx, tcp_tx).await
        {
            self.board.say(format_args!("time {}", nanos.div_euclid(1_000_000_000)));
            if self.clock.hear(nanos, at) {
                self.core.clock_known(nanos);
                return;
            }
        }
        self.board.say(format_args!("no time is known"));
    }

    /// The address of a host; of several the next with each round over the brokers.
    #[cfg(feature = "dns")]
    async fn find(&self, stack: Stack<'_>, host: &Host) -> Option<Ipv4Addr> {
        let turn = self.dials.checked_div(self.brokers.len()).unwrap_or(0);
        let found = within(self.board, NAMES, pin!(names::address(stack, host, turn))).await.flatten();
        if found.is_none() {
            self.board.say(format_args!("no address name={host}"));
        }
        found
    }

    #[cfg(not(feature = "dns"))]
    async fn find(&self, _stack: Stack<'_>, host: &Host) -> Option<Ipv4Addr> {
        let Host::Address(address) = host;
        Some(*address)
    }

    /// Whether a time server has to be asked, for which the connection must end: they share their buffers. Only a member that
    /// serves nothing without the time has a reason to.
    fn needs_time(&self) -> bool {
        if !(self.member && self.image.require_clock) {
            return false;
        }
        self.may_ask(Instant::now().as_millis(), STALE_MS)
    }

    /// Whether the board has no clock, what was heard is `old`, and nobody was asked for a while.
    #[inline(never)]
    fn may_ask(&self, mono_ms: u64, old: u64) -> bool {
        let since = |at: Option<u64>| at.map_or(u64::MAX, |at| mono_ms.saturating_sub(at));
        let heard = since(self.clock.heard_ms());
        let pause = if heard == u64::MAX { UNANSWERED_MS } else { HEARD_MS };
        own_time(self.board, &self.clock).is_none() && heard >= old && since(self.asked_ms) >= pause
    }

    async fn keep_floor(&mut self) {
        let floor = self.clock.floor();
        if floor.saturating_sub(self.kept_floor) >= FLOOR_STEP {
            // Storage that fails is not tried again with every request.
            self.kept_floor = floor;
            if self.store.set(Key::TimeFloor, &floor.to_le_bytes()).await.is_err() {
                self.board.say(format_args!("the time {floor} cannot be stored"));
            }
        }
    }

    /// Connects, serves and connects again, until the device has to start anew.
    pub(crate) async fn run(&mut self, transport: &mut Transport<'_>) -> After {
        let mut next = Input::Tick;
        loop {
            match self.drive(next, &mut Wire::Down).await {
                Todo::Dial => match self.connect(transport).await {
                    Ended::Leave(after) => return after,
                    Ended::Told => next = Input::Tick,
                    Ended::Failed(input) => next = input,
                },
                _ => {
                    next = Input::Tick;
                    self.wait().await;
                }
            }
            self.board.feed_watchdog();
        }
    }

    /// Until the machine has something to do; at most a second, so that the watchdog is fed.
    async fn wait(&self) {
        let second = Instant::now() + Duration::from_secs(1);
        let due = self.core.deadline().map_or(second, |ms| Instant::from_millis(ms.saturating_add(1)));
        Timer::at(due.min(second)).await;
    }

    /// One connection from dial to loss.
    async fn connect(&mut self, transport: &mut Transport<'_>) -> Ended {
        let brokers = self.brokers;
        let broker = brokers.get(self.dials.checked_rem(brokers.len()).unwrap_or(0));
        let Some(broker) = broker else { return Ended::Failed(Input::DialFailed) };
        let found = self.find(transport.stack, &broker.host).await;
        self.dials = self.dials.wrapping_add(1);
        let Some(address) = found else { return Ended::Failed(Input::DialFailed) };
        self.broker_url.clear();
        let _fits = write!(self.broker_url, "nats://{}:{}", broker.host, broker.port);
        self.learn_time(address, transport).await;
        let mut socket = TcpSocket::new(transport.stack, transport.tcp_rx, transport.tcp_tx);
        socket.set_timeout(Some(Duration::from_secs(60)));
        let to = (IpAddress::Ipv4(address), broker.port);
        if !matches!(within(self.board, HANDSHAKE, pin!(socket.connect(to))).await, Some(Ok(()))) {
            return Ended::Failed(Input::DialFailed);
        }
        let socket = RefCell::new(socket);
        let ended = self.talk(Socket::new(&socket), &broker.host, transport.tls_rx, transport.tls_tx).await;
        // What was said last still has to leave; a peer that takes nothing does not hold the device up.
        let mut socket = socket.into_inner();
        socket.close();
        let _left = with_timeout(Duration::from_secs(1), socket.flush()).await.is_ok();
        socket.abort();
        ended
    }

    /// INFO in the clear, then TLS, then everything else.
    async fn talk<'s, 'd: 's>(
        &mut self,
        socket: Socket<'s, 'd>,
        host: &Host,
        tls_rx: &'s mut [u8],
        tls_tx: &'s mut [u8],
    ) -> Ended {
        if let Some(ended) = self.greet(socket).await {
            return ended;
        }
        let mut connection = TlsConnection::new(socket, tls_rx, tls_tx);
        if let Some(why) = self.secure(&mut connection, host).await {
            self.board.say(format_args!("tls refused reason={why}"));
            return Ended::Failed(Input::TlsFailed);
        }
        self.serve(socket, &mut connection).await
    }

    /// Until TLS is to begin. Nothing is read past the line that INFO is: what follows belongs to TLS.
    async fn greet(&mut self, mut socket: Socket<'_, '_>) -> Option<Ended> {
        let began = Instant::now();
        let mut line = heapless::Vec::<u8, GREETING>::new();
        let mut next = Input::Dialed;
        loop {
            match self.drive(next, &mut Wire::Down).await {
                Todo::Secure => return None,
                Todo::Drop => return Some(Ended::Told),
                Todo::Leave(after) => return Some(Ended::Leave(after)),
                Todo::Rest | Todo::Dial => {}
            }
            line.clear();
            while line.last() != Some(&b'\n') && !line.is_full() {
                let mut byte = [0_u8; 1];
                let left = GREETING_PATIENCE.checked_sub(began.elapsed()).unwrap_or(Duration::from_ticks(0));
                if !matches!(with_timeout(left, socket.read(&mut byte)).await, Ok(Ok(1))) {
                    return Some(Ended::Failed(Input::Disconnected));
                }
                let _room = line.extend_from_slice(&byte).is_ok();
            }
            next = Input::Received(&line);
        }
    }

    /// The handshake; `Some` holds why there is none.
    async fn secure<'s, 'd: 's>(
        &mut self,
        connection: &mut TlsConnection<'s, Socket<'s, 'd>, Aes128GcmSha256>,
        broker: &Host,
    ) -> Option<&'static str> {
        let mut host = String::<16>::new();
        let (name, host) = match (self.image.server_name, broker) {
            (Some(name), _) => (ServerName::Dns(name), name),
            #[cfg(feature = "dns")]
            (None, Host::Name(name)) => (ServerName::Dns(name), name.as_str()),
            (None, Host::Address(address)) => {
                let _fits = write!(host, "{address}");
                (ServerName::Ip(address.octets()), host.as_str())
            }
        };
        let now = self.now().wall_nanos.map(|nanos| nanos.div_euclid(1_000_000_000));
        let mut verifier = PinVerifier::new(self.image.pins, name, now);
        let config = TlsConfig::new().with_server_name(host);
        let provider = Provider { rng: &mut self.rng, verifier: &mut verifier };
        let opened = {
            let opening = pin!(connection.open(TlsContext::new(&config, provider)));
            within(self.board, HANDSHAKE, opening).await
        };
        match opened {
            Some(Ok(())) => None,
            Some(Err(_)) => Some(verifier.refused.unwrap_or("handshake")),
            None => Some("timeout"),
        }
    }

    /// An encrypted connection until it ends.
    async fn serve<'s, 'd: 's>(
        &mut self,
        socket: Socket<'s, 'd>,
        connection: &mut TlsConnection<'s, Socket<'s, 'd>, Aes128GcmSha256>,
    ) -> Ended {
        /// What the next run of steps is about.
        #[derive(Clone, Copy, PartialEq)]
        enum Turn {
            Secured,
            Time,
            Bytes,
            /// Says goodbye, then is over.
            Goodbye(After, u8),
        }
        let (mut reader, writer) = connection.split();
        let mut wire = Wire::Tls(writer);
        let mut turn = Turn::Secured;
        loop {
            let mut arrived;
            let input = match turn {
                Turn::Secured => Input::Secured,
                Turn::Time => Input::Tick,
                Turn::Goodbye(after, 0) => return Ended::Leave(after),
                Turn::Goodbye(..) => Input::Stop,
                Turn::Bytes => match within(self.board, HANDSHAKE, pin!(reader.read_buffered())).await {
                    Some(Ok(buffer)) => {
                        arrived = buffer;
                        Input::Received(arrived.pop_all())
                    }
                    _ => return Ended::Failed(Input::Disconnected),
                },
            };
            let todo = self.drive(input, &mut wire).await;
            self.board.feed_watchdog();
            self.keep_floor().await;
            turn = match (todo, turn) {
                (_, Turn::Goodbye(after, left)) => Turn::Goodbye(after, left.saturating_sub(1)),
                (Todo::Leave(after), _) => Turn::Goodbye(after, 2),
                (Todo::Drop, _) => return Ended::Told,
                _ if self.needs_time() => return Ended::Failed(Input::Disconnected),
                // Waiting may be given up at any time; reading a record may not.
                _ => match select(socket.readable(), self.wait()).await {
                    Either::First(()) => Turn::Bytes,
                    Either::Second(()) => Turn::Time,
                },
            };
        }
    }

    /// Steps until the machine rests.
    async fn drive(&mut self, first: Input<'_>, wire: &mut Wire<'_, '_, '_>) -> Todo {
        let mut rest: &[u8] = if let Input::Received(bytes) = first { bytes } else { &[] };
        let stopping = matches!(first, Input::Stop);
        let mut next = Some(first);
        let mut prove = false;
        loop {
            // each turn sends once or twice
            self.board.feed_watchdog();
            let now = self.now();
            let credentials =
                Credentials { token: Some(self.token), seed: self.seed.as_ref(), ..Credentials::default() };
            let input = match next.take() {
                _ if core::mem::take(&mut prove) => Input::Credentials(&credentials),
                Some(input) if !matches!(input, Input::Received(_)) => input,
                _ => Input::Received(rest),
            };
            let mut gate = DeviceGate {
                board: self.board,
                member: self.member,
                issuers: self.issuers,
                identity: self.identity,
                agents: self.names,
                scratch: &mut *self.scratch,
                clock: &mut self.clock,
                proven: &self.proven,
            };
            let buffers = Buffers { rx: &mut *self.rx, tx: &mut *self.tx };
            let step = self.core.step(now, input, self.rows, &mut gate, buffers);
            rest = rest.get(step.consumed..).unwrap_or_default();
            let (to, call, fixed) = match step.output {
                Output::Idle if rest.is_empty() || stopping => return Todo::Rest,
                Output::Idle => continue,
                Output::Dial { .. } => return Todo::Dial,
                Output::UpgradeTls => return Todo::Secure,
                Output::Authenticate => {
                    prove = true;
                    continue;
                }
                Output::Send(bytes) => {
                    if !wire.send(bytes).await {
                        next = Some(Input::Disconnected);
                    }
                    continue;
                }
                Output::Disconnect(reason) => {
                    self.board.say(format_args!("connection ended reason={}", reason.reason()));
                    return Todo::Drop;
                }
                Output::Event(event) => {
                    report(self.board, &event);
                    continue;
                }
                Output::Pong { to } => (to, None, Body::Pong),
                Output::Answer { to, status } => {
                    let text = if let StatusText::Fixed(text) = status.text() { text } else { "" };
                    (to, None, Body::Rpc { code: status.code(), text, data: b"{}" })
                }
                Output::Call { call, to, .. } => (to, Some(call), Body::Pong),
            };
            let mut announce = false;
            let body = match &call {
                None => fixed,
                Some(call) => {
                    let mut pieces = Pieces {
                        about: About {
                            board: self.board,
                            collectives: self.collectives,
                            main_collective: self.main_collective,
                            own: A::METAS,
                            counters: *self.core.counters(),
                            member: self.member,
                            broker: &self.broker_url,
                            uptime: now.mono_ms / 1000,
                            wall_nanos: now.wall_nanos,
                        },
                        store: &mut *self.store,
                        own: &mut *self.own,
                        image: self.image,
                        provision: &mut self.provision,
                        access: self.access,
                        room: &mut *self.tx,
                        announce: false,
                    };
                    let finished = pieces.answer(call, &mut *self.scratch, &mut *self.reply).await;
                    announce = pieces.announce;
                    if finished.silent {
                        continue;
                    }
                    Body::Rpc { code: finished.code, text: finished.text, data: finished.data }
                }
            };
            if announce && let Some(bytes) = self.core.event(now, Kind::Provisioned, &mut *self.tx) {
                let _told = wire.send(bytes).await;
                self.board.feed_watchdog();
            }
            let signer = self.key.as_ref().map(|key| Signer { key, token: self.token });
            let via = Via { signer, broker: &self.broker_url };
            match self.core.respond(now, &to, body, via, &mut *self.tx, &mut *self.scratch) {
                Ok(bytes) if !wire.send(bytes).await => next = Some(Input::Disconnected),
                Ok(_) => {}
                Err(_) => self.board.say(format_args!("reply dropped reason=oversize")),
            }
            if let Some(after) = self.provision.take_after() {
                return Todo::Leave(after);
            }
        }
    }
}

/// Unix nanoseconds as the device believes them; `None` while it knows no more than the floor (docs/spec/08 §7.5).
pub(crate) fn time<B: Board>(board: &B, clock: &Clock, mono_ms: u64) -> Option<i64> {
    own_time(board, clock).or_else(|| clock.nanos(mono_ms))
}

/// What the board's clock says, unless it is wrong for certain.
pub(crate) fn own_time<B: Board>(board: &B, clock: &Clock) -> Option<i64> {
    board.wall_nanos().and_then(|nanos| clock.possible(nanos))
}

/// How a connection ended.
enum Ended {
    /// The machine wanted it so.
    Told,
    /// The machine has to hear of it.
    Failed(Input<'static>),
    Leave(After),
}

fn report<B: Board>(board: &B, event: &Event<'_>) {
    match event {
        Event::Ready => board.say(format_args!("connected")),
        Event::Refused { reason, subject } => {
            board.say(format_args!("request dropped reason={reason} subject={subject}"))
        }
        Event::TooLarge { subject, size } => {
            board.say(format_args!("message dropped reason=oversize size={size} subject={subject}"));
        }
        Event::BrokerError(text) => board.say(format_args!("broker error: {text}")),
    }
}

/// What a call works with.
struct Pieces<'p, B, S, A> {
    about: About<'p, B>,
    store: &'p mut S,
    own: &'p mut A,
    image: &'p Image<'p>,
    provision: &'p mut Provision,
    access: &'p str,
    /// For a configuration on its way to flash: nothing is sent meanwhile.
    room: &'p mut [u8],
    announce: bool,
}

impl<B: Board, S: Store, A: Agents> Pieces<'_, B, S, A> {
    /// Runs a call within its time; whoever takes longer is answered for.
    async fn answer<'b>(
        &mut self,
        call: &Call<'_>,
        scratch: &mut [u8],
        buffer: &'b mut [u8],
    ) -> agent_core::rpc::Finished<'b> {
        let limit = self.about.metas().find(|meta| meta.name == call.agent);
        let limit = limit.map_or(10, |meta| meta.timeout_seconds).min(call.ttl_seconds).max(1);
        let mut out = ReplyWriter::new(buffer);
        let board = self.about.board;
        let status = {
            let work = pin!(self.run(call, scratch, &mut out));
            within(board, limit, work).await
        };
        let status = status.unwrap_or_else(|| {
            Status::fixed(StatusCode::Aborted, "The action took too long and was given up")
        });
        out.finish(status)
    }

    async fn run(&mut self, call: &Call<'_>, scratch: &mut [u8], out: &mut ReplyWriter<'_>) -> Status {
        if self.about.member
            && let Err(reason) = crate::policy::decide(call, self.image.trust_signer_for_policies, scratch)
        {
            let (caller, agent, action) = (call.caller, call.agent, call.action);
            self.about.board.say(format_args!(
                "request denied reason=denied why={reason} caller={caller} agent={agent} action={action}"
            ));
            return Status::not_authorized();
        }
        if call.agent == rpcutil::META.name {
            return rpcutil::handle(&self.about, call, out);
        }
        if call.agent == choria_util::META.name {
            return choria_util::handle(&self.about, call, out);
        }
        if call.agent == provision::META.name {
            return self.provision(call, scratch, out).await;
        }
        self.own.handle(*call, out).await
    }

    async fn provision(&mut self, call: &Call<'_>, scratch: &mut [u8], out: &mut ReplyWriter<'_>) -> Status {
        let mut key = zeroize::Zeroizing::new([0_u8; 32]);
        let drawn = self.about.board.random(&mut *key).is_ok();
        let mut random = [0_u8; 4];
        let _or_zero = self.about.board.random(&mut random).is_ok();
        let moment = Moment {
            now_ms: Instant::now().as_millis(),
            key_material: drawn.then_some(*key),
            random: u32::from_le_bytes(random),
        };
        let mut around = Surroundings {
            store: &mut *self.store,
            image: self.image,
            token: self.access,
            active: !self.about.member,
            config: &mut *self.room,
            announce: false,
        };
        let status = provisioning::handle(self.provision, &mut around, call, &moment, out, scratch).await;
        self.announce = around.announce;
        status
    }
}
