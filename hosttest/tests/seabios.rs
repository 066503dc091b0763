//! SeaBIOS on the board of `hosttest boot`: it finds the functions behind the host bridge and behind another bridge, sizes their base
//! address registers, gives them addresses and lines, sets its clock by the RTC, and looks for something to boot from. The map is as
//! it left the registers. A list has each access that no device answers, with the reason. Without `/dev/kvm` or SeaBIOS these tests
//! count as ignored; where `CI` is set, as failed.

mod needs;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::OnceLock;
use std::thread;
use std::time::Duration;

use hosttest::boot::board::{Board, Card, Setup, with_board};
use hosttest::boot::capture::Capture;
use hosttest::boot::chips::Chips;
use hosttest::boot::image::{Firmware, Image};
use hosttest::boot::ram::MIB;
use hosttest::boot::run::{Ended, Run, run};
use hosttest::boot::summary::{Missed, Summary};
use hosttest::vmm::counters::Unanswered;
use hosttest::vmm::crew::Crew;
use hosttest::vmm::host::kvm;
use libtest_mimic::{Arguments, Trial};
use vm_device::AccessDirection::{self, Read, Write};
use vm_device::devices::pci::{Bar, Config, Function, Pin, Slot};
use vm_device::devices::time::WallClock;
use vm_device::{Assigned, Gsi, GuestAddress, InstanceId, IoError, IoType, RangeState};

use needs::{Need, test};

/// What each test looks at, once the firmware has found nothing to boot from.
type Check = fn(&Board<'_>, &Capture) -> Result<(), String>;

const CHECKS: [(&str, Check); 6] = [
    ("it_says_what_it_has_found_on_its_debug_port", check_messages),
    ("the_map_is_as_the_firmware_leaves_the_registers", check_map),
    ("the_windows_of_the_bridge_are_as_its_registers_say", check_windows),
    ("the_pins_lead_to_the_lines_that_their_functions_say", check_lines),
    ("its_clock_is_set_by_the_rtc", check_time),
    ("nothing_answers_what_it_is_known_to_look_for_and_nothing_else", check_unanswered),
];

fn main() -> ExitCode {
    let (kvm, seabios) = (Need::new("KVM", kvm()), Need::new("SeaBIOS", image()));
    let trial = |number: usize| test(CHECKS[number].0, &[&kvm, &seabios], move || Ok(result(number)?));
    let mut trials: Vec<Trial> = (0..CHECKS.len()).map(trial).collect();
    // All of it once more where the crate's interrupt controllers take the place of KVM's.
    trials.push(test("all_of_that_with_the_crates_interrupt_controllers", &[&kvm, &seabios], || {
        Ok(boot(Chips::Crate)?.into_iter().collect::<Result<(), _>>()?)
    }));
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

/// What came of a check. The firmware is booted once for all of them.
fn result(check: usize) -> Result<(), String> {
    static RESULTS: OnceLock<Result<Vec<Result<(), String>>, String>> = OnceLock::new();
    RESULTS.get_or_init(|| boot(Chips::Kvm)).clone()?.swap_remove(check)
}

const LIMIT: Duration = Duration::from_secs(120);
const RAM: u64 = 32 * MIB;
const GIB: u64 = 1 << 30;
/// The last thing that the firmware does, if there is nothing to boot from.
const AT_THE_END: &str = "No bootable device.";

/// The image of the firmware.
fn image() -> Result<PathBuf, String> {
    let path = std::env::var_os("VM_DEVICE_SEABIOS").map_or("/usr/share/seabios/bios.bin".into(), PathBuf::from);
    match path.exists() {
        true => Ok(path),
        false => Err(format!(
            "{} is not there: install Debian's package `seabios`, or set VM_DEVICE_SEABIOS to a bios.bin",
            path.display()
        )),
    }
}

/// A disk, a network card, and something behind the bridge.
const CARDS: [Card; 3] = [
    Card {
        name: "disk",
        config: Config::new(0x1234, 1)
            .class(0x01_8000)
            .bar(0, Bar::memory(0x4000))
            .bar(1, Bar::ports(0x40))
            // It has no room below 4 GiB.
            .bar(2, Bar::memory64(4 * GIB).prefetchable()),
        slot: Slot::new(4, 0),
        is_behind_bridge: false,
    },
    Card {
        name: "network",
        config: Config::new(0x1234, 2)
            .class(0x02_0000)
            .bar(0, Bar::ports(0x20))
            .bar(5, Bar::memory(MIB))
            .interrupt_pin(1),
        slot: Slot::new(2, 0),
        is_behind_bridge: false,
    },
    Card {
        name: "behind",
        config: Config::new(0x1234, 3)
            .class(0x07_8000)
            .bar(0, Bar::memory64(0x1000).prefetchable())
            .bar(3, Bar::memory(0x2000))
            .bar(4, Bar::ports(8))
            .interrupt_pin(1),
        slot: Slot::new(0, 0),
        is_behind_bridge: true,
    },
];

/// The register of each range of each card, in their order, and the bits of it that are an address.
const REGISTERS: [&[(usize, u64)]; 3] = [
    &[(0x10, MEMORY), (0x14, PORTS), (0x18, MEMORY)],
    &[(0x10, PORTS), (0x24, MEMORY)],
    &[(0x10, MEMORY), (0x1c, MEMORY), (0x20, PORTS)],
];
const MEMORY: u64 = !0xf;
const PORTS: u64 = !0x3;

/// Boots the firmware until it has found nothing to boot from, and makes all checks.
fn boot(chips: Chips) -> Result<Vec<Result<(), String>>, String> {
    let image = Image::Firmware(Firmware::read(&image()?).map_err(|error| error.to_string())?);
    let (debug, serial) = (Capture::new(), Capture::new());
    let setup = Setup {
        memory: RAM,
        image: &image,
        serial: &serial,
        debug: &debug,
        pci_serial: [&serial; 2],
        cards: &CARDS,
        chips,
        trace: None,
    };
    with_board(&setup, |board| {
        let crew = Crew::new();
        let (outcome, is_at_the_end) = thread::scope(|scope| {
            let waiting = scope.spawn(|| {
                let found = debug.wait_for(AT_THE_END, LIMIT).is_some();
                crew.stop();
                found
            });
            let outcome = run(board, &crew, &Run { cpus: 1, limit: Some(LIMIT), starts_again: &|| false });
            debug.end();
            (outcome, waiting.join().unwrap_or(false))
        });
        let ended = outcome.map_err(|error| error.to_string())?.ended;
        if !matches!(ended, Ended::Stopped { .. }) || !is_at_the_end {
            return Err(format!("{ended}\n{}", debug.output()));
        }
        let with_output = |error: String| format!("{error}\n{}", debug.output());
        Ok(CHECKS.iter().map(|(_, check)| check(board, &debug).map_err(with_output)).collect())
    })
    .map_err(|error| error.to_string())?
}

/// Whether it says what it has found, on the port that it takes for one for messages by what it reads there.
fn check_messages(_: &Board<'_>, debug: &Capture) -> Result<(), String> {
    let said = debug.output();
    let size = format!("RamSize: {RAM:#010x}");
    let found = [&*size, "Running on QEMU (i440fx)", "Found 7 PCI devices (max PCI bus is 01)", "Found 1 serial ports"];
    match found.into_iter().find(|text| !said.contains(text)) {
        Some(text) => Err(format!("it has not said {text:?}")),
        None => Ok(()),
    }
}

/// The address in a base address register.
fn address(function: &Function<'_>, (register, mask): (usize, u64)) -> u64 {
    let low = function.register(register);
    let is_wide = low & 0b111 == 0b100;
    let high = if is_wide { function.register(register + 4) } else { 0 };
    (u64::from(high) << 32 | u64::from(low)) & mask
}

fn check_map(board: &Board<'_>, _: &Capture) -> Result<(), String> {
    for ((id, function), registers) in board.cards.iter().zip(REGISTERS) {
        for (index, register) in registers.iter().enumerate() {
            check(board, *id, index, address(function, *register))?;
        }
    }
    Ok(())
}

fn check_windows(board: &Board<'_>, _: &Capture) -> Result<(), String> {
    let (id, bridge) = board.bridge.ok_or("there is no bridge")?;
    for (index, base) in windows(bridge).into_iter().enumerate() {
        check(board, id, index, base)?;
    }
    Ok(())
}

/// The first addresses of a bridge's windows, as its registers say (PCI-to-PCI Bridge Architecture 1.2, 3.2.5.6 to 3.2.5.10).
fn windows(bridge: &Function<'_>) -> [u64; 3] {
    let [ports, memory, prefetchable] = [0x1c, 0x20, 0x24].map(|register| u64::from(bridge.register(register)));
    let above = u64::from(bridge.register(0x28)) << 32;
    [(ports & 0xf0) << 8, (memory & 0xfff0) << 16, above | (prefetchable & 0xfff0) << 16]
}

/// Whether the range is decoded at `base`, which the firmware has put there, and an access finds it up to its end.
fn check(board: &Board<'_>, id: InstanceId, index: usize, base: u64) -> Result<(), String> {
    let Some(Assigned { io_type, range, state }) = board.manager.range(id, index) else {
        return Err(format!("{id} has no range {index}"));
    };
    if base == 0 || state != RangeState::Decoded || range.first().0 != base {
        return Err(format!("{id}: range {index} is {state} at {range}, and its register says {base:#x}"));
    }
    let found = board.manager.find_by_address(range.last(), io_type);
    if found != Some((id, index)) {
        return Err(format!("{id}: at the end of range {index}, at {range}, an access finds {found:?}"));
    }
    Ok(())
}

/// The firmware has routed the pins, and written where each leads into the interrupt line register of its function.
fn check_lines(board: &Board<'_>, _: &Capture) -> Result<(), String> {
    let [_, (_, network), (_, behind)] = board.cards[..] else { return Err("there are three cards".into()) };
    let pins = [
        (network, board.host.line(Slot::new(2, 0), Pin::A), 10),
        (behind, board.host.line(Slot::new(3, 0), Pin::A.through_bridge(Slot::new(0, 0))), 11),
    ];
    for (function, line, expected) in pins {
        let found = (line, function.register(0x3c) & 0xff);
        if found != (Some(Gsi(expected)), expected) {
            return Err(format!("a pin leads to {line:?}, and its function says {}", found.1));
        }
    }
    Ok(())
}

/// Whether the firmware has set its clock by the RTC: to the ticks of the PIT since midnight, 18.2 a second, at 0x46c in the
/// BIOS data area. It loses ticks while it has its interrupts off.
fn check_time(board: &Board<'_>, _: &Capture) -> Result<(), String> {
    let mut ticks = [0; 4];
    board.ram.read(0x46c, &mut ticks).ok_or("there is no RAM")?;
    let utc = board.clock.utc();
    let (shown, now) = (u64::from(u32::from_le_bytes(ticks)) * 10_000 / 182_065, utc / 1_000_000_000 % 86_400);
    let difference = now.abs_diff(shown);
    if difference.min(86_400 - difference) > 10 {
        return Err(format!("the firmware's clock is at {shown} s, and it is {now} s after midnight"));
    }
    Ok(())
}

/// What SeaBIOS looks for on every PC and the board does not have: ports, whether each is read or written, the size in bytes.
const SOUGHT: [(&str, &[u16], &[AccessDirection], usize); 6] = [
    ("it clears both DMA controllers (Intel 8237A)", &[0x0d, 0xda], &[Write], 1),
    ("it chains the second of them to the first: mode and mask of its channel 0", &[0xd6, 0xd4], &[Write], 1),
    ("parallel ports: it writes data, and reads it back", &[0x278, 0x378], &[Write, Read], 1),
    (
        "parallel ports: it switches their drivers on, and reads the control register",
        &[0x27a, 0x37a],
        &[Write, Read],
        1,
    ),
    (
        "COM2 to COM4: it writes the interrupt enable register, and reads it back",
        &[0x2f9, 0x3e9, 0x2e9],
        &[Write, Read],
        1,
    ),
    ("the slots whose cards can be pulled out, by the hot plug of QEMU's PIIX4", &[0xae0c], &[Read], 4),
];

/// Nothing on the board answers what is in that list, and everything else.
fn check_unanswered(board: &Board<'_>, _: &Capture) -> Result<(), String> {
    let summary = Summary::new(board.counters);
    let mut sought = Vec::new();
    for (why, ports, directions, size) in SOUGHT {
        for (port, direction) in
            ports.iter().flat_map(|port| directions.iter().map(move |direction| (*port, *direction)))
        {
            sought.push((GuestAddress::from(port), direction, size, why));
        }
    }
    let is_known = |missed: &Missed| {
        let Unanswered { error, io_type, address, direction, element, .. } = missed.access;
        let key = (address, direction, element);
        let known = sought.iter().any(|(port, sought, size, _)| key == (*port, *sought, *size));
        known && error == IoError::Unclaimed && io_type == IoType::Pio
    };
    let unknown: Vec<_> = summary.missed.iter().filter(|missed| !is_known(missed)).map(Missed::to_string).collect();
    if !unknown.is_empty() || summary.missed_beside > 0 {
        return Err(format!("nothing answers what it is not known to look for:\n  {}", unknown.join("\n  ")));
    }
    sought.retain(|(port, direction, _, _)| {
        !summary.missed.iter().any(|missed| (missed.access.address, missed.access.direction) == (*port, *direction))
    });
    match sought.first() {
        Some((port, direction, _, why)) => Err(format!("there was no {direction:?} of port {port}: {why}")),
        None => Ok(()),
    }
}
