//! Physically backed ranges.

use kvm_ioctls::Kvm;
use vm_device::{GuestUsize, IoResource, IoType};

use super::scenario::{Failure, Room, Scenario, expect, manager};
use super::verdict::run_guest;
use crate::check;
use crate::devices::scratch::Scratch;
use crate::devices::verdict::Verdict;
use crate::guest_side::{mmio, pass};
use crate::vmm::backing::{Backed, Backing};
use crate::vmm::machine::Machine;
use crate::vmm::memory::PAGE;
use crate::vmm::run::Tally;

/// The guests here.
pub const ALL: &[Scenario] =
    &[Scenario { name: "access/backed", about: "a physically backed range, which never exits", run: backed }];

fn backed(kvm: &Kvm) -> Result<Tally, Failure> {
    const SIZE: u64 = 4 * PAGE;
    extern "C" fn guest(base: u64) {
        for word in 0..SIZE / 8 {
            check!(mmio::read::<u64>(base + 8 * word), word ^ 0x5555);
            mmio::write(base + 8 * word, word);
        }
        mmio::write(base + PAGE - 3, 0x8877_6655_4433_2211u64);
        check!(mmio::read::<u64>(base + PAGE - 3), 0x8877_6655_4433_2211u64);
        pass()
    }
    let machine = Machine::new(kvm)?;
    let (room, backing) = (Room::new(), Backing::new());
    let (verdict, video) = (Verdict::new(), Scratch::<0>::new("video"));
    let manager = manager(&room).with_listener(&backing);
    let memory = IoResource::any(IoType::PhysicalMmio, GuestUsize(SIZE)).aligned(PAGE);
    let id = manager.register_device(&video, None, &[memory], &[])?;
    let base = manager.range(id, 0).map_or(0, |assigned| assigned.range.first().0);
    backing.connect(machine.vm())?;
    let backed = backing.placed();
    expect("backed ranges", backed.len(), 1usize)?;
    let Backed { range, memory } = &backed[0];
    expect("the backed range", range.first().0, base)?;
    for word in 0..SIZE / 8 {
        memory.write_u64(8 * word, word ^ 0x5555);
    }
    let tally = run_guest(&machine, &manager, &verdict, guest, base)?;
    expect("the last word", memory.read_u64(SIZE - 8), SIZE / 8 - 1)?;
    expect("calls of the device", video.take_calls().len(), 0usize)?;
    expect("accesses, that of the verdict excepted", tally.exits - 1, 0u64)?;
    Ok(tally)
}
