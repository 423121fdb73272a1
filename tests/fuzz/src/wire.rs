//! Protocol v2 as both implementations read it: the core in place over one buffer, the hosts into values of their own.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use agent_core::secure::{DelegatedCaller, Policy, open};
use agent_core::token::{Issuer, Trust, Verifier};
use agent_core::wire;
use choria_protocol::accept::RequestVerifier;
use choria_protocol::{ProtocolError, Reply, Request, SecureReply, SecureRequest, Transport};
use choria_token::PublicKey;

use crate::Target;
use crate::node::contains;
use crate::oracle::each_once;
use crate::tokens::{NOW, public, texts_with};

pub(crate) const TARGETS: &[Target] = &[
    Target {
        name: "transport",
        oracle: "core decode = host decode, and the host's bytes read back alike",
        run: transport,
        seeds: || texts_with("protocol/v2_messages.json", "v2.transport"),
        words: &[
            "\"protocol\":\"io.choria.protocol.v2.transport\"",
            "\"data\":\"",
            "\"headers\":{",
            "\"reply\":\"",
            "\"sender\":\"",
            "\"federation\":{",
            "\"targets\":[",
            "\"trace\":[[",
            "null",
            "==",
        ],
        longest: 8192,
    },
    Target {
        name: "secure_request",
        oracle: "host verdict = core verdict; only requests that were signed verify",
        run: secure_request,
        seeds: || {
            let mut seeds = texts_with("protocol/v2_messages.json", "v2.secure_request");
            seeds.extend(texts_with("protocol/v2_secure_request_verdicts.json", "v2.secure_request"));
            seeds.retain(|seed| seed.starts_with(b"{\"protocol\":\"io.choria.protocol.v2.secure_request"));
            seeds
        },
        words: &[
            "\"protocol\":\"io.choria.protocol.v2.secure_request\"",
            "\"request\":\"",
            "\"signature\":\"",
            "\"caller\":\"",
            "\"signer\":\"",
            "aW5zZWN1cmU=",
            "\\u0065",
        ],
        longest: 8192,
    },
    Target {
        name: "request",
        oracle: "core decode = host decode, and the host's bytes read back alike",
        run: request,
        seeds: || {
            only(
                texts_with("protocol/v2_messages.json", "v2.request"),
                b"{\"protocol\":\"io.choria.protocol.v2.request",
            )
        },
        words: &[
            "\"protocol\":\"io.choria.protocol.v2.request\"",
            "\"message\":\"",
            "\"id\":\"",
            "\"ttl\":",
            "\"time\":",
            "\"filter\":{",
            "\"agent\":",
            "\"collective\":",
            "1e3",
            "-1",
            "null",
        ],
        longest: 8192,
    },
    Target {
        name: "reply",
        oracle: "core decode = host decode of secure reply and reply; a wrong hash is refused by both",
        run: reply,
        seeds: || {
            let mut seeds = texts_with("protocol/v2_messages.json", "v2.secure_reply");
            seeds.extend(texts_with("protocol/v2_messages.json", "v2.reply"));
            only(seeds, b"{\"protocol\":\"io.choria.protocol.v2.")
        },
        words: &[
            "\"protocol\":\"io.choria.protocol.v2.secure_reply\"",
            "\"protocol\":\"io.choria.protocol.v2.reply\"",
            "\"reply\":\"",
            "\"hash\":\"",
            "\"signature\":\"",
            "\"sender\":\"",
            "\"time\":",
        ],
        longest: 8192,
    },
];

fn only(mut seeds: Vec<Vec<u8>>, head: &[u8]) -> Vec<Vec<u8>> {
    seeds.retain(|seed| seed.starts_with(head));
    seeds
}

fn text(span: Option<wire::Span>, buffer: &[u8]) -> String {
    span.map(|span| span.text(buffer).to_owned()).unwrap_or_default()
}

/// What a reader made of a message: its fields in order, or that it refused.
type Fields = Option<Vec<Vec<u8>>>;

const TRANSPORT: &[&str] = &["protocol", "data", "headers"];
const SECURE_REQUEST: &[&str] = &["protocol", "request", "signature", "caller", "signer"];
const REQUEST: &[&str] =
    &["protocol", "message", "id", "sender", "caller", "collective", "agent", "ttl", "time", "filter"];
const SECURE_REPLY: &[&str] = &["protocol", "reply", "hash", "signature", "sender"];
const REPLY: &[&str] = &["protocol", "message", "request", "sender", "agent", "time"];

/// Both readers made the same of the message. A host also refuses what is ambiguous to others only: names that the core never
/// looks at. The core must refuse its own `names` when they repeat or differ in case.
fn same(names: &[&str], input: &[u8], core: &Fields, host: &Result<Vec<Vec<u8>>, ProtocolError>) {
    if core.is_some() {
        assert!(each_once(input, names), "an ambiguous message was read: {}", String::from_utf8_lossy(input));
    }
    let text = |fields: &Vec<Vec<u8>>| -> Vec<String> {
        fields.iter().map(|field| String::from_utf8_lossy(field).into_owned()).collect()
    };
    match (core, host) {
        (Some(_), Err(ProtocolError::Ambiguous { .. })) => {}
        (Some(core), Ok(host)) if core == host => {}
        (None, Err(_)) => {}
        _ => panic!(
            "core {:?}, host {:?}: {}",
            core.as_ref().map(text),
            host.as_ref().map(text),
            String::from_utf8_lossy(input)
        ),
    }
}

fn core_transport(input: &[u8]) -> Fields {
    let mut buffer = input.to_vec();
    let read = wire::transport::parse(&mut buffer).ok()?;
    let federation = read.federation;
    let field = |span: Option<wire::Span>| text(span, &buffer).into_bytes();
    Some(vec![
        read.data.of(&buffer).to_vec(),
        field(read.reply),
        field(read.sender),
        field(federation.and_then(|federation| federation.request)),
        field(federation.and_then(|federation| federation.reply)),
    ])
}

fn transport(input: &[u8]) {
    let host = Transport::parse(input);
    let fields = |read: &Transport| {
        let federation = read.headers.federation.clone().unwrap_or_default();
        let texts = [&read.headers.reply, &read.headers.sender, &federation.request, &federation.reply];
        let mut fields = vec![read.data.clone()];
        fields.extend(texts.map(|text| text.clone().into_bytes()));
        fields
    };
    let core = core_transport(input);
    // The core leaves the lists to whoever needs them: it may read what the host refuses for their sake.
    let has_lists =
        |text: &[u8]| contains(text, b"trace") || contains(text, b"targets") || contains(text, b"\\u");
    if core.is_none() || host.is_ok() || !has_lists(input) {
        same(TRANSPORT, input, &core, &Transport::parse(input).map(|read| fields(&read)));
    }
    if let Ok(read) = host {
        let written = read.to_bytes().expect("what was read can be written");
        assert_eq!(Transport::parse(&written).ok().as_ref(), Some(&read));
        assert_eq!(core_transport(&written), Some(fields(&read)), "the core reads what the host writes");
    }
}

/// Every request document that somebody signed in the vectors.
static SIGNED: LazyLock<BTreeSet<Vec<u8>>> = LazyLock::new(|| {
    let mut all: Vec<Vec<u8>> = texts_with("protocol/v2_messages.json", "v2.secure_request");
    all.extend(texts_with("protocol/v2_secure_request_verdicts.json", "v2.secure_request"));
    all.iter().filter_map(|text| SecureRequest::parse(text).ok()).map(|secure| secure.request).collect()
});

static HOST: LazyLock<RequestVerifier> = LazyLock::new(|| {
    let key = PublicKey::from_bytes(&public("org_issuer")).expect("a key");
    RequestVerifier::issuers([("choria".to_owned(), vec![key])].into())
});

fn secure_request(input: &[u8]) {
    let host = SecureRequest::parse(input);
    let accepted = host.as_ref().ok().map(|secure| HOST.accept(secure, NOW));
    let host_ok = matches!(accepted, Some(Ok(_)));

    // The core reads it inside its transport, as it comes.
    let mut room = vec![0; input.len() * 2 + 1024];
    let mut sink = agent_core::json::SliceSink::new(&mut room);
    let headers = wire::transport::Headers::default();
    wire::transport::emit(&mut sink, &headers, &mut |inner| inner.put(input)).expect("there is room");
    let length = sink.written().len();
    let buffer = &mut room[..length];
    let issuers = [Issuer { organization: "choria", key: public("org_issuer") }];
    let policy = Policy {
        verifier: Verifier::new(Trust::Issuers(&issuers)),
        delegated_caller: DelegatedCaller::Match,
        proven: None,
    };
    let mut scratch = vec![0; 16 * 1024];
    let opened = if input.is_empty() { None } else { open(buffer).ok() };
    assert!(opened.is_some() || !host_ok, "the core cannot open what the host accepts");
    let verified = opened.map(|envelope| envelope.verify(buffer, &policy, NOW, &mut scratch));
    let core_ok = matches!(verified, Some(Ok(_)));
    let reason = verified.as_ref().map(|result| result.as_ref().err().map(|refusal| refusal.reason()));
    if core_ok {
        assert!(each_once(input, SECURE_REQUEST), "an ambiguous request verifies");
    }
    // As `same`: a host refuses ambiguity beside the core's names too.
    if core_ok && matches!(host, Err(ProtocolError::Ambiguous { .. })) {
        return;
    }
    assert_eq!(
        core_ok,
        host_ok,
        "core {reason:?}, host {:?}: {}",
        accepted.as_ref().map(|result| result.as_ref().err().map(|denied| denied.reason())),
        String::from_utf8_lossy(input)
    );
    if let (Some(Ok(verified)), Some(Ok(accepted)), Ok(secure)) = (&verified, &accepted, &host) {
        assert!(SIGNED.contains(&secure.request), "a request that nobody signed is accepted");
        assert_eq!(verified.request().id.text(buffer), accepted.request().id);
        assert_eq!(verified.request().caller.text(buffer), accepted.request().caller);
        assert_eq!(verified.signer().is_some(), accepted.signer().is_some());
    }
    if let Ok(secure) = host {
        let written = secure.to_bytes();
        assert!(secure.caller.trim().is_empty() || written.is_ok(), "what was read can be written");
    }
}

fn core_request(input: &[u8]) -> Fields {
    let mut buffer = input.to_vec();
    let whole = wire::Span::whole(&buffer);
    let read = wire::request::parse(&mut buffer, whole).ok()?;
    Some(vec![
        read.message.of(&buffer).to_vec(),
        read.id.of(&buffer).to_vec(),
        read.sender.of(&buffer).to_vec(),
        read.caller.of(&buffer).to_vec(),
        read.collective.of(&buffer).to_vec(),
        read.agent.of(&buffer).to_vec(),
        read.ttl.to_string().into_bytes(),
        read.time.to_string().into_bytes(),
    ])
}

fn host_request(input: &[u8]) -> Result<Vec<Vec<u8>>, ProtocolError> {
    let read = Request::parse(input)?;
    let mut fields = vec![read.message.clone()];
    fields.extend(
        [&read.id, &read.sender, &read.caller, &read.collective, &read.agent]
            .map(|text| text.clone().into_bytes()),
    );
    fields.push(read.ttl.to_string().into_bytes());
    fields.push(read.time.to_string().into_bytes());
    Ok(fields)
}

fn request(input: &[u8]) {
    let (core, host) = (core_request(input), host_request(input));
    // The filter is read by whoever evaluates it; the host does so at once.
    match (&core, &host) {
        (Some(_), Err(_)) if contains(input, b"filter") || contains(input, b"\\u") => {}
        _ => same(REQUEST, input, &core, &host),
    }
    if let Ok(read) = Request::parse(input) {
        let written = read.to_bytes().expect("what was read can be written");
        assert_eq!(Request::parse(&written).ok().as_ref(), Some(&read));
        assert_eq!(core_request(&written), host.ok(), "the core reads what the host writes");
    }
}

fn core_secure_reply(input: &[u8]) -> Fields {
    let mut buffer = input.to_vec();
    let whole = wire::Span::whole(&buffer);
    let read = wire::secure_reply::parse(&mut buffer, whole).ok()?;
    let signature = read.signature.map(|span| span.of(&buffer).to_vec()).unwrap_or_default();
    let sender = text(read.sender, &buffer);
    Some(vec![
        read.reply.of(&buffer).to_vec(),
        signature,
        sender.trim_end_matches(['\r', '\n']).as_bytes().to_vec(),
    ])
}

fn core_reply(input: &[u8]) -> Fields {
    let mut buffer = input.to_vec();
    let whole = wire::Span::whole(&buffer);
    let read = wire::reply::parse(&mut buffer, whole).ok()?;
    Some(vec![
        read.message.of(&buffer).to_vec(),
        read.request.of(&buffer).to_vec(),
        read.sender.of(&buffer).to_vec(),
        read.agent.of(&buffer).to_vec(),
        read.time.to_string().into_bytes(),
    ])
}

fn host_reply(input: &[u8]) -> Result<Vec<Vec<u8>>, ProtocolError> {
    let read = Reply::parse(input)?;
    let mut fields = vec![read.message.clone()];
    fields.extend([&read.request, &read.sender, &read.agent].map(|text| text.clone().into_bytes()));
    fields.push(read.time.to_string().into_bytes());
    Ok(fields)
}

/// As [`same`]. A host also reads replies without agent, body or time: whoever asked wants to see what came.
fn same_reply(input: &[u8]) {
    let (core, host) = (core_reply(input), host_reply(input));
    if core.is_none()
        && Reply::parse(input)
            .is_ok_and(|read| read.agent.is_empty() || read.message.is_empty() || read.time < 1)
    {
        return;
    }
    same(REPLY, input, &core, &host);
}

fn reply(input: &[u8]) {
    let fields = |read: &SecureReply| {
        vec![
            read.reply.clone(),
            read.signature.clone().unwrap_or_default(),
            read.sender.clone().unwrap_or_default().into_bytes(),
        ]
    };
    let host = SecureReply::parse(input);
    same(
        SECURE_REPLY,
        input,
        &core_secure_reply(input),
        &SecureReply::parse(input).map(|read| fields(&read)),
    );
    if let Ok(read) = &host {
        let written = read.to_bytes().expect("what was read can be written");
        assert_eq!(core_secure_reply(&written), Some(fields(read)), "the core reads what the host writes");
        same_reply(&read.reply);
    }
    same_reply(input);
    if let Ok(read) = Reply::parse(input) {
        let written = read.to_bytes().expect("what was read can be written");
        assert_eq!(Reply::parse(&written).ok().as_ref(), Some(&read));
    }
}
