//! The library as another VMM uses it: without the guests' verdict device, and with memory, processors and timers of its own
//! choice. Without `/dev/kvm` these tests count as ignored; where `CI` is set, as failed.

mod needs;

use std::io;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use hosttest::devices::scratch::Scratch;
use hosttest::guest_side::interrupts::{Trigger, enable, route, wait_for};
use hosttest::guest_side::{mmio, port};
use hosttest::interrupt_handler;
use hosttest::vmm::backing::Backing;
use hosttest::vmm::exit::Exit;
use hosttest::vmm::host::kvm;
use hosttest::vmm::machine::{DATA, Machine};
use hosttest::vmm::memory::{Memory, PAGE};
use hosttest::vmm::run::{RunError, run};
use hosttest::vmm::vcpu::{Ring, Vcpu};
use hosttest::vmm::vm::{Slot, TSS_ADDRESS, Vm};
use libtest_mimic::{Arguments, Failed};
use vm_device::{
    self as device, Access, Accesses, Device, DeviceManager, GuestAddress, GuestUsize, IoError, IoRange, IoResource,
    IoType, Relocation, Storage, SystemAllocator,
};

use needs::{Need, test};

type Outcome = Result<(), Failed>;

fn main() -> ExitCode {
    let needs = [&Need::new("KVM", kvm())];
    let trials = vec![
        test("a_slot_is_moved_and_removed_while_the_guest_lives", &needs, slots),
        test("the_writes_to_a_read_only_slot_exit_and_change_nothing", &needs, read_only),
        test("the_memory_of_a_range_moves_with_the_range", &needs, moved_range),
        test("each_processor_has_its_own_cpuid", &needs, cpuid),
        test("a_processor_has_the_cpuid_that_it_is_given", &needs, given_cpuid),
        test("the_pit_answers_without_exits_and_interrupts", &needs, pit),
        test("the_address_of_the_task_state_segment_is_a_choice", &needs, tss_address),
        test("an_exit_is_completed_by_a_run_that_ends_at_once", &needs, immediate_exit),
        test("a_device_that_fails_ends_the_run_with_its_code", &needs, failed_device),
        test("a_run_ends_where_its_caller_says_or_tells_why_not", &needs, endings),
    ];
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

const LIMIT: Duration = Duration::from_secs(60);
/// A guest writes this port when it is done, and another to ask for the next step of the host.
const DONE: u16 = 0x500;
const NEXT: u16 = 0x501;
/// Two places for memory above the guest's RAM.
const LOW: u64 = 0xd000_0000;
const HIGH: u64 = 0xd100_0000;
const VALUE: u32 = 0x1234_5678;
/// In real mode: mov dx, 0x500; in al, dx; hlt
const READ_A_PORT: &[u8] = &[0xba, 0x00, 0x05, 0xec, 0xf4];
/// In real mode: hlt
const HALT: &[u8] = &[0xf4];

/// No devices: it keeps what was accessed, answers reads by open bus, and takes a step when the guest asks for it.
struct Host<S> {
    accesses: Vec<(IoType, GuestAddress)>,
    done: bool,
    steps: S,
}

impl<S: FnMut()> Host<S> {
    fn new(steps: S) -> Self {
        Self { accesses: Vec::new(), done: false, steps }
    }

    /// Runs a guest until it is done, and returns the accesses that exited.
    fn run(mut self, vcpu: &mut Vcpu) -> Result<Vec<(IoType, GuestAddress)>, RunError> {
        let mut ended = false;
        while !ended {
            run(vcpu, &mut self, LIMIT, || true)?;
            ended = self.done;
        }
        Ok(self.accesses)
    }
}

impl<S: FnMut()> Accesses for Host<S> {
    fn read(&mut self, address: GuestAddress, data: &mut [u8], io_type: IoType) -> Result<(), IoError> {
        self.accesses.push((io_type, address));
        data.fill(0xff);
        Err(IoError::Unclaimed)
    }

    fn write(&mut self, address: GuestAddress, _: &[u8], io_type: IoType) -> Result<(), IoError> {
        match (io_type, address.0 as u16) {
            (IoType::Pio, DONE) => self.done = true,
            (IoType::Pio, NEXT) => (self.steps)(),
            _ => self.accesses.push((io_type, address)),
        }
        Ok(())
    }

    fn read_string(&mut self, port: u16, _: usize, data: &mut [u8]) -> Result<(), IoError> {
        self.read(port.into(), data, IoType::Pio)
    }

    fn write_string(&mut self, port: u16, _: usize, data: &[u8]) -> Result<(), IoError> {
        self.write(port.into(), data, IoType::Pio)
    }
}

/// The guest keeps a value for the host, in its own memory.
fn keep(index: u64, value: impl Into<u64>) {
    mmio::write(DATA + 8 * index, value.into());
}

fn done() -> ! {
    port::write(DONE, 0u8);
    loop {
        core::hint::spin_loop();
    }
}

/// The first values that the guest has kept.
fn kept<const N: usize>(machine: &Machine) -> [u64; N] {
    std::array::from_fn(|index| machine.ram().read_u64(DATA + 8 * index as u64))
}

fn equal<T: PartialEq + std::fmt::Debug>(seen: T, expected: T) -> Outcome {
    if seen == expected { Ok(()) } else { Err(format!("saw {seen:x?}, expected {expected:x?}").into()) }
}

fn page() -> io::Result<Arc<Memory>> {
    let memory = Memory::new(PAGE)?;
    memory.write_u64(0, VALUE.into());
    Ok(Arc::new(memory))
}

fn slots() -> Outcome {
    extern "C" fn guest(_: u64) {
        keep(0, mmio::read::<u32>(LOW));
        port::write(NEXT, 0u8);
        keep(1, mmio::read::<u32>(LOW));
        keep(2, mmio::read::<u32>(HIGH));
        port::write(NEXT, 0u8);
        keep(3, mmio::read::<u32>(HIGH));
        done()
    }
    let machine = Machine::new(&kvm()?)?;
    let memory = page()?;
    let mut slot: Option<Slot> = Some(machine.vm().map(GuestAddress(LOW), &memory)?);
    equal(Arc::strong_count(&memory), 2)?;
    let mut vcpu = machine.start(0, Ring::User, guest, 0)?;
    let (vm, mut moved) = (machine.vm(), false);
    let host = Host::new(|| match slot.take() {
        Some(first) if !moved => {
            vm.move_slot(&first, GuestAddress(HIGH)).expect("KVM moves a slot");
            (slot, moved) = (Some(first), true);
        }
        Some(last) => vm.unmap(last).expect("KVM removes a slot"),
        None => {}
    });
    let accesses = host.run(&mut vcpu)?;
    let ones = u64::from(u32::MAX);
    equal(kept(&machine), [VALUE.into(), ones, VALUE.into(), ones])?;
    equal(accesses, vec![(IoType::Mmio, GuestAddress(LOW)), (IoType::Mmio, GuestAddress(HIGH))])?;
    // What is not mapped is not kept, and its slot is taken again.
    equal(Arc::strong_count(&memory), 1)?;
    let [first, second] = [LOW, HIGH].map(|base| machine.vm().map(GuestAddress(base), &memory));
    let (first, second) = (first?, second?);
    machine.vm().unmap(first)?;
    let third = machine.vm().map(GuestAddress(LOW), &memory)?;
    equal(third == second, false)?;
    // Where memory is, no other goes; and what was not moved is where it was.
    equal(machine.vm().move_slot(&third, GuestAddress(HIGH)).is_err(), true)?;
    equal(machine.vm().base(&third), Some(GuestAddress(LOW)))?;
    machine.vm().move_slot(&second, GuestAddress(HIGH + PAGE))?;
    machine.vm().move_slot(&third, GuestAddress(HIGH))?;
    equal(
        [&second, &third].map(|slot| machine.vm().base(slot)),
        [HIGH + PAGE, HIGH].map(|base| Some(GuestAddress(base))),
    )
}

fn read_only() -> Outcome {
    extern "C" fn guest(_: u64) {
        keep(0, mmio::read::<u32>(LOW));
        mmio::write(LOW, 0u32);
        keep(1, mmio::read::<u32>(LOW));
        done()
    }
    let machine = Machine::new(&kvm()?)?;
    let memory = page()?;
    machine.vm().map_read_only(GuestAddress(LOW), &memory)?;
    let accesses = Host::new(|| {}).run(&mut machine.start(0, Ring::User, guest, 0)?)?;
    equal(kept(&machine), [u64::from(VALUE); 2])?;
    equal(memory.read_u64(0), VALUE.into())?;
    equal(accesses, vec![(IoType::Mmio, GuestAddress(LOW))])
}

fn moved_range() -> Outcome {
    extern "C" fn guest(_: u64) {
        mmio::write(LOW, VALUE);
        port::write(NEXT, 0u8);
        keep(0, mmio::read::<u32>(HIGH));
        done()
    }
    let machine = Machine::new(&kvm()?)?;
    let video = Scratch::<0>::new("video");
    let storage = Storage::<1, 1, 0>::new();
    let backing = Backing::new();
    let allocator = SystemAllocator::new(IoRange::ALL_MEMORY);
    let manager = DeviceManager::new(&storage, allocator).with_listener(&backing);
    let range = IoResource::fixed(IoType::PhysicalMmio, GuestAddress(LOW), GuestUsize(PAGE));
    let id = manager.register_device(&video, None, &[range], &[]).map_err(|error| error.to_string())?;
    backing.connect(machine.vm())?;
    let memory = Arc::clone(&backing.placed()[0].memory);
    let mut vcpu = machine.start(0, Ring::User, guest, 0)?;
    let host = Host::new(|| {
        let moved = Relocation::new(id, 0).to(GuestAddress(HIGH));
        manager.relocate(&mut [moved]).expect("the new place is free");
    });
    equal(host.run(&mut vcpu)?, Vec::new())?;
    equal(kept(&machine), [u64::from(VALUE)])?;
    equal(memory.read_u64(0), u64::from(VALUE))
}

fn cpuid() -> Outcome {
    extern "C" fn guest(id: u64) {
        keep(id, std::arch::x86_64::__cpuid(1).ebx >> 24);
        done()
    }
    let machine = Machine::new(&kvm()?)?;
    for id in 0..3 {
        Host::new(|| {}).run(&mut machine.start(id, Ring::User, guest, id)?)?;
    }
    equal(kept(&machine), [0, 1, 2])
}

fn given_cpuid() -> Outcome {
    // mov eax, 0x40000000; cpuid; mov eax, ebx; mov dx, 0x502; out dx, eax; hlt
    const CODE: &[u8] = &[0x66, 0xb8, 0, 0, 0, 0x40, 0x0f, 0xa2, 0x66, 0x89, 0xd8, 0xba, 0x02, 0x05, 0x66, 0xef, 0xf4];
    let machine = Machine::new(&kvm()?)?;
    let mut cpuid = machine.vm().supported_cpuid().clone();
    let hypervisor = cpuid.as_mut_slice().iter_mut().find(|leaf| leaf.function == 0x4000_0000);
    hypervisor.ok_or("KVM tells its name in CPUID")?.ebx = VALUE;
    machine.ram().write(0x7c00, CODE);
    let mut vcpu = Vcpu::with_cpuid(machine.vm(), 0, &cpuid)?;
    vcpu.start_real_mode(0x7c00, 0x7c00)?;
    match vcpu.run() {
        Exit::PortWrite { port: 0x502, data, .. } => equal(data.to_vec(), VALUE.to_le_bytes().to_vec()),
        other => Err(format!("{other:?}").into()),
    }
}

const TICKS: u64 = DATA + 0x100;
const VECTOR: u8 = 0x41;

interrupt_handler!(
    /// Counts.
    tick: "inc qword ptr [{ticks}]"; ticks = const TICKS
);

fn pit() -> Outcome {
    extern "C" fn guest(_: u64) {
        enable();
        route(0, VECTOR, Trigger::Edge);
        // Counter 0, both bytes, mode 2 (Intel 8254 data sheet, "Control Word Format"), 1 kHz.
        port::write(0x43, 0x34u8);
        port::write(0x40, 0xa9u8);
        port::write(0x40, 0x04u8);
        // Its status, by the read-back command.
        port::write(0x43, 0xe2u8);
        keep(0, port::read::<u8>(0x40) & 0x3f);
        // A processor polls fast, and the ticks come by the clock.
        keep(1, (0..100).any(|_| wait_for(TICKS, 3)));
        done()
    }
    let vm = Vm::new(&kvm()?)?;
    vm.create_irqchip()?;
    vm.create_pit()?;
    let machine = Machine::around(vm)?;
    machine.set_interrupt_gate(VECTOR, tick as *const () as u64);
    let accesses = Host::new(|| {}).run(&mut machine.start(0, Ring::User, guest, 0)?)?;
    equal(kept(&machine), [0x34, 1])?;
    equal(accesses, Vec::new())
}

fn tss_address() -> Outcome {
    let kvm = kvm()?;
    let chosen = GuestAddress(0xfeff_d000);
    Vm::with_tss_address(&kvm, TSS_ADDRESS)?;
    let machine = Machine::around(Vm::with_tss_address(&kvm, chosen)?)?;
    // A guest in real mode runs with memory where the segment is otherwise.
    machine.vm().map(TSS_ADDRESS, &Arc::new(Memory::new(3 * PAGE)?))?;
    equal(matches!(machine.start_real_mode(HALT)?.run(), Exit::Halted), true)?;
    // Its three pages have to lie below 4 GiB, which KVM checks.
    equal(Vm::with_tss_address(&kvm, GuestAddress(0xffff_f000)).is_err(), true)
}

fn immediate_exit() -> Outcome {
    let machine = Machine::new(&kvm()?)?;
    let mut vcpu = machine.start_real_mode(READ_A_PORT)?;
    match vcpu.run() {
        Exit::PortRead { port: DONE, data, .. } => data.fill(0x5a),
        other => return Err(format!("{other:?}").into()),
    }
    vcpu.kvm_run().immediate_exit = 1;
    equal(matches!(vcpu.run(), Exit::Interrupted), true)?;
    equal(vcpu.fd().get_regs()?.rax & 0xff, 0x5a)?;
    vcpu.kvm_run().immediate_exit = 0;
    equal(matches!(vcpu.run(), Exit::Halted), true)
}

fn endings() -> Outcome {
    let machine = Machine::new(&kvm()?)?;
    let mut vcpu = machine.start_real_mode(READ_A_PORT)?;
    let mut host = Host::new(|| {});
    let mut looks = 0;
    let tally = run(&mut vcpu, &mut host, LIMIT, || {
        looks += 1;
        true
    })?;
    equal((looks, tally.exits, tally.unclaimed), (1, 1, 1))?;
    let ended = run(&mut vcpu, &mut host, LIMIT, || false);
    equal(matches!(ended, Err(RunError::Halted { .. })), true)
}

fn failed_device() -> Outcome {
    struct Broken;
    impl Device<'_> for Broken {
        fn name(&self) -> &str {
            "broken"
        }
        fn try_read(&self, _: &Access<'_>, _: &mut [u8]) -> Result<(), device::Failed> {
            Err(device::Failed::new(5))
        }
    }
    let storage = Storage::<1, 1, 1>::new();
    let manager =
        DeviceManager::new(&storage, SystemAllocator::new(IoRange::ALL_MEMORY).with_ports(IoRange::ALL_PORTS));
    manager.register_device(&Broken, None, &[IoResource::pio(DONE, 1)], &[])?;
    let machine = Machine::new(&kvm()?)?;
    let mut vcpu = machine.start_real_mode(READ_A_PORT)?;
    let ended = run(&mut vcpu, &mut manager.dispatcher(0)?, LIMIT, || false);
    match &ended {
        Err(RunError::Failed { code: 5, tally, .. }) => equal((tally.exits, tally.refused), (1, 1))?,
        other => return Err(format!("{other:?}").into()),
    }
    let told = ended.map_err(|error| error.to_string()).err().unwrap_or_default();
    equal(told.starts_with("a device failed (code 5), the guest is at rip "), true)
}
