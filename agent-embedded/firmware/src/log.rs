//! The last lines that the device has said, and an agent that answers them to an operator (docs/spec/08 §7.7).

use core::cell::RefCell;

use agent_core::json::Error;
use agent_core::rpc::{Agent, AgentMeta, Call, ReplyWriter, Status, StatusCode};
use embassy_sync::blocking_mutex::CriticalSectionMutex;

use crate::line::Line;

/// Bytes of RAM for lines: a dozen to sixty of them.
const BYTES: usize = 2048;
/// Bytes of a reply's data beside the lines.
const FRAME: usize = 40;

static LOG: CriticalSectionMutex<RefCell<Ring>> = CriticalSectionMutex::new(RefCell::new(Ring::new()));

/// Keeps a line; the oldest ones make room. A restart forgets all of them.
pub fn keep(line: &Line) {
    LOG.lock(|ring| ring.borrow_mut().push(line.text()));
}

/// The agent `device_log`.
#[derive(Debug, Clone, Copy, Default)]
pub struct DeviceLog;

impl Agent for DeviceLog {
    const META: AgentMeta = agent_embedded::agents::meta("device_log", "What the device has said last", 5);

    async fn handle(&mut self, call: Call<'_>, out: &mut ReplyWriter<'_>) -> Status {
        if call.action != "last" {
            return out.unknown_action(Self::META.name, call.action);
        }
        let asked = |name| -> Result<Option<usize>, Error> {
            call.args()?.i64(name)?.map(|number| usize::try_from(number).map_err(|_| Error::Type)).transpose()
        };
        let (Ok(count), Ok(skip)) = (asked("count"), asked("skip")) else {
            return Status::fixed(
                StatusCode::InvalidData,
                "Validation failed: inputs 'count' and 'skip' are numbers of lines",
            );
        };
        LOG.lock(|ring| ring.borrow().answer(count.unwrap_or(usize::MAX), skip.unwrap_or(0), out));
        Status::ok()
    }
}

/// Whole lines, the oldest first, each with a line feed behind it.
struct Ring {
    bytes: [u8; BYTES],
    used: usize,
}

impl Ring {
    const fn new() -> Ring {
        Ring { bytes: [0; BYTES], used: 0 }
    }

    fn text(&self) -> &[u8] {
        self.bytes.get(..self.used).unwrap_or_default()
    }

    fn push(&mut self, line: &[u8]) {
        let needed = line.len().saturating_add(1);
        if needed > BYTES {
            return;
        }
        while self.used.saturating_add(needed) > BYTES {
            // Lines are few and short: moving them costs less than a line takes on the serial line.
            let Some(end) = self.text().iter().position(|byte| *byte == b'\n') else { return };
            let next = end.saturating_add(1);
            self.bytes.copy_within(next..self.used, 0);
            self.used = self.used.saturating_sub(next);
        }
        let Some(room) = self.bytes.get_mut(self.used..self.used.saturating_add(needed)) else { return };
        let (text, end) = room.split_at_mut(line.len());
        text.copy_from_slice(line);
        end.fill(b'\n');
        self.used = self.used.saturating_add(needed);
    }

    fn lines(&self) -> impl DoubleEndedIterator<Item = &str> {
        self.text()
            .split_inclusive(|byte| *byte == b'\n')
            .filter_map(|line| core::str::from_utf8(line.strip_suffix(b"\n")?).ok())
    }

    /// The newest `count` lines before the newest `skip`, or as many of them as fit the reply, and how many older ones are
    /// left: `skip` goes back to those.
    fn answer(&self, count: usize, skip: usize, out: &mut ReplyWriter<'_>) {
        let all = self.lines().count();
        let mut room = out.room().saturating_sub(FRAME);
        let fits = |line: &&str| {
            let escapes = line.bytes().filter(|byte| matches!(byte, b'"' | b'\\')).count();
            let needed = line.len().saturating_add(escapes).saturating_add(3);
            let fits = needed <= room;
            room = room.saturating_sub(needed);
            fits
        };
        let shown = self.lines().rev().skip(skip).take(count).take_while(fits).count();
        let older = all.saturating_sub(skip).saturating_sub(shown);
        out.array("lines");
        self.lines().skip(older).take(shown).for_each(|line| out.str("", line));
        out.end();
        out.uint("older", u64::try_from(older).unwrap_or(u64::MAX));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(ring: &Ring, count: usize, skip: usize, room: usize) -> String {
        let mut buffer = vec![0; room];
        let mut out = ReplyWriter::new(&mut buffer);
        ring.answer(count, skip, &mut out);
        String::from_utf8(out.finish(Status::ok()).data.to_vec()).unwrap()
    }

    fn filled(lines: u32) -> Ring {
        let mut ring = Ring::new();
        (0..lines).for_each(|number| ring.push(format!("{number} \"said\"").as_bytes()));
        ring
    }

    #[test]
    fn the_newest_lines_are_answered_and_older_ones_on_asking_again() {
        let ring = filled(5);
        assert_eq!(answered(&ring, 2, 0, 200), r#"{"lines":["3 \"said\"","4 \"said\""],"older":3}"#);
        assert_eq!(
            answered(&ring, 9, 2, 200),
            r#"{"lines":["0 \"said\"","1 \"said\"","2 \"said\""],"older":0}"#
        );
        assert_eq!(answered(&ring, 9, 9, 200), r#"{"lines":[],"older":0}"#);
        assert_eq!(answered(&filled(0), 9, 0, 200), r#"{"lines":[],"older":0}"#);
    }

    #[test]
    fn a_reply_holds_whole_lines_and_is_never_too_large() {
        let ring = filled(100);
        let mut most = 0;
        for room in FRAME..1200 {
            let data = answered(&ring, usize::MAX, 0, room);
            assert!(data.len() <= room && data != "{}", "{room}: {data}");
            most = data.matches("said").count();
        }
        assert!(most > 60, "{most}");
    }

    #[test]
    fn the_oldest_lines_make_room() {
        let mut ring = filled(1000);
        let kept: Vec<String> = ring.lines().map(str::to_owned).collect();
        assert_eq!(kept.last().map(String::as_str), Some("999 \"said\""));
        let first: usize = kept[0].split(' ').next().unwrap().parse().unwrap();
        assert_eq!(kept.len(), 1000 - first, "no line in between is lost");
        assert!(ring.used > BYTES - 20 && ring.used <= BYTES);
        ring.push(&[b'x'; BYTES - 1]);
        ring.push(&[b'y'; BYTES]);
        assert_eq!(ring.lines().collect::<String>(), "x".repeat(BYTES - 1), "a line that fits nowhere");
        ring.push(b"on it goes");
        assert_eq!(ring.lines().collect::<Vec<_>>(), ["on it goes"]);
    }
}
