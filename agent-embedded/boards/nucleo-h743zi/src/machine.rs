//! The only unsafe code of this board: the memory that the Ethernet controller works in.
#![allow(unsafe_code, reason = "memory that the linker places and nothing initialises; see below")]

use core::cell::UnsafeCell;
use core::mem::MaybeUninit;

use embassy_stm32::eth::PacketQueue;
use static_cell::ConstStaticCell;

/// Frames to send and frames to read.
pub type Frames = PacketQueue<4, 4>;

struct Uncleared(UnsafeCell<MaybeUninit<Frames>>);

// SAFETY: whoever holds `TAKEN` is the only one who reaches it.
unsafe impl Sync for Uncleared {}

/// In SRAM3 (memory.x).
#[unsafe(link_section = ".dma.frames")]
static FRAMES: Uncleared = Uncleared(UnsafeCell::new(MaybeUninit::uninit()));

/// In memory that is cleared at the start, as the mark that there is one owner has to be.
static TAKEN: ConstStaticCell<()> = ConstStaticCell::new(());

/// The controller's memory, once; its clock is switched on before.
pub fn frames() -> &'static mut Frames {
    let _mark = TAKEN.take();
    // the frames have no meaning yet; a queue of zeros is an empty one
    embassy_stm32::pac::RCC.ahb2enr().modify(|w| w.set_sram3en(true));
    // the write has to be over before the memory is touched
    let _on = embassy_stm32::pac::RCC.ahb2enr().read();
    // SAFETY: `take` above succeeds once, so this is the only reference; `init` makes a whole value of it.
    unsafe {
        let frames = &mut *FRAMES.0.get();
        PacketQueue::init(frames);
        frames.assume_init_mut()
    }
}
