//! The torture of removals: two virtual processors access devices that the other one removes and registers again without pause.
//!
//! Each virtual processor has a *switch*, a register. A write to it removes the virtual processor's own *probe* from the manager, by
//! [`unregister_device`](vm_device::DeviceManager::unregister_device), and registers it again; so both remove at the same time.
//! A probe knows whether it is registered: that is poisoned as soon as its removal has returned. An access that finds it poisoned, or
//! during which a removal returns, is a violation, which the verdict fails for. One that is under way during a removal takes longer than that, and looks again and again.
//!
//! An exit takes emulators long, and the moment in which an access and a removal may miss each other is short. So the guest makes
//! some accesses by its instructions, and more by a call of the hypervisor, which makes many with the virtual processor's dispatcher.
//!
//! The second virtual processor turns itself off now and then, and the first turns it on: a removal meets it there, not there, and on
//! its way.

use core::arch::global_asm;
use core::hint::spin_loop;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use spin::Mutex;
use vm_device::devices::time::Clock;
use vm_device::{Access, Device, GuestAddress, InstanceId, IoResource, IoType, PowerControl};

use super::guest::write_image;
use super::host::HostClock;
use super::vcpu::Vcpu;
use super::{barrier, litmus, processors};
use crate::counts::COUNTS;
use crate::failure::Failure;
use crate::machine::{Guest, Machine};
use crate::manager::MANAGER;
use crate::power::{Ended, POWER};
use crate::println;

/// The switches, and the probes: of the first virtual processor, and of the second.
const SWITCHES: [u64; 2] = [0x0a00_0000, 0x0a00_1000];
const PROBES: [u64; 2] = [0x0b00_0000, 0x0b00_1000];
/// What a probe reads as.
const VALUE: u8 = 0x5a;

/// How many looks an access takes during a removal, and one of 16: longer than the rest of it, and longer than a barrier.
const LOOKS: u32 = 2000;
const MANY_LOOKS: u32 = 30_000;
/// The call for many accesses, a vendor's (Arm DEN0028, 6.2): `x1` is the address, and `x2` how many.
const READ_MANY: u32 = 0xc600_0001;
/// The call for a few rounds of the [`litmus`], which both virtual processors make at the same time.
const LITMUS: u32 = 0xc600_0002;

static ALL: [Probe; 2] = [Probe::new(PROBES[0]), Probe::new(PROBES[1])];
static ALL_SWITCHES: [Switch; 2] = [Switch(&ALL[0]), Switch(&ALL[1])];
/// When the torture ends, in nanoseconds of the host's clock: later, where by then not everything was done that it is for, as on an
/// emulator that has little time, but no later than [`PATIENCE`] after that.
static END: AtomicU64 = AtomicU64::new(0);
const PATIENCE: u64 = 120_000_000_000;

/// A device that comes and goes.
struct Probe {
    address: u64,
    id: Mutex<Option<InstanceId>>,
    is_registered: AtomicBool,
    /// It is being removed.
    leaves: AtomicBool,
    accesses: AtomicU64,
    removals: AtomicU64,
    /// Removals that were refused at the spin limit.
    refusals: AtomicU64,
    violations: AtomicU64,
}

impl Probe {
    const fn new(address: u64) -> Self {
        Self {
            address,
            id: Mutex::new(None),
            is_registered: AtomicBool::new(false),
            leaves: AtomicBool::new(false),
            accesses: AtomicU64::new(0),
            removals: AtomicU64::new(0),
            refusals: AtomicU64::new(0),
            violations: AtomicU64::new(0),
        }
    }

    fn register(&'static self) {
        self.is_registered.store(true, Ordering::SeqCst);
        *self.id.lock() = MANAGER.register_device(self, None, &[IoResource::mmio(self.address, 0x100)], &[]).ok();
    }

    /// Waits until the other virtual processor uses the probe: not long, because it may have something else to do.
    fn wait_for_use(&self) {
        const TURNS: u32 = 2000;
        let uses = self.accesses.load(Ordering::Relaxed);
        for _ in 0..TURNS {
            if self.accesses.load(Ordering::Relaxed) != uses {
                return;
            }
            spin_loop();
        }
    }

    /// Removes the probe and registers it again.
    fn replace(&'static self) {
        let Some(id) = *self.id.lock() else { return };
        self.leaves.store(true, Ordering::SeqCst);
        match MANAGER.unregister_device(id) {
            Ok(()) => {
                self.is_registered.store(false, Ordering::SeqCst);
                self.removals.fetch_add(1, Ordering::SeqCst);
                self.leaves.store(false, Ordering::SeqCst);
                self.register();
            }
            Err(_) => {
                self.leaves.store(false, Ordering::SeqCst);
                self.refusals.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// An access that is under way. No removal returns meanwhile.
    fn look(&self) {
        let removals = self.removals.load(Ordering::SeqCst);
        let number = self.accesses.fetch_add(1, Ordering::Relaxed);
        let looks = match self.leaves.load(Ordering::SeqCst) {
            false => 1,
            true if number.is_multiple_of(16) => MANY_LOOKS,
            true => LOOKS,
        };
        for _ in 0..looks {
            if !self.is_registered.load(Ordering::SeqCst) || self.removals.load(Ordering::SeqCst) != removals {
                self.violations.fetch_add(1, Ordering::Relaxed);
                return;
            }
            spin_loop();
        }
    }
}

impl Device<'_> for Probe {
    fn name(&self) -> &str {
        "probe"
    }

    fn read(&self, _: &Access<'_>, data: &mut [u8]) {
        self.look();
        data.fill(VALUE);
    }

    fn write(&self, _: &Access<'_>, _: &[u8]) {
        self.look();
    }
}

/// A register that removes a probe and registers it again. It reads as whether it does so.
struct Switch(&'static Probe);

impl Switch {
    /// At first the second virtual processor makes nothing but accesses: what a removal waits for would serve those of the first.
    fn is_ready(&self) -> bool {
        const REMOVALS: u64 = 64;
        self.0.address == PROBES[0] || ALL[0].removals.load(Ordering::Relaxed) >= REMOVALS
    }
}

impl Device<'_> for Switch {
    fn name(&self) -> &str {
        "switch"
    }

    fn read(&self, _: &Access<'_>, data: &mut [u8]) {
        data.fill(self.is_ready().into());
    }

    fn write(&self, _: &Access<'_>, _: &[u8]) {
        const TIMES: u32 = 16;
        if !self.is_ready() {
            return;
        }
        for _ in 0..TIMES {
            self.0.wait_for_use();
            self.0.replace();
        }
        let (now, end) = (HostClock.now(), END.load(Ordering::Relaxed));
        if now >= end && lacking().is_none() || now >= end + PATIENCE {
            POWER.power_off();
        }
    }
}

global_asm!(
    // A register's low byte is what a probe reads as, or open bus.
    ".macro probed register",
    "cmp \\register, #{VALUE}",
    "mov w9, #0xff",
    "ccmp \\register, w9, #4, ne",
    "b.ne torture_fail",
    ".endm",
    ".section .guest.torture, \"ax\", @progbits",
    "torture_first:",
    "ldr x10, ={SWITCH_0}",
    "ldr x11, ={PROBE_1}",
    "0: ldr x0, =0xc4000003", // CPU_ON, which it may be already.
    "mov x1, #1",
    "adr x2, torture_second",
    "mov x3, #0x77",
    "hvc #0",
    "cbnz x0, 3f",
    "ldr x0, ={LITMUS}",
    "hvc #0",
    "3: mov w12, #64",
    "1: mov w13, #2",
    "2: ldrb w1, [x11]",
    "probed w1",
    "subs w13, w13, #1",
    "b.ne 2b",
    "ldr x0, ={READ_MANY}",
    "mov x1, x11",
    "mov x2, #100",
    "hvc #0",
    "probed w0",
    "strb wzr, [x10]",
    "subs w12, w12, #1",
    "b.ne 1b",
    "b 0b",
    //
    "torture_second:",
    "cmp x0, #0x77",
    "b.ne torture_fail",
    "ldr x0, ={LITMUS}",
    "hvc #0",
    "ldr x10, ={SWITCH_1}",
    "ldr x11, ={PROBE_0}",
    "0: mov w12, #64",
    "1: mov w13, #8",
    "2: ldrb w1, [x11]",
    "probed w1",
    "str x1, [x11, #8]",
    "subs w13, w13, #1",
    "b.ne 2b",
    "ldr x0, ={READ_MANY}",
    "mov x1, x11",
    "mov x2, #1000",
    "hvc #0",
    "probed w0",
    "strb wzr, [x10]",
    "subs w12, w12, #1",
    "b.ne 1b",
    "ldrb w1, [x10]",
    "cbz w1, 0b",
    "ldr x0, =0x84000002", // CPU_OFF
    "hvc #0",
    "torture_fail:",
    "ldr x0, =0x84000009", // SYSTEM_RESET
    "hvc #0",
    "b torture_fail",
    ".ltorg",
    ".text",
    VALUE = const VALUE,
    READ_MANY = const READ_MANY,
    LITMUS = const LITMUS,
    SWITCH_0 = const SWITCHES[0],
    SWITCH_1 = const SWITCHES[1],
    PROBE_0 = const PROBES[0],
    PROBE_1 = const PROBES[1],
);

/// Registers the devices, and lets the guest begin. `arguments` says for how many seconds.
///
/// # Errors
/// A device could not be registered, or that is no number.
pub fn load(arguments: &str, vcpu: &mut Vcpu) -> Result<Guest, Failure> {
    unsafe extern "C" {
        static torture_first: u8;
    }
    let seconds: u32 = arguments.parse().map_err(|_| "the command line is not `torture SECONDS`")?;
    for ((probe, switch), address) in ALL.iter().zip(&ALL_SWITCHES).zip(SWITCHES) {
        MANAGER.register_device(switch, None, &[IoResource::mmio(address, 1)], &[])?;
        probe.register();
    }
    // Its lock would order what the processors do.
    COUNTS.stop();
    let memory = write_image()?;
    END.store(HostClock.now() + u64::from(seconds) * 1_000_000_000, Ordering::Relaxed);
    vcpu.start_at(&raw const torture_first as u64, 0);
    Ok(Guest { memory, judge })
}

/// The calls that the guest of the torture has besides those of its firmware. `None` if it is another, or another guest.
pub fn call(machine: &mut Machine, function: u32, address: u64, count: u64) -> Option<u64> {
    match function {
        _ if END.load(Ordering::Relaxed) == 0 => None,
        READ_MANY => Some(read_many(machine, address, count)),
        LITMUS => {
            if barrier::current() == 0 {
                litmus::first()
            } else {
                litmus::second()
            };
            Some(0)
        }
        _ => None,
    }
}

/// Reads a byte as often as `count` says, and returns the last: no later than one that neither a probe gave nor open bus.
fn read_many(machine: &mut Machine, address: u64, count: u64) -> u64 {
    const OPEN_BUS: u8 = 0xff;
    let mut byte = [VALUE];
    for _ in 0..count.min(1000) {
        machine.devices.read(GuestAddress(address), &mut byte, IoType::Mmio).ok();
        if byte != [VALUE] && byte != [OPEN_BUS] {
            break;
        }
    }
    byte[0].into()
}

/// What was not done at all so far.
fn lacking() -> Option<&'static str> {
    let never = |count: fn(&Probe) -> &AtomicU64| ALL.iter().any(|probe| count(probe).load(Ordering::Relaxed) == 0);
    let (_, interrupts) = barrier::counts();
    match () {
        () if never(|probe| &probe.accesses) => Some("a probe was not accessed"),
        () if never(|probe| &probe.removals) => Some("a probe was not removed"),
        () if interrupts.contains(&0) => Some("a processor took no interrupt"),
        () if litmus::counts().with_barrier.rounds == 0 => Some("the litmus was not made"),
        () if litmus::counts().without.missed == 0 => Some("the litmus missed nothing without the barrier either"),
        () => None,
    }
}

/// Judges the torture, and tells what there was of it.
fn judge() -> Result<(), Failure> {
    processors::end()?;
    let (barriers, interrupts) = barrier::counts();
    let count = |of: fn(&Probe) -> &AtomicU64| ALL.each_ref().map(|probe| of(probe).load(Ordering::Relaxed));
    let violations = count(|probe| &probe.violations);
    println!("torture, of the probe of each virtual processor:");
    println!("  accesses of the other {:8?}", count(|probe| &probe.accesses));
    println!("  removals              {:8?}", count(|probe| &probe.removals));
    println!("  removals refused      {:8?}", count(|probe| &probe.refusals));
    println!("  violations            {violations:8?}");
    println!("barriers {barriers}, interrupts of each processor {interrupts:?}");
    let litmus::Counts { with_barrier, without } = litmus::counts();
    println!("stores missed by both: {} of {} rounds with the barrier", with_barrier.missed, with_barrier.rounds);
    println!("                       {} of {} rounds without", without.missed, without.rounds);
    let held = |condition: bool, what| if condition { Ok(()) } else { Err(Failure::Told(what)) };
    held(violations == [0, 0], "a device was accessed after its removal had returned")?;
    held(with_barrier.missed == 0, "the barrier returned before the other processor had passed it")?;
    held(POWER.ended() == Some(Ended::Off), "the guest read what no device gave")?;
    held(ALL.iter().all(|probe| probe.id.lock().is_some()), "a probe could not be registered again")?;
    lacking().map_or(Ok(()), |what| Err(what.into()))
}
