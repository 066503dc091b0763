//! Accesses at random, compared with a plain model.

use std::sync::Arc;

use kvm_ioctls::Kvm;
use vm_device::{Device, GuestAddress, IoResource};

use super::scenario::{DEVICE_MEMORY, Failure, Room, Scenario, expect, manager};
use super::verdict::run_guest;
use crate::devices::scratch::{Call, Direction, Scratch};
use crate::devices::verdict::Verdict;
use crate::guest_side::{fail, mmio, pass, port};
use crate::vmm::machine::Machine;
use crate::vmm::memory::{Memory, PAGE};
use crate::vmm::run::Tally;

/// The guests of this topic.
pub const ALL: &[Scenario] =
    &[Scenario { name: "random/accesses", about: "100,000 exits at random, compared with a plain model", run: random }];

/// How many exits there are at least.
const EXITS: u64 = 100_000;
/// The size of each device, in bytes or ports.
const SIZE: usize = 24;
/// The offset of each device's first byte from the one before: with a hole, and without.
const PORTS: [u16; 4] = [0x1000, 0x1018, 0x1040, 0xffe8];
/// The third lies across a page.
const MEMORY: [u64; 4] = [DEVICE_MEMORY, DEVICE_MEMORY + 0x18, DEVICE_MEMORY + PAGE - 8, DEVICE_MEMORY + PAGE + 0x40];
/// Where in guest physical memory the script lies.
const SCRIPT: u64 = 0x1000_0000;

/// One access of the guest. The guest reads it as four words.
#[derive(Clone, Copy, Debug)]
struct Step {
    port: bool,
    direction: Direction,
    size: u64,
    address: u64,
    /// What is written.
    value: u64,
    /// What a read has to give.
    expected: u64,
}

const STEP: u64 = 32;
const END: u64 = u64::MAX;

impl Step {
    fn words(&self) -> [u64; 4] {
        let kind = self.size | u64::from(self.port) << 8 | u64::from(self.direction == Direction::Write) << 9;
        [kind, self.address, self.value, self.expected]
    }
}

/// Goes through the script. A failed check has the number of the step, counted from 1.
extern "C" fn guest(_: u64) {
    let mut step = 0;
    loop {
        let at = SCRIPT + STEP * step;
        let [kind, address, value, expected] = [0, 8, 16, 24].map(|word| mmio::read::<u64>(at + word));
        if kind == END {
            pass();
        }
        step += 1;
        let port = address as u16;
        let seen = match kind {
            0x001 => mmio::read::<u8>(address).into(),
            0x002 => mmio::read::<u16>(address).into(),
            0x004 => mmio::read::<u32>(address).into(),
            0x008 => mmio::read::<u64>(address),
            0x101 => port::read::<u8>(port).into(),
            0x102 => port::read::<u16>(port).into(),
            0x104 => port::read::<u32>(port).into(),
            _ => {
                match kind {
                    0x201 => mmio::write(address, value as u8),
                    0x202 => mmio::write(address, value as u16),
                    0x204 => mmio::write(address, value as u32),
                    0x208 => mmio::write(address, value),
                    0x301 => port::write(port, value as u8),
                    0x302 => port::write(port, value as u16),
                    0x304 => port::write(port, value as u32),
                    _ => fail(step as u32, kind, 0),
                }
                continue;
            }
        };
        if seen != expected {
            fail(step as u32, seen, expected);
        }
    }
}

/// xorshift64* (Vigna 2016), enough to be irregular.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }
}

/// The plain model: four devices in each space, each with its bytes and its calls.
#[derive(Default)]
struct Model {
    bytes: [[u8; SIZE]; 8],
    calls: [Vec<Call>; 8],
    exits: u64,
}

impl Model {
    /// One exit: the bytes that a device has, or all ones, and nothing, unless the whole access lies in one device.
    fn exit(&mut self, step: &Step, address: u64, data: &mut [u8]) {
        self.exits += 1;
        for device in 0..8 {
            let (port, base) = if device < 4 { (true, PORTS[device].into()) } else { (false, MEMORY[device - 4]) };
            let inside = base <= address && address + data.len() as u64 <= base + SIZE as u64;
            if port != step.port || !inside {
                continue;
            }
            let offset = address - base;
            let bytes = &mut self.bytes[device][offset as usize..][..data.len()];
            let call = match step.direction {
                Direction::Read => {
                    data.copy_from_slice(bytes);
                    Call::read(offset, data.len())
                }
                Direction::Write => {
                    bytes.copy_from_slice(data);
                    Call::write(offset, data.len())
                }
            };
            self.calls[device].push(if port { call.port() } else { call });
            return;
        }
        if step.direction == Direction::Read {
            data.fill(0xff);
        }
    }

    /// One access: an exit, or two if it crosses a page of memory. Sets what a read has to give.
    fn access(&mut self, step: &mut Step) {
        let mut data = step.value.to_le_bytes();
        let data = &mut data[..step.size as usize];
        let to_page_end = if step.port { u64::MAX } else { PAGE - step.address % PAGE };
        let (low, high) = data.split_at_mut(step.size.min(to_page_end) as usize);
        self.exit(step, step.address, low);
        if !high.is_empty() {
            self.exit(step, step.address + to_page_end, high);
        }
        let mut value = [0; 8];
        value[..data.len()].copy_from_slice(data);
        step.expected = u64::from_le_bytes(value);
    }
}

fn random_step(random: &mut Random) -> Step {
    let port = random.below(2) == 0;
    let near = random.below(4) as usize;
    let offset = random.below(SIZE as u64 + 16);
    let address =
        if port { (u64::from(PORTS[near]) + offset).saturating_sub(8).min(0xffff) } else { MEMORY[near] + offset - 8 };
    let size = 1 << random.below(if port { 3 } else { 4 });
    let direction = if random.below(2) == 0 { Direction::Read } else { Direction::Write };
    Step { port, direction, size, address, value: random.next(), expected: 0 }
}

fn random(kvm: &Kvm) -> Result<Tally, Failure> {
    let (mut random, mut model, mut script) = (Random(0x0123_4567_89ab_cdef), Model::default(), Vec::new());
    while model.exits < EXITS {
        let mut step = random_step(&mut random);
        model.access(&mut step);
        script.extend(step.words());
    }
    script.extend([END, 0, 0, 0]);

    let machine = Machine::new(kvm)?;
    let memory = Arc::new(Memory::new(8 * script.len() as u64)?);
    machine.vm().map(GuestAddress(SCRIPT), &memory)?;
    for (index, word) in script.iter().enumerate() {
        memory.write_u64(8 * index as u64, *word);
    }

    let room = Room::new();
    let (manager, verdict) = (manager(&room), Verdict::new());
    let names = ["port 0", "port 1", "port 2", "port 3", "memory 0", "memory 1", "memory 2", "memory 3"];
    let devices = names.map(Scratch::<SIZE>::new);
    for (index, device) in devices.iter().enumerate() {
        let range = match index {
            0..4 => IoResource::pio(PORTS[index], SIZE as u32),
            _ => IoResource::mmio(MEMORY[index - 4], SIZE as u64),
        };
        manager.register_device(device, None, &[range], &[])?;
    }
    let tally = run_guest(&machine, &manager, &verdict, guest, 0)?;
    expect("exits", tally.exits - 1, model.exits)?;
    for (index, device) in devices.iter().enumerate() {
        expect(device.name(), device.bytes(), model.bytes[index])?;
        let calls = device.take_calls();
        expect(device.name(), calls.len(), model.calls[index].len())?;
        let difference = calls.iter().zip(&model.calls[index]).position(|(seen, expected)| seen != expected);
        expect("the first call that differs", difference, None::<usize>)?;
    }
    Ok(tally)
}
