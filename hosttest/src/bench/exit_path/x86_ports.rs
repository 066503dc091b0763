//! The path of a port exit on x86: the numbers of the exit, the access, the registers.

use std::hint::black_box;

use vm_device::exit::x86::{Gpr, Mode, PortAccess, PortDirection, Register, Registers, svm, vmx};
use vm_device::{Accesses, Dispatcher, GuestAddress, IoType};

use super::as_it_was;
use super::guest::{Constant, Flat, asymmetric, dispatcher};
use super::step::{Step, Way};
use super::{AS_IT_WAS, DISPATCH, EXECUTE, LOOP, NUMBERS, OWN, OWN_AGAIN, OWN_ASYMMETRIC, OWN_SVM, OWN_VMX, TOGETHER};

pub(super) const PATH: &str = "x86 pio";

/// `IN` or `OUT` with DX.
struct Sample {
    bytes: usize,
    is_in: bool,
}

static SAMPLES: [Sample; 6] = [
    Sample { bytes: 1, is_in: true },
    Sample { bytes: 1, is_in: false },
    Sample { bytes: 2, is_in: true },
    Sample { bytes: 2, is_in: false },
    Sample { bytes: 4, is_in: true },
    Sample { bytes: 4, is_in: false },
];

/// The address of the instructions, which are one byte long.
const RIP: u64 = 0x40_1000;

impl Sample {
    #[inline(always)]
    fn by_svm(&self, port: u64, mode: Mode) -> Option<PortAccess> {
        const A64: u64 = 0x200;
        let exitinfo1 = port << 16 | A64 | (self.bytes as u64) << 4 | u64::from(self.is_in);
        svm::port_access(exitinfo1, RIP + 1, mode).ok()
    }

    #[inline(always)]
    fn by_vmx(&self, port: u64, mode: Mode) -> Option<PortAccess> {
        let exit = vmx::IoExit {
            qualification: port << 16 | u64::from(self.is_in) << 3 | (self.bytes as u64 - 1),
            instruction_information: None,
            instruction_length: 1,
            rip: RIP,
        };
        vmx::port_access(exit, mode).ok()
    }
}

/// No compiler knows the mode of a guest.
fn mode() -> Mode {
    black_box(Mode::Bits64)
}

fn registers() -> Registers {
    let mut registers = Registers { rip: RIP, ..Registers::default() };
    registers.set(Gpr::Rax, 0x1234_5678);
    registers
}

pub(super) fn steps() -> Vec<Step> {
    let step = |name, ways| Step { name, path: PATH, io_type: IoType::Pio, samples: SAMPLES.len(), ways };
    vec![
        step(NUMBERS, vec![numbers(OWN_SVM, Sample::by_svm), numbers(OWN_VMX, Sample::by_vmx), loop_alone()]),
        step(DISPATCH, dispatches()),
        step(EXECUTE, executions()),
        step(TOGETHER, whole_paths()),
    ]
}

fn loop_alone() -> Way {
    Way::new(LOOP, &SAMPLES, |_, port| port)
}

fn numbers(name: &'static str, numbers: impl Fn(&Sample, u64, Mode) -> Option<PortAccess> + 'static) -> Way {
    let mode = mode();
    Way::new(name, &SAMPLES, move |sample, port| match &numbers(sample, port, mode) {
        Some(access) => black_box(access).port.into(),
        None => 0,
    })
}

/// The accesses of the instructions, by one who knows them.
fn dispatches() -> Vec<Way> {
    let own = |name, mut devices: Dispatcher<'static>| {
        Way::new(name, &SAMPLES, move |sample, port| {
            let (mut data, address) = ([0; 8], GuestAddress(port));
            let data = &mut data[..sample.bytes];
            let _ = match sample.is_in {
                true => devices.read(address, data, IoType::Pio),
                false => devices.write(address, data, IoType::Pio),
            };
            data[0].into()
        })
    };
    vec![own(OWN, dispatcher(IoType::Pio)), own(OWN_ASYMMETRIC, asymmetric(IoType::Pio)), loop_alone()]
}

/// What an exit leaves behind.
#[inline(always)]
fn of(registers: &Registers, executed: bool) -> u64 {
    black_box(registers).rax() ^ u64::from(executed)
}

/// Reads or writes the port, and completes the instruction.
#[inline(always)]
fn execute_as_it_was(access: &PortAccess, registers: &mut Registers, devices: &mut impl Accesses) {
    let mut data = registers.read(Register::Low(Gpr::Rax), access.size).to_le_bytes();
    let (port, bytes) = (access.port.into(), access.size.of(&mut data));
    let _ = match access.direction {
        PortDirection::In => devices.read(port, bytes, IoType::Pio),
        PortDirection::Out => devices.write(port, bytes, IoType::Pio),
    };
    *registers = as_it_was::complete(access, registers, u64::from_le_bytes(data));
}

/// What is left when the access is known, with an answer that takes no time.
fn executions() -> Vec<Way> {
    let known: &'static [PortAccess] =
        Vec::leak(SAMPLES.iter().filter_map(|sample| sample.by_svm(0x3f8, mode())).collect());
    let (mut own, mut guest) = (registers(), Flat(Constant::new()));
    let (mut earlier, mut answers) = (registers(), Constant::new());
    vec![
        Way::new(OWN, known, move |access, _| {
            let executed = access.execute(&mut own, &mut guest);
            of(&own, executed.is_ok())
        }),
        Way::new(AS_IT_WAS, known, move |access, _| {
            execute_as_it_was(access, &mut earlier, &mut answers);
            of(&earlier, true)
        }),
        loop_alone(),
    ]
}

fn whole_paths() -> Vec<Way> {
    vec![
        own_path(OWN_SVM, Sample::by_svm, dispatcher(IoType::Pio)),
        own_path(OWN_AGAIN, Sample::by_svm, dispatcher(IoType::Pio)),
        own_path(OWN_ASYMMETRIC, Sample::by_svm, asymmetric(IoType::Pio)),
        own_path(OWN_VMX, Sample::by_vmx, dispatcher(IoType::Pio)),
        path_as_it_was(),
        loop_alone(),
    ]
}

fn own_path(
    name: &'static str,
    numbers: impl Fn(&Sample, u64, Mode) -> Option<PortAccess> + 'static,
    devices: Dispatcher<'static>,
) -> Way {
    let (mut registers, mode, mut guest) = (registers(), mode(), Flat(devices));
    Way::new(name, &SAMPLES, move |sample, port| {
        let access = numbers(sample, port, mode);
        let executed = access.is_some_and(|access| access.execute(&mut registers, &mut guest).is_ok());
        of(&registers, executed)
    })
}

fn path_as_it_was() -> Way {
    let (mut registers, mode, mut devices) = (registers(), mode(), dispatcher(IoType::Pio));
    Way::new(AS_IT_WAS, &SAMPLES, move |sample, port| {
        let access = sample.by_svm(port, mode);
        if let Some(access) = &access {
            execute_as_it_was(access, &mut registers, &mut devices);
        }
        of(&registers, access.is_some())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_leaves_the_registers_and_the_port_as_it_did_by_the_numbers_of_either_processor() {
        for sample in &SAMPLES {
            let access = sample.by_svm(0x3f8, Mode::Bits64).unwrap();
            assert_eq!(sample.by_vmx(0x3f8, Mode::Bits64), Some(access));
            let (mut own, mut guest) = (registers(), Flat(Constant::new()));
            access.execute(&mut own, &mut guest).unwrap();
            let (mut earlier, mut answers) = (registers(), Constant::new());
            execute_as_it_was(&access, &mut earlier, &mut answers);
            assert_eq!((own, guest.0.value()), (earlier, answers.value()));
        }
    }
}
