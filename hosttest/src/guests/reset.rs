//! Guests that reset the machine.

use kvm_bindings::{kvm_regs, kvm_sregs};
use kvm_ioctls::Kvm;
use vm_device::devices::reset_control::ResetControl;
use vm_device::{DeviceManager, IoResource};

use super::scenario::{DEVICE_MEMORY, Failure, LIMIT, Room, Scenario, expect, manager};
use super::shown::keep_map;
use crate::check;
use crate::devices::scratch::Scratch;
use crate::devices::verdict::Verdict;
use crate::guest_side::{mmio, pass, port};
use crate::vmm::machine::{DATA, Machine};
use crate::vmm::memory::PAGE;
use crate::vmm::power::{Power, Request};
use crate::vmm::run::{Tally, run};
use crate::vmm::vcpu::{Ring, Vcpu};

/// The guests of this topic.
pub const ALL: &[Scenario] = &[Scenario {
    name: "reset/port-0xcf9",
    about: "a machine reset by its guest, which starts again and finds the devices as they were at first",
    run: reset_register,
}];

/// The reset control register: which reset, and that it happens (Intel 290550, PIIX3).
const RESET_CONTROL: u16 = 0xcf9;
const HARD: u8 = 1 << 1;
const RESET: u8 = 1 << 2;

const CARD: u64 = DEVICE_MEMORY;
/// Where in RAM, which a reset leaves as it is, the guest counts its starts.
const STARTS: u64 = DATA;
const ARGUMENT: u64 = 0x1234_5678_9abc_def0;
const RESETS: u64 = 3;

extern "C" fn guest(argument: u64) {
    check!(argument, ARGUMENT);
    let starts = mmio::read::<u64>(STARTS);
    mmio::write(STARTS, starts + 1);
    check!(mmio::read::<u64>(CARD), 0u64);
    check!(port::read::<u8>(RESET_CONTROL), 0u8);
    mmio::write(CARD, !starts);
    check!(mmio::read::<u64>(CARD), !starts);
    // The kind alone resets nothing.
    port::write(RESET_CONTROL, HARD);
    check!(port::read::<u8>(RESET_CONTROL), HARD);
    check!(mmio::read::<u64>(CARD), !starts);
    if starts < RESETS {
        port::write(RESET_CONTROL, RESET | if starts & 1 == 0 { HARD } else { 0 });
        // It does not come here.
        check!(mmio::read::<u64>(CARD), 0u64);
    }
    pass()
}

/// The registers of a processor.
fn registers(vcpu: &Vcpu) -> Result<(kvm_regs, kvm_sregs), Failure> {
    Ok((vcpu.fd().get_regs()?, vcpu.fd().get_sregs()?))
}

fn reset_register(kvm: &Kvm) -> Result<Tally, Failure> {
    let (room, machine, power) = (Room::new(), Machine::new(kvm)?, Power::new());
    let (manager, verdict, card) = (manager(&room), Verdict::new(), Scratch::<8>::new("card"));
    let control = ResetControl::new(&power);
    manager.register_device(&card, None, &[IoResource::mmio(CARD, PAGE)], &[])?;
    manager.register_device(&control, None, &[control.port()], &[])?;
    manager.register_device(&verdict, None, &[Verdict::resource()], &[])?;
    let mut vcpu = machine.start(0, Ring::User, guest, ARGUMENT)?;
    let at_first = registers(&vcpu)?;
    let mut resets = 0;
    let tally = run_with_resets(&manager, &mut vcpu, &power, &verdict, |vcpu| {
        resets += 1;
        expect("the guest runs somewhere else", registers(vcpu)? != at_first, true)?;
        machine.restart(vcpu, 0, Ring::User, guest, ARGUMENT)?;
        expect("the registers after a reset", registers(vcpu)?, at_first)
    })?;
    keep_map(&manager);
    expect("resets", resets, RESETS)?;
    expect("starts", machine.ram().read_u64(STARTS), RESETS + 1)?;
    expect("the card after the last start", card.bytes(), (!RESETS).to_le_bytes())?;
    Ok(tally)
}

/// Runs a guest to its verdict. Where it asks for a reset, its devices are reset, and `restart` is called for the processor.
fn run_with_resets<'d>(
    manager: &'d DeviceManager<'d>,
    vcpu: &mut Vcpu,
    power: &Power,
    verdict: &Verdict,
    mut restart: impl FnMut(&mut Vcpu) -> Result<(), Failure>,
) -> Result<Tally, Failure> {
    let mut all = Tally::default();
    let mut dispatcher = manager.dispatcher(0)?;
    loop {
        let Tally { exits, unclaimed, straddling, refused, elapsed } =
            run(vcpu, &mut dispatcher, LIMIT, || power.is_requested() || verdict.given().is_some())?;
        all = Tally {
            exits: all.exits + exits,
            unclaimed: all.unclaimed + unclaimed,
            straddling: all.straddling + straddling,
            refused: all.refused + refused,
            elapsed: all.elapsed + elapsed,
        };
        match power.take() {
            // The exit has been answered: no processor is in a callback.
            Some(Request::Reset) => {
                manager.reset().map_err(|error| Failure(error.to_string()))?;
                restart(vcpu)?;
            }
            Some(Request::PowerOff) => return Err(Failure("the guest has switched the machine off".into())),
            None => break,
        }
    }
    match verdict.given() {
        Some(Err(finding)) => Err(Failure(format!("the guest failed: {finding}"))),
        _ => Ok(all),
    }
}
