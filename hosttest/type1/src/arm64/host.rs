//! The machine the hypervisor runs on: the serial port on which it speaks, its clock, and how it is turned off.

use core::arch::asm;

use vm_device::devices::time::Clock;

/// The real PL011.
const UART: *mut u32 = 0x0900_0000 as *mut u32;
/// Its registers UARTDR and UARTFR, by their numbers (Arm DDI 0183, 3.3).
const DATA: usize = 0;
const FLAGS: usize = 0x18 / 4;
const RECEIVE_FIFO_EMPTY: u32 = 1 << 4;
const TRANSMIT_FIFO_FULL: u32 = 1 << 5;

/// Sends one byte, waiting until the transmitter has room for it.
pub fn send(byte: u8) {
    while !has_room() {}
    // SAFETY: the register is that of the UART, which touches no memory.
    unsafe { UART.add(DATA).write_volatile(byte.into()) };
}

/// Whether the transmitter has room for a byte.
pub fn has_room() -> bool {
    flags() & TRANSMIT_FIFO_FULL == 0
}

/// Whether a byte was received.
pub fn has_received() -> bool {
    flags() & RECEIVE_FIFO_EMPTY == 0
}

/// The byte that was received first.
pub fn receive() -> Option<u8> {
    // SAFETY: the register is that of the UART, which touches no memory.
    has_received().then(|| unsafe { UART.add(DATA).read_volatile() } as u8)
}

fn flags() -> u32 {
    // SAFETY: the register is that of the UART, which touches no memory.
    unsafe { UART.add(FLAGS).read_volatile() }
}

/// The system counter, in nanoseconds.
pub struct HostClock;

impl Clock for HostClock {
    fn now(&self) -> u64 {
        const SECOND: u64 = 1_000_000_000;
        let (count, frequency): (u64, u64);
        // SAFETY: reading both registers touches no memory.
        unsafe {
            asm!("isb", "mrs {}, cntpct_el0", "mrs {}, cntfrq_el0", out(reg) count, out(reg) frequency, options(nomem, nostack));
        }
        let frequency = frequency.max(1);
        count / frequency * SECOND + count % frequency * SECOND / frequency
    }
}

/// Lets the shared interrupts of the emulated devices be pending in the machine's GIC or not, as their lines are: those from 32 to 63,
/// none of which a device of the machine asserts that the guest does not have (GICD_ISPENDR1 and GICD_ICPENDR1, Arm IHI 0069,
/// 12.9). One that is active is pending again only when the guest has ended it.
pub fn set_pending(asserted: u64) {
    const DISTRIBUTOR: usize = 0x0800_0000;
    const SET_PENDING: *mut u32 = (DISTRIBUTOR + 0x204) as *mut u32;
    const CLEAR_PENDING: *mut u32 = (DISTRIBUTOR + 0x284) as *mut u32;
    const ACTIVE: *mut u32 = (DISTRIBUTOR + 0x304) as *mut u32;
    let lines = (asserted >> 32) as u32;
    // SAFETY: the registers are the interrupt controller's, and touch no memory.
    unsafe {
        let (pending, active) = (SET_PENDING.read_volatile(), ACTIVE.read_volatile());
        let request = lines & !pending & !active;
        if request != 0 {
            SET_PENDING.write_volatile(request);
        }
        if pending & !lines != 0 {
            CLEAR_PENDING.write_volatile(pending & !lines);
        }
    }
}

/// How the machine ends: the same for both, and the last line says which it was.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// Everything the prototype checks held.
    Passed,
    /// Something did not.
    Failed,
}

/// Ends the machine, by the call `SYSTEM_OFF` of its firmware (Arm DEN0022, PSCI).
pub fn leave(_: Ending) -> ! {
    // SAFETY: the call turns the machine off; where there is no firmware nothing follows.
    unsafe { asm!("smc #0", in("x0") 0x8400_0008_u64, options(nostack)) };
    loop {
        // SAFETY: waiting touches no memory.
        unsafe { asm!("wfi", options(nomem, nostack)) };
    }
}
