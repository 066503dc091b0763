//! Registration, removal, relocation and allocation.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use peer_vm_device::bus::{MmioAddress, MmioRange};
use peer_vm_device::device_manager::{IoManager, MmioManager};
use vm_allocator::{AddressAllocator, AllocPolicy};
use vm_device::{
    Device, DeviceManager, Fit, GuestAddress, GuestUsize, IoRange, IoType, Placement, Relocation, SystemAllocator,
};

use super::layout::{Layout, Random};
use super::measure::{Figure, interleaved, per_operation, pin};
use super::options::Plan;
use super::peers::VM_DEVICE;
use super::report::{Report, Work};
use super::stage::Stage;
use super::subject::{Register, Subject};
use super::this_crate::{self, ASYMMETRIC, Named, PORTABLE};

fn work(bench: &'static str, pattern: &str, n: usize) -> Work {
    Work { bench, pattern: pattern.into(), space: "mmio", n, threads: 1 }
}

/// All of them, for each number of ranges.
pub(super) fn run(plan: &Plan, report: &mut Report) -> io::Result<()> {
    for n in plan.sizes(&[64, 1024]) {
        fill(plan, report, n)?;
        comes_and_goes(plan, report, n)?;
        relocate(plan, report, n)?;
        allocate(plan, report, n)?;
    }
    if let [reader, writer, ..] = plan.processors[..] {
        unregister_under_load(plan, report, reader, writer)?;
    }
    Ok(())
}

/// The devices of a layout of one type.
fn devices(layout: &Layout) -> Vec<Named<0>> {
    (0..layout.ranges.len()).map(this_crate::device::<0>).collect()
}

fn fill_with<'d>(manager: &'d DeviceManager<'d>, devices: &'d [Named<0>], layout: &Layout) {
    this_crate::fill(manager, devices.iter().map(|device| device as &dyn Device<'d>), layout);
}

/// Registers n devices with an empty manager: the time for each.
fn fill(plan: &Plan, report: &mut Report, n: usize) -> io::Result<()> {
    let work = work("register", "fill", n);
    report.progress(&work);
    let layout = Layout::new(IoType::Mmio, n, 1);
    let (devices, room) = (devices(&layout), this_crate::room());
    let manager = this_crate::manager(&room, false);
    let arcs: Vec<_> = (0..n).map(|_| Arc::new(Register::<0>::new())).collect();
    let figures = interleaved(plan.rounds.min(31), 2, |which, _| match which {
        0 => {
            let time = per_operation(n, || fill_with(&manager, &devices, &layout));
            let ids: Vec<_> = manager.walk().map(|device| device.id).collect();
            for id in ids {
                manager.unregister_device(id).expect("the device is registered");
            }
            time
        }
        _ => {
            let mut manager = IoManager::new();
            per_operation(n, || {
                for ((first, last), device) in layout.ranges.iter().zip(&arcs) {
                    let range = MmioRange::new(MmioAddress(*first), last - first + 1).expect("the range is valid");
                    manager.register_mmio(range, device.clone()).expect("the ranges are disjoint");
                }
            })
        }
    });
    report.add(&work, &[PORTABLE, VM_DEVICE], &figures)
}

/// One more device is registered and removed again.
fn comes_and_goes(plan: &Plan, report: &mut Report, n: usize) -> io::Result<()> {
    const TIMES: usize = 64;
    let work = work("register", "register and unregister", n);
    report.progress(&work);
    let stage = Stage::new(Layout::new(IoType::Mmio, n, 1));
    let changing: Vec<&Subject> = stage.subjects.iter().filter(|subject| subject.change.is_some()).collect();
    let figures = interleaved(plan.rounds.min(31), changing.len(), |which, _| {
        let Some(change) = &changing[which].change else { return f64::NAN };
        per_operation(TIMES, || (0..TIMES).for_each(|_| change()))
    });
    let names: Vec<_> = changing.iter().map(|subject| subject.name).collect();
    report.add(&work, &names, &figures)
}

/// A range moves away and back.
fn relocate(plan: &Plan, report: &mut Report, n: usize) -> io::Result<()> {
    const TIMES: usize = 64;
    let work = work("relocate", "one range, there and back", n);
    report.progress(&work);
    let layout = Layout::new(IoType::Mmio, n, 1);
    let (devices, room) = (devices(&layout), this_crate::room());
    let manager = this_crate::manager(&room, false);
    fill_with(&manager, &devices, &layout);
    let (first, _) = layout.ranges[n / 2];
    let found = manager.find_by_address(GuestAddress(first), IoType::Mmio);
    let (id, index) = found.expect("the layout's range is registered");
    let places = [GuestAddress(layout.spare().0), GuestAddress(first)];
    let figures = interleaved(plan.rounds.min(31), 1, |_, _| {
        per_operation(2 * TIMES, || {
            for to in (0..TIMES).flat_map(|_| places) {
                manager.relocate(&mut [Relocation::new(id, index).to(to)]).expect("the place is free");
            }
        })
    });
    report.add(&work, &[PORTABLE], &figures)
}

const BLOCK: u64 = 0x1000;

/// In a pool with a hole behind each of n blocks, frees one and allocates one.
fn allocate(plan: &Plan, report: &mut Report, n: usize) -> io::Result<()> {
    const TIMES: usize = 256;
    const LAST: u64 = 0x1_0000_0000 - 1;
    let room = this_crate::room();
    let own = DeviceManager::new(&room, SystemAllocator::new(IoRange::of::<BLOCK, LAST>()));
    let mut peer = AddressAllocator::new(BLOCK, LAST - BLOCK + 1).expect("the bounds are valid");
    let mut blocks: Vec<u64> = (0..n as u64).map(|i| BLOCK * (2 * i + 1)).collect();
    for base in &blocks {
        let range = IoRange::with_size(GuestAddress(*base), GuestUsize(BLOCK / 2)).expect("the range is valid");
        own.reserve(IoType::Mmio, range).expect("the place is free");
        peer.allocate(BLOCK / 2, 1, AllocPolicy::ExactMatch(*base)).expect("the place is free");
    }
    let mut random = Random::new(7);
    let picks: Vec<usize> = (0..TIMES).map(|_| random.below(n as u64) as usize).collect();
    let mut peer_blocks = blocks.clone();
    let any = Placement::Any { size: GuestUsize(BLOCK / 2), align: BLOCK, within: None, fit: Fit::First };
    let work_blocks = work("allocate", "free and allocate, fragmented", n);
    report.progress(&work_blocks);
    let figures = interleaved(plan.rounds.min(31), 2, |which, _| {
        per_operation(TIMES, || {
            for pick in &picks {
                if which == 0 {
                    let base = GuestAddress(blocks[*pick]);
                    let range = IoRange::with_size(base, GuestUsize(BLOCK / 2)).expect("the range is valid");
                    own.release(IoType::Mmio, range).expect("it is allocated");
                    blocks[*pick] = own.reserve(IoType::Mmio, any).expect("there is room").first().0;
                } else {
                    let base = peer_blocks[*pick];
                    let range = vm_allocator::RangeInclusive::new(base, base + BLOCK / 2 - 1).expect("it is valid");
                    peer.free(&range).expect("it is allocated");
                    let taken = peer.allocate(BLOCK / 2, BLOCK, AllocPolicy::FirstMatch).expect("there is room");
                    peer_blocks[*pick] = taken.start();
                }
            }
        })
    });
    report.add(&work_blocks, &[PORTABLE, "vm-allocator 0.1"], &figures)
}

/// Removes a device that another vCPU is reading all the time: how long the removal takes.
fn unregister_under_load(plan: &Plan, report: &mut Report, reader: usize, writer: usize) -> io::Result<()> {
    let work = Work { threads: 2, ..work("unregister", "under dispatch load", 64) };
    report.progress(&work);
    let layout = Layout::new(IoType::Mmio, 64, 1);
    let (devices, guest) = (devices(&layout), this_crate::guest());
    let requests = [this_crate::resource(IoType::Mmio, layout.spare())];
    let address = layout.spare().0;
    let mut figures = Vec::new();
    for asymmetric in [false, true] {
        let room = this_crate::room();
        let manager = this_crate::manager(&room, asymmetric);
        fill_with(&manager, &devices, &layout);
        let stop = AtomicBool::new(false);
        let samples = std::thread::scope(|scope| {
            scope.spawn(|| {
                pin(reader);
                let mut vcpu = manager.dispatcher(0).expect("there are more handles than threads");
                let mut data = [0; 4];
                while !stop.load(Ordering::Relaxed) {
                    let _ = vcpu.read(GuestAddress(address), &mut data, IoType::Mmio);
                }
            });
            pin(writer);
            let samples = (0..100 * plan.rounds)
                .map(|_| {
                    let id = manager.register_device(&guest, None, &requests, &[]);
                    let id = id.expect("the place is free");
                    let settled = Instant::now();
                    while settled.elapsed().as_micros() < 5 {}
                    let start = Instant::now();
                    manager.unregister_device(id).expect("the device is registered");
                    start.elapsed().as_secs_f64() * 1e9
                })
                .collect();
            stop.store(true, Ordering::Relaxed);
            samples
        });
        figures.push(Figure::of(samples));
        pin(reader);
    }
    report.add(&work, &[PORTABLE, ASYMMETRIC], &figures)
}
