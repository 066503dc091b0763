//! What can be shown as text.
//!
//! Of `Debug`, only where no name of a device is shown: that of `str` in the library `core` itself can panic, as far as the
//! linker knows.

use core::fmt::{self, Write};
use core::hint::black_box;

use vm_device::exit::ExecuteError;
use vm_device::exit::x86::instruction::{
    Base, Bytes, DecodeError, Direction, Extension, Instruction, MemoryOperand, Operand, Operation, VectorMove, decode,
};
use vm_device::exit::x86::vmx::IoExit;
use vm_device::exit::x86::{
    AddressSize, ExitError, Gpr, MemoryAccess, MemoryAccessKind, Mode, PortAccess, PortDirection, Register, Registers,
    Repeat, Segment, Size, StringForm, svm,
};
use vm_device::{
    Access, AccessDirection, AcpiCommand, Assigned, AssignedIrq, DeviceManager, DevicePath, DeviceRegister,
    DispatcherError, Doorbell, Failed, Fit, Gsi, GuestAddress, GuestUsize, HeavyBarrier, InstanceId, InterruptError,
    IoError, IoRange, IoResource, IoType, IrqError, IrqLine, IrqRefusal, IrqResource, MapText, MappedRange, Message,
    ObservedAccess, OpenBus, Owner, Part, PathError, PlacedRange, Placement, RangeError, RangeRefusal, RangeState,
    RegisterError, Rejected, RelocateError, Relocation, RerouteError, ResetError, Resources, Role, Straddling,
    SystemAllocator, UartKind, UnregisterError,
};

use crate::Manager;

/// Where all text goes.
struct Sink;

impl Write for Sink {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        black_box(text);
        Ok(())
    }
}

#[inline(never)]
pub fn display<T: fmt::Display>(value: &T) {
    write!(Sink, "{}", black_box(value)).ok();
}

#[inline(never)]
pub fn debug<T: fmt::Debug>(value: &T) {
    write!(Sink, "{:?}", black_box(value)).ok();
}

pub fn all(manager: &'static Manager) {
    vocabulary();
    errors();
    names(manager);
    for device in DeviceManager::walk(manager) {
        display::<InstanceId>(&device.id);
        debug::<InstanceId>(&device.id);
        display::<DevicePath<'_, '_>>(&manager.path(device.id));
        debug::<DevicePath<'_, '_>>(&manager.path(device.id));
        debug::<Relocation>(&Relocation::new(device.id, 0));
        let (id, device, io_type, range) = (device.id, &crate::device::DEVICE, IoType::Pio, IoRange::ALL_PORTS);
        debug::<PlacedRange<'_>>(&PlacedRange { id, device, range_index: 0, io_type, range, window: false });
    }
    display::<MapText<'_, '_>>(&manager.map());
    for range in DeviceManager::address_map(manager, IoType::Mmio) {
        display::<Assigned>(&range.assigned);
        debug::<Assigned>(&range.assigned);
        display::<Owner<&str>>(&range.owner);
    }
    exits();
}

fn vocabulary() {
    let (address, size, range) = (GuestAddress(0), GuestUsize(1), IoRange::ALL_PORTS);
    display::<GuestAddress>(&address);
    debug::<GuestAddress>(&address);
    display::<GuestUsize>(&size);
    debug::<GuestUsize>(&size);
    display::<IoRange>(&range);
    debug::<IoRange>(&range);
    display::<IoType>(&IoType::Pio);
    debug::<IoType>(&IoType::Pio);
    display::<Gsi>(&Gsi(0));
    debug::<Gsi>(&Gsi(0));
    debug::<Access<'_>>(&Access::new(IoType::Pio, address, address, 0));
    debug::<OpenBus>(&OpenBus::ALL_ONES);
    debug::<Straddling>(&Straddling::OpenBus);
    debug::<Doorbell>(&Doorbell { range_index: 0, offset: 0, size: 1, value: None });
    let port = DeviceRegister { range_index: 0, offset: 0, size: 1 };
    debug::<DeviceRegister>(&port);
    debug::<AcpiCommand>(&AcpiCommand { port, enable: 1, disable: 0 });
    debug::<Part>(&Part::ALL);
    debug::<Role>(&Role::PciHost);
    debug::<UartKind>(&UartKind::Ns16550);
    debug::<SystemAllocator>(&crate::ALLOCATOR);
    debug::<Fit>(&Fit::First);
    display::<RangeState>(&RangeState::Decoded);
    debug::<RangeState>(&RangeState::Decoded);
    debug::<Placement>(&range.into());
    debug::<IoResource>(&IoResource::pio(0, 1));
    debug::<IrqResource>(&IrqResource::Any);
    display::<AssignedIrq>(&AssignedIrq { gsi: None, shared: false });
    debug::<AssignedIrq>(&AssignedIrq { gsi: None, shared: false });
    debug::<IrqLine<'_>>(&IrqLine::DISCONNECTED);
    debug::<Message>(&Message { address, data: 0, masked: false });
    debug::<Resources<'_, '_>>(&Resources::new(&[], &[]));
    // SAFETY: the image is never run.
    debug::<HeavyBarrier>(&unsafe { HeavyBarrier::new(|| {}) });
}

pub fn observed(access: &ObservedAccess<'_>) {
    debug::<ObservedAccess<'_>>(access);
    debug::<AccessDirection>(&access.direction);
}

/// Each error, of which the compiler knows no more than its type.
fn errors() {
    display::<IrqRefusal<&str>>(&IrqRefusal::LineFull { gsi: Gsi(0) });
    display::<RerouteError<&str>>(&RerouteError::Busy { device: "" });
    display::<IrqError>(&IrqError::NoPool);
    debug::<IrqError>(&IrqError::NoPool);
    display::<RangeError>(&RangeError::Empty { base: GuestAddress(0) });
    debug::<RangeError>(&RangeError::Empty { base: GuestAddress(0) });
    display::<IoError>(&IoError::Unclaimed);
    debug::<IoError>(&IoError::Unclaimed);
    display::<DispatcherError>(&DispatcherError::Exhausted { capacity: 1 });
    debug::<DispatcherError>(&DispatcherError::Exhausted { capacity: 1 });
    display::<PathError>(&PathError::NotFound);
    debug::<PathError>(&PathError::NotFound);
    display::<Failed>(&Failed::new(0));
    debug::<Failed>(&Failed::new(0));
    display::<Rejected>(&Rejected::new(0));
    debug::<Rejected>(&Rejected::new(0));
    display::<InterruptError>(&InterruptError::Removed);
    debug::<InterruptError>(&InterruptError::Removed);
    display::<RangeRefusal<Owner<&str>>>(&RangeRefusal::NoPorts);
    display::<RegisterError<&str>>(&RegisterError::InvalidName { device: "" });
    display::<ResetError<&str>>(&ResetError::UnderWay);
    display::<UnregisterError<&str>>(&UnregisterError::Busy { device: "" });
    display::<RelocateError<&str>>(&RelocateError::Busy { device: "" });
}

/// Each error with names of another type.
fn names(manager: &'static Manager) {
    display(&Owner::map_names(Owner::<&str>::Vmm, str::len));
    for range in DeviceManager::address_map(manager, IoType::Mmio) {
        display(&MappedRange::map_names(range, str::len).assigned);
    }
    display(&RangeRefusal::map_names(RangeRefusal::<Owner<&str>>::NoPorts, str::len));
    display(&IrqRefusal::map_names(IrqRefusal::<&str>::LineFull { gsi: Gsi(0) }, str::len));
    display(&RegisterError::map_names(RegisterError::InvalidName { device: "" }, str::len));
    display(&UnregisterError::map_names(UnregisterError::Busy { device: "" }, str::len));
    display(&RelocateError::map_names(RelocateError::Busy { device: "" }, str::len));
    display(&RerouteError::map_names(RerouteError::Busy { device: "" }, str::len));
    display(&ResetError::map_names(ResetError::<&str>::UnderWay, str::len));
}

fn exits() {
    display::<ExitError>(&ExitError::Size(0));
    debug::<ExitError>(&ExitError::Size(0));
    debug::<Size>(&Size::Byte);
    debug::<Mode>(&Mode::Bits16);
    debug::<AddressSize>(&AddressSize::Bits16);
    debug::<Segment>(&Segment::Es);
    debug::<Gpr>(&Gpr::Rax);
    debug::<Register>(&Register::Low(Gpr::Rax));
    debug::<Registers>(&Registers { gpr: [0; 16], rip: 0, rflags: 0 });
    debug::<PortDirection>(&PortDirection::In);
    debug::<MemoryAccess>(&svm::memory_access(0, 0));
    debug::<MemoryAccessKind>(&MemoryAccessKind::Read);
    if let Ok(access) = black_box(svm::port_access(0, 0, Mode::Bits16)) {
        debug::<PortAccess>(&access);
        if let Some(form) = access.string {
            debug::<StringForm>(&form);
            debug::<Repeat>(&form.repeat);
        }
    }
    display::<ExecuteError<u64>>(&ExecuteError::from(0));
    debug::<ExecuteError<u64>>(&ExecuteError::from(0));
    match black_box(decode(black_box(&[]), black_box(Mode::Bits16))) {
        Ok(instruction) => {
            debug::<Instruction>(&instruction);
            debug::<Operation>(&instruction.operation());
            debug::<Operand>(&instruction.source());
            debug::<Direction>(&instruction.direction());
            debug::<Extension>(&instruction.register_size().1);
            debug::<MemoryOperand>(&instruction.address());
            debug::<Base>(&Base::Rip);
            if let Some(vector) = instruction.vector() {
                debug::<VectorMove>(&vector);
            }
        }
        Err(error) => {
            display::<DecodeError>(&error);
            debug::<DecodeError>(&error);
            if let DecodeError::Unsupported(bytes) = error {
                display::<Bytes>(&bytes);
                debug::<Bytes>(&bytes);
            }
        }
    }
    debug::<IoExit>(&IoExit { qualification: 0, instruction_information: None, instruction_length: 1, rip: 0 });
}
