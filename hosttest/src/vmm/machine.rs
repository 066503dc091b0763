//! A machine ready for a guest: RAM, page tables, descriptor tables, and processors that start in the guest's code.
//!
//! The guest's RAM starts at address 0 and looks like this:
//!
//! | from | what |
//! |---|---|
//! | `0x1000` | a global descriptor table for each processor |
//! | `0x2000` | the interrupt descriptor table |
//! | `0x3000` | a task state segment for each processor |
//! | `0x4000` | a stack for ring 0 for each processor |
//! | `0x7c00` | code in real mode |
//! | `0xc000` | the I/O permission bitmap of all task state segments |
//! | `0x1_0000` | page tables |
//! | `0x10_0000` | a stack for each processor |
//! | [`DATA`] | for the guest's own use |
//!
//! In long mode the lower 4 GiB of guest physical memory are visible at their own addresses, the uppermost 2 MiB at
//! [`TOP_WINDOW`], and the program itself where it is in the host process.

use std::io;
use std::sync::Arc;

use kvm_bindings::kvm_mp_state;
use kvm_ioctls::Kvm;
use vm_device::GuestAddress;

use crate::vmm::exit::Exit;
use crate::vmm::image;
use crate::vmm::memory::{Memory, PAGE};
use crate::vmm::paging::{LARGE_PAGE, PageTables};
use crate::vmm::vcpu::{LongMode, Ring, Vcpu, descriptor_table};
use crate::vmm::vm::Vm;

/// The size of the RAM.
pub const RAM: u64 = 8 << 20;
/// Where the part of the RAM that is for the guest's own use starts; it goes on to the end of the RAM.
pub const DATA: u64 = 2 << 20;
/// Where a guest in long mode sees the uppermost 2 MiB of guest physical memory.
pub const TOP_WINDOW: u64 = 0x2000_0000_0000;
/// How many processors there is room for.
pub const MAX_VCPUS: u64 = 4;

const GDT: u64 = 0x1000;
const IDT: u64 = 0x2000;
const TSS: u64 = 0x3000;
const KERNEL_STACKS: u64 = 0x4000;
const KERNEL_STACK: u64 = 0x800;
const REAL_MODE: u64 = 0x7c00;
const IO_BITMAP: u64 = 0xc000;
const IO_BITMAP_LENGTH: u64 = 0x1_0000 / 8;
const PAGE_TABLES: u64 = 0x1_0000;
const PAGE_TABLES_END: u64 = 0x10_0000;
const STACKS: u64 = 0x10_0000;
const STACK: u64 = 0x4_0000;
const LOWER_4_GIB: u64 = 4 << 30;
/// Where in guest physical memory the program itself lies. It needs an address that no device is at, and that every
/// processor has.
const IMAGE: u64 = 16 << 30;

/// A virtual machine with RAM.
pub struct Machine {
    vm: Arc<Vm>,
    ram: Arc<Memory>,
    page_tables: GuestAddress,
}

impl Machine {
    /// A machine without an interrupt controller.
    ///
    /// # Errors
    /// What the host or KVM refuses.
    pub fn new(kvm: &Kvm) -> io::Result<Self> {
        Self::around(Vm::new(kvm)?)
    }

    /// A machine with KVM's interrupt controllers.
    ///
    /// # Errors
    /// What the host or KVM refuses.
    pub fn with_irqchip(kvm: &Kvm) -> io::Result<Self> {
        let vm = Vm::new(kvm)?;
        vm.create_irqchip()?;
        Self::around(vm)
    }

    /// The machine that `vm` becomes: RAM is added, and this program.
    ///
    /// # Errors
    /// What the host or KVM refuses.
    pub fn around(vm: Vm) -> io::Result<Self> {
        let ram = Arc::new(Memory::new(RAM)?);
        vm.map(GuestAddress(0), &ram)?;
        let mut tables = PageTables::new(&ram, PAGE_TABLES, PAGE_TABLES_END);
        tables.map(0, 0, LOWER_4_GIB, LARGE_PAGE, true);
        tables.map(TOP_WINDOW, vm.highest_address().0 + 1 - LARGE_PAGE, LARGE_PAGE, LARGE_PAGE, true);
        let mut physical = IMAGE;
        for mapping in image::mappings()? {
            if mapping.first < LOWER_4_GIB {
                return Err(io::Error::other("the program has to be position-independent, to lie above 4 GiB"));
            }
            vm.map_image(GuestAddress(physical), &mapping)?;
            tables.map(mapping.first, physical, mapping.length, PAGE, mapping.writable);
            physical += mapping.length;
        }
        let page_tables = GuestAddress(tables.root());
        Ok(Self { vm: Arc::new(vm), ram, page_tables })
    }

    /// The virtual machine.
    pub fn vm(&self) -> &Arc<Vm> {
        &self.vm
    }

    /// The RAM, from guest physical address 0.
    pub fn ram(&self) -> &Memory {
        &self.ram
    }

    /// Lets the interrupt `vector` call `entry` in ring 0, with interrupts disabled (Intel SDM vol. 3A, 6.14.1). It has to
    /// end in `iretq`.
    pub fn set_interrupt_gate(&self, vector: u8, entry: u64) {
        const KERNEL_CODE: u64 = 0x08;
        const PRESENT_INTERRUPT_GATE: u64 = 0x8e00 << 32;
        let gate = IDT + 16 * u64::from(vector);
        let low = entry & 0xffff | KERNEL_CODE << 16 | PRESENT_INTERRUPT_GATE | (entry >> 16 & 0xffff) << 48;
        self.ram.write_u64(gate, low);
        self.ram.write_u64(gate + 8, entry >> 32);
    }

    /// Processor number `id`, below [`MAX_VCPUS`], about to call `function`, a function of this very program.
    ///
    /// In ring 3 that can be an ordinary Rust function, as long as it needs no thread-local storage, no system call and no
    /// panic. In ring 0 it should be written in assembly: not every KVM can run all that the compiler emits there.
    ///
    /// # Errors
    /// What KVM refuses.
    pub fn start(&self, id: u64, ring: Ring, function: extern "C" fn(u64), argument: u64) -> io::Result<Vcpu> {
        assert!(id < MAX_VCPUS, "processor {id} of {MAX_VCPUS}");
        let mut vcpu = self.runnable(id)?;
        self.enter(&mut vcpu, id, ring, function, argument)?;
        Ok(vcpu)
    }

    /// Processor number `id` again, as [`start`](Self::start) has made it: after a reset of the machine. RAM stays as it is.
    ///
    /// # Errors
    /// What KVM refuses.
    pub fn restart(
        &self,
        vcpu: &mut Vcpu,
        id: u64,
        ring: Ring,
        function: extern "C" fn(u64),
        argument: u64,
    ) -> io::Result<()> {
        // An instruction that has exited ends at the next run (Linux, Documentation/virt/kvm/api.rst, KVM_RUN), and may change
        // registers then: it ends first, by a run that does not enter the guest.
        vcpu.kvm_run().immediate_exit = 1;
        let ended = matches!(vcpu.run(), Exit::Interrupted);
        vcpu.kvm_run().immediate_exit = 0;
        if !ended {
            return Err(io::Error::other("the processor cannot be stopped"));
        }
        self.enter(vcpu, id, ring, function, argument)
    }

    /// Lets a processor begin with a function.
    fn enter(
        &self,
        vcpu: &mut Vcpu,
        id: u64,
        ring: Ring,
        function: extern "C" fn(u64),
        argument: u64,
    ) -> io::Result<()> {
        let gdt = GDT + 0x40 * id;
        let tss = TSS + 0x80 * id;
        let tss_limit = (IO_BITMAP - tss + IO_BITMAP_LENGTH) as u16;
        for (index, descriptor) in descriptor_table(GuestAddress(tss), tss_limit).iter().enumerate() {
            self.ram.write_u64(gdt + 8 * index as u64, *descriptor);
        }
        // RSP0, the stack for an interrupt from ring 3 (Intel SDM vol. 3A, 7.7).
        self.ram.write_u64(tss + 4, KERNEL_STACKS + KERNEL_STACK * (id + 1));
        // Ring 3 may use every port: all bits are 0 (Intel SDM vol. 1, 19.5.2). So is the byte that follows, which decides
        // over an access that runs over the end of the port space.
        self.ram.write(tss + 102, &((IO_BITMAP - tss) as u16).to_le_bytes());
        let tables = LongMode {
            page_tables: self.page_tables,
            gdt: GuestAddress(gdt),
            idt: GuestAddress(IDT),
            tss: GuestAddress(tss),
            tss_limit,
        };
        let stack = STACKS + STACK * (id + 1);
        vcpu.start_long_mode(tables, ring, function as usize as u64, stack, argument)?;
        Ok(())
    }

    /// Processor number 0, about to run `code` in real mode from 0x7c00.
    ///
    /// # Errors
    /// What KVM refuses.
    pub fn start_real_mode(&self, code: &[u8]) -> io::Result<Vcpu> {
        self.ram.write(REAL_MODE, code);
        let mut vcpu = self.runnable(0)?;
        vcpu.start_real_mode(REAL_MODE as u16, REAL_MODE as u16)?;
        Ok(vcpu)
    }

    /// Processor number `id`, which does not wait for a start-up interrupt.
    fn runnable(&self, id: u64) -> io::Result<Vcpu> {
        let vcpu = Vcpu::new(&self.vm, id)?;
        vcpu.fd().set_mp_state(kvm_mp_state { mp_state: kvm_bindings::KVM_MP_STATE_RUNNABLE })?;
        Ok(vcpu)
    }
}
