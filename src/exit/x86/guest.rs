//! What x86 needs of the guest beside its memory: segments and ports.

use super::mode::{AddressSize, Mode, Segment};
use crate::exit::guest::Guest;
use crate::exit::memory::MemoryAccessKind;
use crate::exit::size::Size;

/// What the embedder knows of a guest on x86.
///
/// ```
/// # mod constant { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/guide/constant.rs")); }
/// # use constant::Constant;
/// use vm_device::IoType::{Mmio, Pio};
/// use vm_device::exit::Guest;
/// use vm_device::exit::x86::{Gpr, MemoryAccessKind, Mode, Registers, Segment, Size, X86Guest, svm};
/// use vm_device::{
///     DeviceManager, Dispatcher, Failed, GuestAddress, IoRange, IoResource, Storage, SystemAllocator,
/// };
///
/// /// A guest without paging, whose segments have no base. Its RAM lies from 0 on.
/// struct Vm<'d> {
///     ram: [u8; 0x1000],
///     devices: Dispatcher<'d>,
/// }
///
/// impl Guest for Vm<'_> {
///     type Fault = Failed;
///     fn translate(&mut self, address: u64, _: MemoryAccessKind) -> Result<GuestAddress, Failed> {
///         Ok(GuestAddress(address))
///     }
///     fn read(&mut self, address: GuestAddress, data: &mut [u8]) -> Result<(), Failed> {
///         match self.ram.get(address.0 as usize..).and_then(|ram| ram.get(..data.len())) {
///             Some(ram) => data.copy_from_slice(ram),
///             None => Failed::pass_on(self.devices.read(address, data, Mmio))?,
///         }
///         Ok(())
///     }
///     fn write(&mut self, address: GuestAddress, data: &[u8]) -> Result<(), Failed> {
///         match self.ram.get_mut(address.0 as usize..).and_then(|ram| ram.get_mut(..data.len())) {
///             Some(ram) => ram.copy_from_slice(data),
///             None => Failed::pass_on(self.devices.write(address, data, Mmio))?,
///         }
///         Ok(())
///     }
/// }
///
/// impl X86Guest for Vm<'_> {
///     fn linear(&mut self, _: Segment, offset: u64, _: usize, _: MemoryAccessKind) -> Result<u64, Failed> {
///         Ok(offset)
///     }
///     fn input(&mut self, port: u16, size: Size, data: &mut [u8]) -> Result<(), Failed> {
///         if data.len() == size.bytes() {
///             return Failed::pass_on(self.devices.read(port.into(), data, Pio));
///         }
///         Failed::pass_on(self.devices.read_string(port, size.bytes(), data))
///     }
///     fn output(&mut self, port: u16, size: Size, data: &[u8]) -> Result<(), Failed> {
///         if data.len() == size.bytes() {
///             return Failed::pass_on(self.devices.write(port.into(), data, Pio));
///         }
///         Failed::pass_on(self.devices.write_string(port, size.bytes(), data))
///     }
/// }
///
/// let disk = Constant("disk", 7);
/// let storage = Storage::<8, 16, 2>::new();
/// let manager =
///     DeviceManager::new(&storage, SystemAllocator::new(IoRange::ALL_MEMORY).with_ports(IoRange::ALL_PORTS));
/// manager.register_device(&disk, None, &[IoResource::pio(0x1f0, 2)], &[]).unwrap();
/// let mut vm = Vm { ram: [0; 0x1000], devices: manager.dispatcher(0).unwrap() };
///
/// // `rep insw` of 4 words to 0x100.
/// let mut registers = Registers::default();
/// registers.set(Gpr::Rcx, 4);
/// registers.set(Gpr::Rdi, 0x100);
/// svm::port_access(0x01f0_022d, 0x7c02, Mode::Bits64)?.execute(&mut registers, &mut vm).unwrap();
/// assert_eq!(vm.ram[0xff..0x109], [0, 7, 7, 7, 7, 7, 7, 7, 7, 0]);
/// assert_eq!((registers.get(Gpr::Rcx), registers.get(Gpr::Rdi), registers.rip), (0, 0x108, 0x7c02));
/// # Ok::<(), vm_device::exit::x86::ExitError>(())
/// ```
pub trait X86Guest: Guest {
    /// The linear address of `offset` into `segment`, where an operand of `length` bytes begins: the base of the segment plus
    /// the offset, cut to 32 bits outside 64-bit mode. In 64-bit mode only FS and GS have a base.
    ///
    /// # Errors
    /// The exception that the guest gets where the segment's limit or rights, or an address that is not canonical, forbid the
    /// access. An embedder that checks none of them lets a guest reach only what its page tables let it reach. A fault of
    /// several elements of a string at once is not reported: they are asked for one by one then.
    fn linear(
        &mut self,
        segment: Segment,
        offset: u64,
        length: usize,
        kind: MemoryAccessKind,
    ) -> Result<u64, Self::Fault>;

    /// How much of RSP the stack uses outside 64-bit mode: SS.B, the attribute D/B of the stack segment (Intel SDM vol. 3A,
    /// 3.4.5). PUSH and POP ask for it.
    ///
    /// Where it is not told, it is that of the code: in real mode and with flat segments they are the same.
    fn stack_address_size(&mut self, mode: Mode) -> AddressSize {
        mode.address_size()
    }

    /// Reads elements of `size` from a port: one for `IN`, several for a burst of `REP INS`. A dispatcher's
    /// [`read`](crate::Dispatcher::read) is the faster way for one element.
    ///
    /// # Errors
    /// The reason to stop the guest.
    fn input(&mut self, port: u16, size: Size, data: &mut [u8]) -> Result<(), Self::Fault>;

    /// Writes elements of `size` to a port: one for `OUT`, several for a burst of `REP OUTS`.
    ///
    /// # Errors
    /// The reason to stop the guest.
    fn output(&mut self, port: u16, size: Size, data: &[u8]) -> Result<(), Self::Fault>;

    /// Whether a string is to stop between two of its elements, because an interrupt is to be delivered. The guest comes back
    /// for the rest.
    fn is_interrupted(&mut self) -> bool {
        false
    }
}
