//! The personalised section of an image: what was written is read, and nothing else is ever taken for it.

use agent_core::baked::{Baked, BakedError, Flags, MAX_BODY, MAX_OF_A_KIND, Record, SECTION, write};
use agent_core::x509pin::{P256_KEY, Pin};
use sha2::{Digest as _, Sha256};

use crate::Target;
use crate::corpus::texts;
use crate::pieces::{Choices, Script};

pub(crate) const TARGETS: &[Target] = &[
    Target {
        name: "baked_tlv",
        oracle: "a naive reader of the records; no changed bit under the digest is taken",
        run: any_body,
        seeds: || {
            let mut seeds: Vec<Vec<u8>> = texts(&["CHOR", "\0"]);
            seeds.push([&[0xff; 40][..], b"CHOR"].concat());
            let bodies: [&[&[u8]]; 4] = [
                &[&[1, 5, 0], b"a.b.c"],
                &[
                    &[1, 5, 0],
                    b"a.b.c",
                    &[2, 32, 0],
                    &[7; 32],
                    &[3, 33, 0, 1],
                    &[8; 32],
                    &[3, 66, 0, 2],
                    &[4; 65],
                ],
                &[
                    &[1, 1, 0],
                    b"j",
                    &[5, 3, 0],
                    b"a:1",
                    &[5, 3, 0],
                    b"b:2",
                    &[7, 8, 0],
                    &[0; 8],
                    &[9, 4, 0, 15, 0, 0, 0],
                ],
                &[
                    &[1, 1, 0],
                    b"j",
                    &[8, 32, 0],
                    &[3; 32],
                    &[4, 2, 0],
                    b"hn",
                    &[6, 2, 0],
                    b"id",
                    &[200, 1, 0, 9],
                ],
            ];
            seeds.extend(bodies.iter().map(|parts| [&[0][..], &parts.concat()].concat()));
            seeds
        },
        words: &["CHOR", "\u{1}\u{1}\0j", "\u{5}\u{3}\0a:1", "\u{7}\u{8}\0", "\u{8}\u{20}\0", "\u{9}\u{4}\0"],
        longest: SECTION + 16,
    },
    Target {
        name: "baked_section",
        oracle: "what is written is read, the same bytes each time; no flipped bit is taken for other content",
        run: written,
        seeds: || {
            vec![
                b"\0a.b.c\0".to_vec(),
                b"\0a.b.c\0\x01\x11\x02\x11\x02\x22\x02\x33\x04nats://192.0.2.1:4222\0\x05d1\0\x06\x01\x02\x03\x04".to_vec(),
                [&b"\0"[..], &[b'j'; 900], b"\0\x03broker.example.net\0\x08\x0f\x07\x09"].concat(),
                b"\x01\x01\x01\x02\x01\x03\x01\x04\x01\x05\0j\0".to_vec(),
            ]
        },
        words: &["\0a.b.c\0", "\u{4}nats://192.0.2.1\0", "\u{1}\u{1}", "\u{2}\u{2}"],
        longest: 6000,
    },
];

/// The first byte says what the rest is: a body, which gets its head here so that the search gets behind the digest, or
/// the front of a section as it is.
fn any_body(input: &[u8]) {
    let Some((kind, rest)) = input.split_first() else { return };
    let mut section = [0xff_u8; SECTION];
    if kind & 1 == 1 {
        let len = rest.len().min(SECTION);
        section[..len].copy_from_slice(&rest[..len]);
        // Whatever it is: bytes that have another length are no section.
        assert_eq!(Baked::parse(&section[..len.min(SECTION - 1)]).err(), Some(BakedError::Damaged));
    } else {
        let body = &rest[..rest.len().min(MAX_BODY)];
        seal(body, &mut section);
    }
    let read = Baked::parse(&section);
    let Some(body) = sealed(&section) else { return assert!(read.is_err(), "taken without a digest") };
    match (&read, naive(body)) {
        (Ok(baked), Some(wanted)) => same(baked, &wanted),
        (Err(_), None) => {}
        (read, wanted) => panic!("{read:?} where a naive reader has {}", wanted.is_some()),
    }
    let Ok(read) = read else { return };
    let mut choices = Choices::of(input);
    let at = choices.below(HEAD + body.len());
    let mut changed = section;
    changed[at] ^= 1 << choices.below(8);
    assert!(Baked::parse(&changed).is_err(), "byte {at} was changed, and {read:?} taken");
}

const HEAD: usize = 40;

fn seal(body: &[u8], section: &mut [u8; SECTION]) {
    let [low, high, ..] = body.len().to_le_bytes();
    let head = [&b"CHOR\x01\0"[..], &[low, high], &Sha256::digest(body)].concat();
    section[..HEAD].copy_from_slice(&head);
    section[HEAD..HEAD + body.len()].copy_from_slice(body);
}

/// The body, where head and digest are right.
fn sealed(section: &[u8; SECTION]) -> Option<&[u8]> {
    let body = section.get(HEAD..HEAD + usize::from(u16::from_le_bytes([section[6], section[7]])))?;
    let fine = section.starts_with(b"CHOR\x01\0") && section[8..HEAD] == Sha256::digest(body)[..];
    fine.then_some(body)
}

#[derive(Default)]
struct Wanted {
    jwt: String,
    issuers: Vec<[u8; 32]>,
    pins: Vec<Pin>,
    server_name: Option<String>,
    urls: Vec<String>,
    identity: Option<String>,
    built: i64,
    seed: Option<[u8; 32]>,
    flags: Flags,
    time_server: Option<String>,
}

/// By the words of docs/spec/08 §10: whole records, each of its length, or nothing.
fn naive(mut body: &[u8]) -> Option<Wanted> {
    let mut wanted = Wanted::default();
    while !body.is_empty() {
        let [tag, low, high, rest @ ..] = body else { return None };
        let length = usize::from(*low) + 256 * usize::from(*high);
        if rest.len() < length {
            return None;
        }
        let (value, after) = rest.split_at(length);
        body = after;
        let text = || {
            let text = String::from_utf8(value.to_vec()).ok()?;
            (!text.is_empty() && !text.chars().any(char::is_control)).then_some(text)
        };
        match tag {
            1 => wanted.jwt = text()?,
            2 => wanted.issuers.push(value.try_into().ok()?),
            3 => wanted.pins.push(pin(value)?),
            4 => wanted.server_name = Some(text()?),
            5 => wanted.urls.push(text()?),
            6 => wanted.identity = Some(text()?),
            7 => wanted.built = i64::from_le_bytes(value.try_into().ok()?),
            8 => wanted.seed = Some(value.try_into().ok()?),
            9 => wanted.flags = flags(u32::from_le_bytes(value.try_into().ok()?)),
            10 => wanted.time_server = Some(text()?),
            _ => {}
        }
        let most = [wanted.issuers.len(), wanted.pins.len(), wanted.urls.len()];
        if wanted.built < 0 || most.iter().any(|count| *count > MAX_OF_A_KIND) {
            return None;
        }
    }
    (!wanted.jwt.is_empty()).then_some(wanted)
}

fn pin(value: &[u8]) -> Option<Pin> {
    match value {
        [1, key @ ..] => Some(Pin::CaEd25519(key.try_into().ok()?)),
        [2, key @ ..] => Some(Pin::CaP256(<[u8; P256_KEY]>::try_from(key).ok()?)),
        [3, hash @ ..] => Some(Pin::LeafSha256(hash.try_into().ok()?)),
        _ => None,
    }
}

fn flags(bits: u32) -> Flags {
    let bit = |at: u32| bits >> at & 1 == 1;
    Flags {
        tls_required: bit(0),
        require_clock: bit(1),
        trust_signer_for_policies: bit(2),
        half_duplex: bit(3),
    }
}

fn same(baked: &Baked<'_>, wanted: &Wanted) {
    assert_eq!(baked.provisioning_jwt, wanted.jwt);
    assert_eq!(baked.issuers.as_slice(), wanted.issuers);
    assert_eq!(baked.pins.as_slice(), wanted.pins);
    assert_eq!(baked.server_name, wanted.server_name.as_deref());
    assert_eq!(baked.urls.as_slice(), wanted.urls);
    assert_eq!(baked.identity, wanted.identity.as_deref());
    assert_eq!(baked.time_server, wanted.time_server.as_deref());
    assert_eq!((baked.built, baked.seed, baked.flags), (wanted.built, wanted.seed, wanted.flags));
    let shown = format!("{baked:?}");
    // as it is shown: with its quotes, and what they escape
    let openly = format!("{:?} {:?}", baked.identity, baked.server_name);
    let jwt = &wanted.jwt;
    assert!(jwt.len() < 24 || openly.contains(jwt) || !shown.contains(jwt), "the token is shown");
    let seed = wanted.seed.filter(|_| openly.len() < 80);
    assert!(seed.is_none_or(|seed| !shown.contains(&format!("{seed:?}"))), "the seed is shown");
}

/// Records that the input chooses, written and read.
fn written(input: &[u8]) {
    let mut script = Script::new(input);
    let mut texts = Vec::new();
    let mut kinds = Vec::new();
    while !script.is_over() && kinds.len() < 24 {
        let kind = script.byte() % 9;
        kinds.push((kind, if matches!(kind, 0 | 3 | 4 | 5) { 0 } else { script.byte() }));
        texts.push(if matches!(kind, 0 | 3 | 4 | 5) { script.text() } else { b"" });
    }
    if std::str::from_utf8(&texts.concat()).is_err() {
        return;
    }
    let texts: Vec<&str> = texts.iter().map(|text| std::str::from_utf8(text).unwrap_or_default()).collect();
    let mut wanted = Wanted::default();
    let (mut legal, mut room) = (true, 0);
    let records: Vec<Record<'_>> = kinds
        .iter()
        .zip(&texts)
        .map(|((kind, value), text)| {
            let is_text = matches!(kind, 0 | 3 | 4 | 5);
            legal &= !is_text || !text.is_empty() && !text.chars().any(char::is_control);
            // A time that is none.
            legal &= *kind != 6 || *value < 0x80;
            let (record, len) = record(*kind, *value, text, &mut wanted);
            room += 3 + len;
            record
        })
        .collect();
    let (mut section, mut again) = ([0; SECTION], [1; SECTION]);
    let result = write(&records, &mut section);
    assert_eq!(result.is_ok(), room <= MAX_BODY, "{room} bytes: {result:?}");
    if result.is_err() {
        return;
    }
    assert_eq!(write(&records, &mut again), Ok(()));
    assert!(section == again, "the same records gave other bytes");
    assert!(section[HEAD + room..].iter().all(|byte| *byte == 0xff), "something is behind the body");
    let many = [wanted.issuers.len(), wanted.pins.len(), wanted.urls.len()];
    let fits = !wanted.jwt.is_empty() && many.iter().all(|count| *count <= MAX_OF_A_KIND);
    let read = Baked::parse(&section);
    assert_eq!(read.is_ok(), legal && fits, "{read:?}");
    let Ok(read) = read else { return };
    same(&read, &wanted);
    let mut choices = Choices::of(input);
    for _ in 0..8 {
        let at = choices.below(SECTION);
        let mut changed = section;
        changed[at] ^= 1 << choices.below(8);
        match Baked::parse(&changed) {
            // What is behind the body counts for nothing.
            Ok(read) => {
                assert!(at >= HEAD + room, "byte {at} was changed, and {read:?} taken");
                same(&read, &wanted);
            }
            Err(_) => assert!(at < HEAD + room, "byte {at} behind the body was looked at"),
        }
    }
}

/// One record and the length of its value; `wanted` gets what a reader must find.
fn record<'t>(kind: u8, value: u8, text: &'t str, wanted: &mut Wanted) -> (Record<'t>, usize) {
    let key = [value; 32];
    match kind {
        0 => {
            text.clone_into(&mut wanted.jwt);
            (Record::ProvisioningJwt(text), text.len())
        }
        1 => {
            wanted.issuers.push(key);
            (Record::Issuer(key), 32)
        }
        2 => {
            let (pin, len) = match value % 3 {
                0 => (Pin::CaEd25519(key), 33),
                1 => (Pin::CaP256([value; P256_KEY]), 66),
                _ => (Pin::LeafSha256(key), 33),
            };
            wanted.pins.push(pin);
            (Record::Pin(pin), len)
        }
        3 => {
            wanted.server_name = Some(text.to_owned());
            (Record::ServerName(text), text.len())
        }
        4 => {
            wanted.urls.push(text.to_owned());
            (Record::Url(text), text.len())
        }
        5 => {
            wanted.identity = Some(text.to_owned());
            (Record::Identity(text), text.len())
        }
        6 => {
            let built = u64::from(value) << 56 | u64::from(value);
            wanted.built = built.cast_signed();
            (Record::Built(built), 8)
        }
        7 => {
            wanted.seed = Some(key);
            (Record::Seed(key), 32)
        }
        _ => {
            wanted.flags = flags(value.into());
            (Record::Flags(wanted.flags), 4)
        }
    }
}
