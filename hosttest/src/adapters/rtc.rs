//! The real-time clock of `vm-superio`, an Arm PL031, as a device.

use std::sync::{Mutex, MutexGuard, PoisonError};

use vm_device::{Access, Device};
use vm_superio::rtc_pl031::{self, NoEvents, RtcEvents, RtcState};

/// The size of the registers in bytes (Arm DDI 0224C, 3.2: the last is at offset 0xffc).
pub const SIZE: u64 = 0x1000;

/// Offsets of registers (Arm DDI 0224C, table 3-1).
const MATCH: u16 = 0x4;
const CONTROL: u16 = 0xc;
const INTERRUPT_MASK: u16 = 0x10;
const INTERRUPT_CLEAR: u16 = 0x1c;

/// A clock that shows the time of the host, in seconds since 1970, until the guest sets another.
///
/// It is registered with one range of [`SIZE`] bytes of memory, and without an interrupt: `vm-superio` has no alarm.
///
/// **Accesses.** A register is a word of 4 bytes. A read of any size at any offset has the bytes of the words there. A write
/// changes the registers that it holds whole: the bus of a PL031 (AMBA 2 APB) cannot write a part of one, so the rest of a write is
/// ignored. What is no register that can be read stays open bus.
///
/// `vm-superio` panics if the clock of the host is before 1970.
///
/// ```
/// use hosttest::adapters::rtc::{Rtc, SIZE};
/// use vm_device::{DeviceManager, GuestAddress, IoRange, IoResource, IoType, Storage, SystemAllocator};
///
/// let clock = Rtc::new();
/// let storage = Storage::<8, 16, 2>::new();
/// let manager = DeviceManager::new(&storage, SystemAllocator::new(IoRange::ALL_MEMORY));
/// manager.register_device(&clock, None, &[IoResource::mmio(0x901_0000, SIZE)], &[]).unwrap();
///
/// let mut seconds = [0; 4];
/// manager.dispatcher(0).unwrap().read(GuestAddress(0x901_0000), &mut seconds, IoType::Mmio).unwrap();
/// let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs() as u32;
/// assert!(now - u32::from_le_bytes(seconds) <= 1);
/// ```
pub struct Rtc<EV: RtcEvents = NoEvents> {
    clock: Mutex<rtc_pl031::Rtc<EV>>,
}

impl Rtc {
    /// In the state after power-on: it shows the time of the host.
    pub fn new() -> Self {
        Self::with_events(NoEvents)
    }
}

impl Default for Rtc {
    fn default() -> Self {
        Self::new()
    }
}

impl<EV: RtcEvents> Rtc<EV> {
    /// The same, with `events` told of what happens.
    pub fn with_events(events: EV) -> Self {
        Self::from_state(&RtcState::default(), events)
    }

    /// With the state of another.
    pub fn from_state(state: &RtcState, events: EV) -> Self {
        Self { clock: Mutex::new(rtc_pl031::Rtc::from_state(state, events)) }
    }

    /// The state, for [`from_state`](Self::from_state).
    pub fn state(&self) -> RtcState {
        self.lock().state()
    }

    /// The state is words, each whole whatever panics.
    fn lock(&self) -> MutexGuard<'_, rtc_pl031::Rtc<EV>> {
        self.clock.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The offsets of the words that an access of `length` bytes touches.
fn words(access: &Access<'_>, length: usize) -> impl Iterator<Item = u16> {
    let last = access.offset().saturating_add((length as u64).saturating_sub(1));
    (access.offset() / 4 * 4..=last).step_by(4).filter_map(|offset| u16::try_from(offset).ok())
}

impl<EV: RtcEvents + Send> Device<'_> for Rtc<EV> {
    fn name(&self) -> &str {
        "rtc"
    }

    fn read(&self, access: &Access<'_>, data: &mut [u8]) {
        let mut clock = self.lock();
        for offset in words(access, data.len()) {
            // What is no register leaves the word, and so the data, as it is.
            let mut word = [0; 4];
            access.store_at(offset.into(), &mut word, data);
            clock.read(offset, &mut word);
            access.load_at(offset.into(), &word, data);
        }
    }

    fn write(&self, access: &Access<'_>, data: &[u8]) {
        let mut clock = self.lock();
        for offset in words(access, data.len()) {
            let at = u64::from(offset).checked_sub(access.offset()).and_then(|at| usize::try_from(at).ok());
            if let Some(word) = at.and_then(|at| data.get(at..)?.first_chunk()) {
                clock.write(offset, word);
            }
        }
    }

    /// It shows the time of the host again.
    fn reset(&self) {
        let mut clock = self.lock();
        for (register, value) in [(CONTROL, 1_u32), (MATCH, 0), (INTERRUPT_MASK, 0), (INTERRUPT_CLEAR, u32::MAX)] {
            clock.write(register, &value.to_le_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use vm_device::{GuestAddress, IoType};

    use super::*;

    const LOAD: u64 = 8;
    const IDENTIFICATION: u64 = 0xfe0;

    fn at(offset: u64) -> Access<'static> {
        Access::new(IoType::Mmio, GuestAddress(0x901_0000 + offset), GuestAddress(0x901_0000), 0)
    }

    fn read<const LENGTH: usize>(clock: &Rtc, offset: u64) -> [u8; LENGTH] {
        let mut data = [0xff; LENGTH];
        clock.read(&at(offset), &mut data);
        data
    }

    #[test]
    fn a_read_has_the_bytes_of_the_words_there() {
        let clock = Rtc::new();
        clock.write(&at(MATCH.into()), &[1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(read(&clock, 4), [1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(read(&clock, 7), [4, 5]);
        assert_eq!(read(&clock, 6), [3, 4, 5, 6, 7, 8, 1, 0, 0, 0]);
        assert_eq!(read(&clock, 0xb), [8]);
        // The four words of the part number and the designer, and the last of the component.
        assert_eq!(read(&clock, IDENTIFICATION), [0x31, 0, 0, 0, 0x10, 0, 0, 0, 0x04, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(read(&clock, 0xffc), [0xb1, 0, 0, 0]);
    }

    #[test]
    fn a_write_changes_the_registers_that_it_holds_whole() {
        let clock = Rtc::new();
        clock.write(&at(MATCH.into()), &[1, 2, 3, 4]);
        for (offset, length) in [(4, 1), (4, 2), (4, 3), (5, 4), (2, 4), (3, 2), (1, 6), (7, 3)] {
            clock.write(&at(offset), &vec![0xee; length]);
            assert_eq!(read(&clock, 4), [1, 2, 3, 4], "{length} bytes at {offset:#x}");
        }
        // The end of one register and the whole next one.
        clock.write(&at(2), &[9, 9, 5, 6, 7, 8]);
        assert_eq!(read(&clock, 4), [5, 6, 7, 8]);
    }

    #[test]
    fn what_is_no_register_is_open_bus() {
        let clock = Rtc::new();
        // The interrupt clear register can be written only.
        assert_eq!(read(&clock, INTERRUPT_CLEAR.into()), [0xff; 4]);
        assert_eq!(read(&clock, 0x1a), [0, 0, 0xff, 0xff]);
        assert_eq!(read(&clock, 0x20), [0xff; 8]);
        assert_eq!(read(&clock, SIZE - 2), [0, 0, 0xff, 0xff]);
        for offset in [SIZE, SIZE + 2, 0x1_0000, 0x1_0008, u64::MAX - 0x901_0000] {
            clock.write(&at(offset), &[1; 8]);
            assert_eq!(read(&clock, offset), [0xff; 8], "{offset:#x}");
        }
        assert_eq!(clock.state(), RtcState::default());
    }

    #[test]
    fn the_guest_can_set_the_time_until_a_reset() {
        let clock = Rtc::new();
        clock.write(&at(LOAD), &1_000_u32.to_le_bytes());
        clock.write(&at(MATCH.into()), &[7; 4]);
        clock.write(&at(INTERRUPT_MASK.into()), &[1, 0, 0, 0]);
        assert!((1_000..1_010).contains(&u32::from_le_bytes(read(&clock, 0))));
        let other = Rtc::from_state(&clock.state(), NoEvents);
        assert_eq!(read(&other, LOAD), 1_000_u32.to_le_bytes());
        clock.reset();
        assert_eq!(clock.state(), RtcState::default());
    }
}
