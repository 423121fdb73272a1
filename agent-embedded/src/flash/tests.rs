use core::cell::RefCell;
use std::format;
use std::rc::Rc;
use std::string::{String, ToString as _};
use std::vec::Vec;

use agent_core::provision::Provision;
use embassy_futures::block_on;
use embedded_storage_async::nor_flash::{ErrorType, NorFlashError, NorFlashErrorKind, ReadNorFlash};

use super::*;
use crate::provisioning::tests::{IMAGE, call};
use crate::run::recall;

const PAGE: usize = 4096;
const TOKEN: &str = r#""token":"s3cret""#;

/// Flash whose power fails at one of its steps: the word is then half written, the page half erased.
struct Nor<const WORD: usize> {
    bytes: Rc<RefCell<Vec<u8>>>,
    /// Words and erasures done.
    steps: Rc<RefCell<u32>>,
    fails_at: u32,
}

#[derive(Debug)]
struct PowerCut;

impl NorFlashError for PowerCut {
    fn kind(&self) -> NorFlashErrorKind {
        NorFlashErrorKind::Other
    }
}

impl<const WORD: usize> Nor<WORD> {
    fn is_off(&self) -> bool {
        *self.steps.borrow() > self.fails_at
    }

    /// How much of this step is done, of two parts.
    fn step(&mut self) -> usize {
        let mut steps = self.steps.borrow_mut();
        *steps += 1;
        if *steps > self.fails_at { 1 } else { 2 }
    }

    fn check(&self) -> Result<(), PowerCut> {
        if self.is_off() { Err(PowerCut) } else { Ok(()) }
    }
}

impl<const WORD: usize> ErrorType for Nor<WORD> {
    type Error = PowerCut;
}

impl<const WORD: usize> ReadNorFlash for Nor<WORD> {
    const READ_SIZE: usize = 1;

    async fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), PowerCut> {
        self.check()?;
        let offset = offset as usize;
        bytes.copy_from_slice(&self.bytes.borrow()[offset..offset + bytes.len()]);
        Ok(())
    }

    fn capacity(&self) -> usize {
        self.bytes.borrow().len()
    }
}

impl<const WORD: usize> NorFlash for Nor<WORD> {
    const WRITE_SIZE: usize = WORD;
    const ERASE_SIZE: usize = PAGE;

    async fn erase(&mut self, from: u32, to: u32) -> Result<(), PowerCut> {
        for page in (from as usize..to as usize).step_by(PAGE) {
            self.check()?;
            let done = self.step() * PAGE / 2;
            self.bytes.borrow_mut()[page..page + done].fill(0xff);
        }
        self.check()
    }

    async fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), PowerCut> {
        let offset = offset as usize;
        assert_eq!((offset % WORD, bytes.len() % WORD), (0, 0), "whole words");
        for (number, word) in bytes.chunks(WORD).enumerate() {
            self.check()?;
            let done = self.step() * WORD / 2;
            let at = offset + number * WORD;
            let mut flash = self.bytes.borrow_mut();
            // bits only ever go from one to zero
            flash[at..at + done].iter_mut().zip(word).for_each(|(to, from)| *to &= *from);
        }
        self.check()
    }
}

/// A device: its flash, which outlives every start.
#[derive(Clone)]
struct Device<const WORD: usize> {
    bytes: Vec<u8>,
}

impl<const WORD: usize> Device<WORD> {
    fn blank(pages: usize) -> Self {
        Device { bytes: std::vec![0xff; pages * PAGE] }
    }

    /// One life until `fails_at` steps have been done: what `work` does with the storage. Returns the steps.
    fn live(&mut self, fails_at: u32, work: impl FnOnce(&mut FlashStore<'_, Nor<WORD>>)) -> u32 {
        let bytes = Rc::new(RefCell::new(core::mem::take(&mut self.bytes)));
        let steps = Rc::new(RefCell::new(0));
        let mut room = [0; ROOM];
        let range = 0..bytes.borrow().len() as u32;
        let flash = Nor::<WORD> { bytes: Rc::clone(&bytes), steps: Rc::clone(&steps), fails_at };
        work(&mut FlashStore::new(flash, range, &mut room).unwrap());
        self.bytes = bytes.take();
        steps.take()
    }

    /// Who the device is at its next start: nobody, or its identity, token and seed.
    fn who(&mut self) -> Option<(String, String, [u8; 32])> {
        let mut found = None;
        self.live(u32::MAX, |store| {
            let (mut token, mut room) = ([0; crate::space::TOKEN], [0; 2048]);
            let (member, membership) = block_on(recall(store, &IMAGE, &mut token, &mut room)).unwrap();
            found = member.map(|(seed, token)| (membership.identity.to_string(), token.to_string(), seed));
        });
        found
    }

    fn holds(&self, bytes: &[u8]) -> bool {
        self.bytes.windows(bytes.len()).any(|window| window == bytes)
    }
}

/// What the provisioner sends; a life that has lost its power hears nothing of it.
fn enrol<const WORD: usize>(store: &mut FlashStore<'_, Nor<WORD>>, name: &str) {
    let mut machine = Provision::new(true);
    call(store, &mut machine, "gen25519", &format!(r#"{{{TOKEN},"nonce":"abcdefgh"}}"#), true);
    let jwt = format!("{name}.{}", "y".repeat(900));
    let config = format!(r#"{{\"identity\":\"{name}\",\"main_collective\":\"fleet\"}}"#);
    let data = format!(r#"{{{TOKEN},"server_jwt":"{jwt}","config":"{config}"}}"#);
    call(store, &mut machine, "configure", &data, true);
}

/// Cuts the power at every step of an enrolment of a device as it is; returns how many there were.
fn cut_everywhere<const WORD: usize>(before: &Device<WORD>, name: &str) -> u32 {
    let old = before.clone().who();
    let steps = before.clone().live(u32::MAX, |store| enrol(store, name));
    // old, then nobody, then new: later cuts never lead back
    let mut latest = 0;
    for cut in 0..=steps {
        let mut device = before.clone();
        device.live(cut, |store| enrol(store, name));
        let state = match device.who() {
            Some((identity, token, seed)) if identity == name => {
                assert!(token.starts_with(name) && token.len() == name.len() + 901 && seed == [7; 32]);
                2
            }
            None => 1,
            other => {
                assert_eq!(other, old, "cut at step {cut} of {steps}: parts of two sets");
                0
            }
        };
        assert!(state >= latest, "cut at step {cut} of {steps}: from state {latest} to {state}");
        latest = state;
        // and the flash is as good as before
        if cut % 16 == 0 {
            device.live(u32::MAX, |store| enrol(store, "again.example.net"));
            assert_eq!(device.who().map(|(identity, ..)| identity).as_deref(), Some("again.example.net"));
        }
    }
    assert_eq!(latest, 2, "an enrolment without a cut is complete");
    steps
}

/// T-307: a power cut at any write or erasure of an enrolment leaves the old set, or none, or the new one, and never a mixture.
#[test]
fn t_307_a_power_cut_at_any_word_leaves_one_of_two_states() {
    // so many enrolments before it that the one that is cut turns pages over
    let mut device = Device::<4>::blank(2);
    let mut cuts = 0;
    for round in 0..8 {
        cuts += cut_everywhere(&device, &format!("d{round}.example.net"));
        device.live(u32::MAX, |store| enrol(store, &format!("d{round}.example.net")));
    }
    assert!(cuts > 2000, "{cuts}");
    // single bytes, as the flash of an RP2040 takes them
    let mut device = Device::<1>::blank(2);
    for round in 0..3 {
        device.live(u32::MAX, |store| enrol(store, &format!("r{round}.example.net")));
    }
    cut_everywhere(&device, "r3.example.net");
    // words of 32 bytes, as the STM32H7 has them
    let mut device = Device::<32>::blank(3);
    for round in 0..8 {
        cut_everywhere(&device, &format!("h{round}.example.net"));
        device.live(u32::MAX, |store| enrol(store, &format!("h{round}.example.net")));
    }
}

/// A device that is sent back to be provisioned again is its old self or nobody, and keeps no copy of its seed.
#[test]
fn t_307_a_power_cut_while_it_is_wiped_leaves_one_of_two_states() {
    let mut member = Device::<4>::blank(2);
    member.live(u32::MAX, |store| enrol(store, "d1.example.net"));
    let old = member.who();
    assert!(old.is_some() && member.holds(&[7; 32]));
    let wipe = |store: &mut FlashStore<'_, Nor<4>>| {
        let data = format!("{{{TOKEN}}}");
        call(store, &mut Provision::new(false), "reprovision", &data, true);
    };
    let steps = member.clone().live(u32::MAX, wipe);
    assert!(steps > 1000, "{steps}");
    let mut latest = &old;
    for cut in (0..100).chain((100..=steps).step_by(7)).chain([steps]) {
        let mut device = member.clone();
        device.live(cut, wipe);
        let who = device.who();
        assert!(who.is_none() || &who == latest, "cut at step {cut} of {steps}");
        if who.is_none() {
            latest = &None;
        }
        if cut == steps {
            assert!(who.is_none() && !device.holds(&[7; 32]), "the seed is still in the flash");
        }
    }
}

#[test]
fn values_are_kept_whole_or_refused() {
    let mut device = Device::<4>::blank(2);
    device.live(u32::MAX, |store| {
        let mut buffer = [0; 2048];
        assert_eq!(block_on(store.get(Key::Config, &mut buffer)), Ok(None));
        assert_eq!(block_on(store.erase(Key::Config)), Ok(()));
        assert_eq!(block_on(store.set(Key::Config, &[3; 2048])), Ok(()));
        assert_eq!(block_on(store.set(Key::Seed, b"")), Ok(()));
        assert_eq!(block_on(store.set(Key::Config, &[4; 2200])), Err(StoreFailed::TooLarge));
        assert_eq!(block_on(store.get(Key::Config, &mut buffer)), Ok(Some(&[3; 2048][..])));
        assert_eq!(block_on(store.get(Key::Seed, &mut buffer)), Ok(Some(&[][..])), "empty is not absent");
        assert_eq!(block_on(store.get(Key::Config, &mut [0; 32])), Err(StoreFailed::TooLarge));
        assert_eq!(block_on(store.erase(Key::Config)), Ok(()));
        assert_eq!(block_on(store.get(Key::Config, &mut buffer)), Ok(None));
    });
    let mut room = [0; ROOM];
    let flash = Nor::<4> { bytes: Rc::default(), steps: Rc::default(), fails_at: 0 };
    assert!(FlashStore::new(flash, 0..PAGE as u32, &mut room).is_none(), "one page is none to spare");
}
