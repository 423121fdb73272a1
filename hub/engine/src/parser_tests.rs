use super::*;
use proptest::prelude::*;

const LIMITS: ParserLimits = ParserLimits { control_line: 4096, connect_line: 65536, payload: 1024 };

/// The operations of a stream fed in the given pieces, as text, and the error that ended it.
fn run(pieces: &[&[u8]]) -> (Vec<String>, Option<ParseError>) {
    let mut parser = Parser::new(LIMITS);
    let mut seen = Vec::new();
    for piece in pieces {
        let mut input = *piece;
        loop {
            match parser.next(&mut input) {
                Ok(Some(op)) => seen.push(format!("{op:?}")),
                Ok(None) => break,
                Err(error) => return (seen, Some(error)),
            }
        }
        assert!(input.is_empty());
    }
    (seen, None)
}

fn whole(text: &str) -> (Vec<String>, Option<ParseError>) {
    run(&[text.as_bytes()])
}

#[test]
fn every_verb_in_every_spelling() {
    let (ops, error) = whole(
        "connect {\"a\":1}\r\nPUB a 2\r\nhi\r\npub a r 0\r\n\r\nHPUB a 12 14\r\nNATS/1.0\r\n\r\nhi\r\n\
         SUB a 1\nsub\ta  q   2\r\nUNSUB 1\r\nunsub 1 5\r\nPiNg\r\nPONG\n+OK\r\n-ERR 'x'\r\nINFO {}\r\n",
    );
    assert_eq!(error, None);
    assert_eq!(ops.len(), 13);
    assert!(ops.get(2).unwrap().contains("reply"));
}

#[test]
fn errors_have_their_kind() {
    let kind = |text: &str| whole(text).1;
    assert_eq!(kind("GET / HTTP/1.1\r\n"), Some(ParseError::UnknownOperation));
    assert_eq!(kind("\r\n"), Some(ParseError::UnknownOperation));
    assert_eq!(kind("PUBX a 1\r\n"), Some(ParseError::UnknownOperation));
    assert_eq!(kind("PUB a 2\r\nhixx"), Some(ParseError::PayloadTerminator));
    assert_eq!(kind("PUB a 2\r\nhix"), Some(ParseError::PayloadTerminator));
    assert_eq!(kind("PUB a 2\r\nhi\n\n"), Some(ParseError::PayloadTerminator));
    for bad in [
        "PUB a\r\n",
        "PUB a b c d\r\n",
        "PUB a -1\r\n",
        "PUB a 9223372036854775808\r\n",
        "PUB a x\r\n",
        "SUB a\r\n",
        "SUB\t \r\n",
        "HPUB a 5 4\r\n",
        "UNSUB\t\r\n",
        "UNSUB 1 x\r\n",
        "HPUB a 1\r\n",
    ] {
        assert_eq!(kind(bad), Some(ParseError::BadArguments), "{bad:?}");
    }
    assert_eq!(kind("PUB a 1025\r\n"), Some(ParseError::PayloadTooLarge { size: 1025, limit: 1024 }));
    assert_eq!(
        kind(&format!("PUB a {}1\r\n", "0".repeat(5000))),
        Some(ParseError::LineTooLong { limit: 4096 })
    );
    assert_eq!(kind(&format!("PUB a {}1\r\nx\r\n", "0".repeat(1000))), None);
}

#[test]
fn the_line_limit_counts_arguments_only() {
    let fits = format!("SUB {} 1\r\n", "a".repeat(4094));
    assert_eq!(whole(&fits).1, None);
    let over = format!("SUB {} 1\r\n", "a".repeat(4095));
    assert_eq!(whole(&over).1, Some(ParseError::LineTooLong { limit: 4096 }));
    assert_eq!(whole(&format!("CONNECT {}\r\n", "a".repeat(65536))).1, None);
    assert_eq!(
        whole(&format!("CONNECT {}\r\n", "a".repeat(65537))).1,
        Some(ParseError::LineTooLong { limit: 65536 })
    );
    // Without LF it is refused as soon as the limit is passed, and nothing more is held.
    let mut parser = Parser::new(LIMITS);
    let chunk = [b'a'; 1000];
    let mut input: &[u8] = b"SUB ";
    assert_eq!(parser.next(&mut input), Ok(None));
    let mut refused = false;
    for _ in 0..6 {
        let mut input: &[u8] = &chunk;
        refused |= parser.next(&mut input).is_err();
        assert!(parser.held() <= 2 * 4096);
    }
    assert!(refused);
}

#[test]
fn a_large_size_allocates_nothing_ahead() {
    let mut parser = Parser::new(ParserLimits { payload: 64 << 20, ..LIMITS });
    let mut input: &[u8] = b"PUB a 60000000\r\nx";
    assert_eq!(parser.next(&mut input), Ok(None));
    assert!(parser.held() < 128 * 1024);
}

fn op_text() -> impl Strategy<Value = Vec<u8>> {
    let payload = prop::collection::vec(any::<u8>(), 0..40);
    prop_oneof![
        Just(b"PING\r\n".to_vec()),
        Just(b"PONG\n".to_vec()),
        Just(b"+OK\r\n".to_vec()),
        Just(b"CONNECT {\"verbose\":false}\r\n".to_vec()),
        Just(b"SUB  foo.*\tq 12\r\n".to_vec()),
        Just(b"UNSUB 12 4\n".to_vec()),
        (payload.clone(), any::<bool>()).prop_map(|(payload, reply)| {
            let mut text =
                format!("PUB a.b {}{}\r\n", if reply { "r.1 " } else { "" }, payload.len()).into_bytes();
            text.extend_from_slice(&payload);
            text.extend_from_slice(b"\r\n");
            text
        }),
        payload.prop_map(|payload| {
            let mut text = format!("hpub a.b 12 {}\r\nNATS/1.0\r\n\r\n", payload.len() + 12).into_bytes();
            text.extend_from_slice(&payload);
            text.extend_from_slice(b"\r\n");
            text
        }),
        Just(b"SUB a\r\n".to_vec()),
        Just(b"BAD\r\n".to_vec()),
        prop::collection::vec(any::<u8>(), 0..6),
    ]
}

proptest! {
    /// T-110: a stream means the same however it is cut.
    #[test]
    fn split_at_every_boundary(ops in prop::collection::vec(op_text(), 1..6)) {
        let stream: Vec<u8> = ops.concat();
        let expected = run(&[&stream]);
        for cut in 0..=stream.len() {
            let (a, b) = stream.split_at(cut);
            prop_assert_eq!(&run(&[a, b]), &expected, "cut at {}", cut);
        }
        let bytes: Vec<&[u8]> = stream.chunks(1).collect();
        prop_assert_eq!(&run(&bytes), &expected);
        let triples: Vec<&[u8]> = stream.chunks(3).collect();
        prop_assert_eq!(&run(&triples), &expected);
    }

    #[test]
    fn arbitrary_bytes_never_panic(stream in prop::collection::vec(any::<u8>(), 0..300)) {
        run(&[&stream]);
    }
}
