//! String I/O: each element is a call, whatever comes in one exit.

use kvm_ioctls::Kvm;
use vm_device::IoResource;

use super::scenario::{Failure, LIMIT, Room, Scenario, expect, manager};
use super::shown::keep_map;
use super::verdict::{run_guest, run_to_verdict};
use crate::check;
use crate::devices::stream::{Bursts, Record, Stream, stream_byte};
use crate::devices::verdict::Verdict;
use crate::guest_side::port::{Order, Width};
use crate::guest_side::{mmio, pass, real_mode};
use crate::vmm::machine::{DATA, Machine};
use crate::vmm::run::Tally;

/// The guests of this topic.
pub const ALL: &[Scenario] = &[
    Scenario { name: "string-io/forwards", about: "REP INS and REP OUTS in every element size", run: forwards },
    Scenario { name: "string-io/backwards", about: "the same with the direction flag set", run: backwards },
    Scenario { name: "string-io/bursts", about: "a device that takes a burst in one piece", run: bursts },
    Scenario {
        name: "string-io/unclaimed",
        about: "REP INS from a port without a device gives all ones",
        run: unclaimed,
    },
    Scenario { name: "string-io/real-mode", about: "REP INSB and REP OUTSB in real mode", run: real_mode_strings },
];

const PORT: u16 = 0x500;
/// How many elements each string has: more than fit in one burst of KVM, which is 1024 bytes.
const COUNT: usize = 600;

/// The elements of the stream, as they have to be in memory.
fn check_delivered<T: Width + mmio::Width + Into<u64>>(line: u32, delivered_before: u64, order: Order) {
    let size = size_of::<T>();
    for element in 0..COUNT {
        let mut expected = 0;
        for byte in (0..size).rev() {
            expected = expected << 8 | u64::from(stream_byte(delivered_before + (element * size + byte) as u64));
        }
        let place = match order {
            Order::Forwards => element,
            Order::Backwards => COUNT - 1 - element,
        };
        crate::guest_side::check(line, mmio::read::<T>(DATA + (place * size) as u64), expected);
    }
}

/// Sends the string at [`DATA`] and fetches one to the same place. The string goes out as it came in.
fn exchange<T: Width + mmio::Width + Into<u64>>(line: u32, delivered_before: u64, order: Order) {
    let first = match order {
        Order::Forwards => DATA as *mut T,
        Order::Backwards => (DATA as *mut T).wrapping_add(COUNT - 1),
    };
    // SAFETY: the guest's own memory, where nothing else is.
    unsafe {
        Width::read_string(PORT, first, COUNT, order);
        check_delivered::<T>(line, delivered_before, order);
        Width::write_string(PORT, first.cast_const(), COUNT, order);
    }
}

extern "C" fn every_size(backwards: u64) {
    let order = if backwards != 0 { Order::Backwards } else { Order::Forwards };
    exchange::<u8>(line!(), 0, order);
    exchange::<u16>(line!(), COUNT as u64, order);
    exchange::<u32>(line!(), 3 * COUNT as u64, order);
    pass()
}

/// What the device has to see of [`every_size`], if each element is a call.
fn expect_elements(record: &Record) -> Result<(), Failure> {
    let lengths: Vec<usize> = [1, 2, 4].into_iter().flat_map(|size| [size; COUNT]).collect();
    expect("the reads", &record.reads, &lengths)?;
    expect("the writes", &record.writes, &lengths)?;
    expect_bytes(record)
}

fn expect_bytes(record: &Record) -> Result<(), Failure> {
    let stream: Vec<u8> = (0..7 * COUNT as u64).map(stream_byte).collect();
    expect("the bytes written", &record.written, &stream)
}

fn strings(kvm: &Kvm, order: Order) -> Result<Tally, Failure> {
    let room = Room::new();
    let (manager, verdict, stream) = (manager(&room), Verdict::new(), Stream::new());
    manager.register_device(&stream, None, &[IoResource::pio(PORT, 4)], &[])?;
    let backwards = u64::from(order == Order::Backwards);
    let tally = run_guest(&Machine::new(kvm)?, &manager, &verdict, every_size, backwards)?;
    expect_elements(&stream.record())?;
    Ok(tally)
}

fn forwards(kvm: &Kvm) -> Result<Tally, Failure> {
    strings(kvm, Order::Forwards)
}

fn backwards(kvm: &Kvm) -> Result<Tally, Failure> {
    strings(kvm, Order::Backwards)
}

fn bursts(kvm: &Kvm) -> Result<Tally, Failure> {
    let room = Room::new();
    let (manager, verdict, device) = (manager(&room), Verdict::new(), Bursts(Stream::new()));
    manager.register_device(&device, None, &[IoResource::pio(PORT, 4)], &[])?;
    let tally = run_guest(&Machine::new(kvm)?, &manager, &verdict, every_size, 0)?;
    let record = device.0.record();
    expect_bytes(&record)?;
    // How KVM cuts a string into exits is its own affair; each exit is one call, however long.
    expect("calls", (record.reads.len() + record.writes.len()) as u64, tally.exits - 1)?;
    Ok(tally)
}

fn unclaimed(kvm: &Kvm) -> Result<Tally, Failure> {
    extern "C" fn guest(_: u64) {
        // SAFETY: the guest's own memory, where nothing else is.
        unsafe { Width::read_string(PORT, DATA as *mut u16, COUNT, Order::Forwards) };
        for element in 0..COUNT as u64 {
            check!(mmio::read::<u16>(DATA + 2 * element), u16::MAX);
        }
        check!(mmio::read::<u16>(DATA + 2 * COUNT as u64), 0u16);
        pass()
    }
    let room = Room::new();
    let (manager, verdict) = (manager(&room), Verdict::new());
    let tally = run_guest(&Machine::new(kvm)?, &manager, &verdict, guest, 0)?;
    expect("accesses, that of the verdict excepted", tally.exits - 1, tally.unclaimed)?;
    Ok(tally)
}

fn real_mode_strings(kvm: &Kvm) -> Result<Tally, Failure> {
    let room = Room::new();
    let (manager, verdict, stream) = (manager(&room), Verdict::new(), Stream::new());
    manager.register_device(&verdict, None, &[Verdict::resource()], &[])?;
    manager.register_device(&stream, None, &[IoResource::pio(PORT, 4)], &[])?;
    let mut vcpu = Machine::new(kvm)?.start_real_mode(real_mode::strings())?;
    let tally = run_to_verdict(&mut vcpu, &mut &manager, &verdict, LIMIT)?;
    keep_map(&manager);
    let record = stream.record();
    expect("the reads", record.reads, [1; 8])?;
    expect("the writes", record.writes, [1; 8])?;
    expect("the bytes written", record.written, (0..8).map(stream_byte).collect::<Vec<_>>())?;
    Ok(tally)
}
