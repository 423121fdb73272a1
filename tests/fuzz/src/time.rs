//! The answers of time servers, and what a clock makes of them.

use agent_core::clock::Clock;
use agent_core::sntp::{PACKET, answer};

use crate::Target;

const NONCE: &[u8; 8] = b"87654321";
/// When the image was made, Unix seconds.
const MADE: i64 = 1_790_000_000;
/// The last second that the format's 136 years from 1968 on can say.
const LAST: i64 = 4_243_000_000;

pub(crate) const TARGETS: &[Target] = &[Target {
    name: "sntp",
    oracle: "only a server's answer to this question has a time, of the years 1968 to 2104; the clock never sinks below its floor",
    run,
    seeds: || {
        let mut good = [0; PACKET];
        good[..2].copy_from_slice(&[0x24, 2]);
        good[24..32].copy_from_slice(NONCE);
        good[40..44].copy_from_slice(&3_998_988_800_u32.to_be_bytes());
        vec![good.to_vec(), [&good[..], &[7; 20]].concat(), good[..47].to_vec()]
    },
    words: &["87654321"],
    longest: 128,
}];

fn run(input: &[u8]) {
    let Some(nanos) = answer(input, NONCE) else { return };
    assert!(input.len() >= PACKET && input[24..32] == NONCE[..], "an answer to another question");
    assert!(input[0] & 7 == 4 && input[0] >> 6 != 3 && (1..16).contains(&input[1]), "no server's answer");
    let seconds = nanos.div_euclid(1_000_000_000);
    assert!((-2_000_000_000..LAST).contains(&seconds), "{seconds}");
    let wire = u32::from_be_bytes([input[40], input[41], input[42], input[43]]);
    assert_eq!((seconds + 2_208_988_800).rem_euclid(1 << 32), i64::from(wire), "another second");
    let mut clock = Clock::new(MADE);
    assert_eq!(clock.hear(nanos, 1000), seconds >= MADE);
    assert_eq!(clock.nanos(1000), (seconds >= MADE).then_some(nanos), "a time below the floor was believed");
    assert!(clock.nanos(1000) <= clock.nanos(2000));
    assert_eq!(clock.floor(), MADE, "a time server moved the floor");
}
