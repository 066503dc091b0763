//! The exit handler of a type-1 hypervisor, over `vm_device::exit`. The exits are data here: the numbers that a processor with
//! SVM puts into its control block. The prototype in `hosttest/type1` takes them from the processor.

use std::convert::Infallible;
use std::error::Error;

use spin::Mutex;
use vm_device::IoType::{Mmio, Pio};
use vm_device::exit::Guest;
use vm_device::exit::x86::instruction::decode;
use vm_device::exit::x86::{Gpr, MemoryAccessKind, Mode, Registers, Segment, X86Guest, svm};
use vm_device::{Access, Accesses, Device, DeviceManager, GuestAddress, IoRange, IoResource, Storage, SystemAllocator};

/// A device of eight bytes, which a guest writes and reads back.
struct Register(Mutex<[u8; 8]>);

impl Device<'_> for Register {
    fn name(&self) -> &str {
        "register"
    }

    fn read(&self, access: &Access<'_>, data: &mut [u8]) {
        access.load(&*self.0.lock(), data);
    }

    fn write(&self, access: &Access<'_>, data: &[u8]) {
        access.store(&mut *self.0.lock(), data);
    }
}

const PORT: u16 = 0x510;
const MEMORY: u64 = 0xfed0_0000;

static REGISTER: Register = Register(Mutex::new([0; 8]));
static STORAGE: Storage<'static, 4, 8, 1> = Storage::new();
static MANAGER: DeviceManager<'static> =
    DeviceManager::new(&STORAGE, SystemAllocator::new(IoRange::ALL_MEMORY).with_ports(IoRange::ALL_PORTS));

/// What the processor's control block says of an exit, and the bytes of the instruction that it happened in.
struct Exit {
    code: u64,
    info_1: u64,
    info_2: u64,
    instruction: &'static [u8],
}

/// A guest without paging, whose segments have no base, and that has no RAM: every access is a device's. What none claims is
/// open bus: the result of an access is for logs.
struct Vm<D>(D);

impl<D: Accesses> Guest for Vm<D> {
    type Fault = Infallible;

    fn translate(&mut self, linear: u64, _: MemoryAccessKind) -> Result<GuestAddress, Infallible> {
        Ok(GuestAddress(linear))
    }

    fn read(&mut self, address: GuestAddress, data: &mut [u8]) -> Result<(), Infallible> {
        let _ = self.0.read(address, data, Mmio);
        Ok(())
    }

    fn write(&mut self, address: GuestAddress, data: &[u8]) -> Result<(), Infallible> {
        let _ = self.0.write(address, data, Mmio);
        Ok(())
    }
}

impl<D: Accesses> X86Guest for Vm<D> {
    fn linear(&mut self, _: Segment, offset: u64, _: usize, _: MemoryAccessKind) -> Result<u64, Infallible> {
        Ok(offset)
    }

    fn input(&mut self, port: u16, data: &mut [u8]) -> Result<(), Infallible> {
        let _ = self.0.read(port.into(), data, Pio);
        Ok(())
    }

    fn output(&mut self, port: u16, data: &[u8]) -> Result<(), Infallible> {
        let _ = self.0.write(port.into(), data, Pio);
        Ok(())
    }
}

/// Does what the guest exited for. The registers are those with which it goes on.
fn handle(exit: &Exit, registers: &mut Registers, vm: &mut Vm<impl Accesses>) -> Result<(), Box<dyn Error>> {
    const MODE: Mode = Mode::Bits64;
    match exit.code {
        svm::VMEXIT_IOIO => svm::port_access(exit.info_1, exit.info_2, MODE)?.execute(registers, vm)?,
        svm::VMEXIT_NPF => {
            let access = svm::memory_access(exit.info_1, exit.info_2);
            decode(exit.instruction, MODE)?.execute(registers, &access, vm)?;
        }
        other => return Err(format!("exit {other:#x}").into()),
    }
    Ok(())
}

/// What a guest does: the instruction, in words and as an exit, and what is in RAX afterwards.
const GUEST: [(&str, Exit, u64); 5] = [
    (
        "out dx, eax",
        Exit { code: svm::VMEXIT_IOIO, info_1: (PORT as u64) << 16 | 0x40, info_2: 0x1001, instruction: &[0xef] },
        0x1122_3344,
    ),
    (
        "in al, dx, one port on",
        Exit { code: svm::VMEXIT_IOIO, info_1: (PORT as u64 + 1) << 16 | 0x11, info_2: 0x1002, instruction: &[0xec] },
        0x1122_3333,
    ),
    (
        "mov [rbx], ax",
        Exit { code: svm::VMEXIT_NPF, info_1: 0x1_0000_0006, info_2: MEMORY, instruction: &[0x66, 0x89, 0x03] },
        0x1122_3333,
    ),
    (
        "add al, [rbx + 2]",
        Exit { code: svm::VMEXIT_NPF, info_1: 0x1_0000_0004, info_2: MEMORY + 2, instruction: &[0x02, 0x43, 0x02] },
        0x1122_3355,
    ),
    (
        "mov eax, [rbx + 8], where nothing is",
        Exit { code: svm::VMEXIT_NPF, info_1: 0x1_0000_0004, info_2: MEMORY + 8, instruction: &[0x8b, 0x43, 0x08] },
        0xffff_ffff,
    ),
];

pub(crate) fn main() -> Result<(), Box<dyn Error>> {
    let resources = [IoResource::pio(PORT, 8), IoResource::mmio(MEMORY, 8)];
    MANAGER.register_device(&REGISTER, None, &resources, &[])?;
    let mut vm = Vm(MANAGER.dispatcher(0)?);

    let mut registers = Registers { rip: 0x1000, ..Registers::default() };
    registers.set(Gpr::Rax, 0x1122_3344);
    registers.set(Gpr::Rbx, MEMORY);
    for (words, exit, expected) in &GUEST {
        handle(exit, &mut registers, &mut vm)?;
        println!("{:#x}: {words:<40}rax {:#x}", registers.rip, registers.rax());
        assert_eq!(registers.rax(), *expected, "{words}");
    }
    // One byte after each port instruction, and the lengths of the three others.
    assert_eq!(registers.rip, 0x1002 + 3 + 3 + 3);
    assert_eq!(*REGISTER.0.lock(), [0x33, 0x33, 0x22, 0x11, 0, 0, 0, 0]);
    Ok(())
}
