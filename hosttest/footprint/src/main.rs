//! The core's public functions, linked for bare metal.
//!
//! The panic handler refers to a function that nowhere exists: while the linker finds anything that can panic, the image
//! does not link. It is never run; its sections are what `.ci/footprint` measures. A test of hosttest compares what it
//! calls with what the core has.

#![no_std]
#![no_main]

use core::hint::black_box;
use core::panic::PanicInfo;

use vm_device::{
    DeviceManager, Dispatcher, Gsi, GuestAddress, IoRange, IoResource, IrqResource, Storage, SystemAllocator,
};

/// Calls a public function by a pointer, so that it is linked whole and by its own name, with arguments that the compiler
/// knows nothing of.
macro_rules! call {
    ($function:expr $(, $argument:expr)* $(,)?) => {{
        let function: fn($(call!(@any $argument)),*) -> _ = $function;
        core::hint::black_box(core::hint::black_box(function)($(core::hint::black_box($argument)),*))
    }};
    (@any $argument:expr) => { _ };
}

#[cfg(feature = "all")]
mod allocator;
mod device;
#[cfg(feature = "all")]
mod exits;
#[cfg(feature = "all")]
mod exits_arm64;
#[cfg(feature = "all")]
mod exits_riscv64;
#[cfg(feature = "devices")]
mod interrupt_chips;
#[cfg(feature = "all")]
mod messages;
#[cfg(feature = "devices")]
mod pci;
#[cfg(feature = "devices")]
mod pl011;
#[cfg(feature = "devices")]
mod ports;
#[cfg(feature = "devices")]
mod tables;
#[cfg(feature = "texts")]
mod texts;
#[cfg(feature = "devices")]
mod timers;
mod topology;
#[cfg(feature = "devices")]
mod uart;
#[cfg(feature = "all")]
mod values;
mod vcpu;

unsafe extern "C" {
    fn something_in_the_core_can_panic() -> !;
}

#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    // SAFETY: never reached: no image that refers to it links.
    unsafe { something_in_the_core_can_panic() }
}

type Room = Storage<'static, 8, 16, 2>;
type Manager = DeviceManager<'static>;
type Vcpu = Dispatcher<'static>;

const ALLOCATOR: SystemAllocator =
    SystemAllocator::new(IoRange::ALL_MEMORY).with_ports(IoRange::ALL_PORTS).with_irqs(5, 23);

static ROOM: Room = Storage::new();
static MANAGER: Manager = DeviceManager::new(&ROOM, ALLOCATOR).with_interrupt_controller(&device::CONTROLLER);

/// Reaches everything. It is no part of what is measured.
#[unsafe(no_mangle)]
extern "C" fn _start() -> ! {
    let manager = black_box(&MANAGER);
    let address = black_box(GuestAddress(0));
    let mut bytes = [0; 64];
    let data = bytes.get_mut(..black_box(4)).unwrap_or_default();
    let requests = black_box([IoResource::pio(0, 8), IoResource::mmio(0, 8)]);
    for irq in black_box([IrqResource::Any, IrqResource::Shared(Gsi(7))]) {
        topology::come_and_go(manager, black_box(None), black_box(&requests), &[irq]);
    }
    if let Ok(mut vcpu) = call!(DeviceManager::dispatcher, manager, 0) {
        vcpu::dispatch(&mut vcpu, address, data);
    }
    #[cfg(feature = "all")]
    {
        let io_type = black_box(vm_device::IoType::Mmio);
        let access = black_box(vm_device::Access::new(io_type, address, address, 0));
        topology::change(manager, black_box(manager.walk().next().map(|device| device.id)), &access);
        topology::look_around(manager, black_box("/nothing"), address, io_type);
        topology::take(manager, black_box(None), black_box(&requests), black_box(&[IrqResource::Any]));
        topology::make(allocator::make());
        allocator::reserve(manager, io_type);
        vcpu::other_handles(manager);
        vcpu::without_handle(manager, address, io_type, data);
        vcpu::nested(manager, &access, address, io_type, data);
        values::ranges(black_box(IoRange::ALL_PORTS), address);
        values::requests(black_box(IoResource::pio(0, 8)));
        values::access(&access, data);
        messages::all(data);
        exits::ports(data);
        exits::instructions(data);
        exits::memory();
        exits::operands();
        exits_arm64::all();
        exits_riscv64::guest_page_faults(data);
        #[cfg(feature = "devices")]
        interrupt_chips::all(manager, &access, data);
        #[cfg(feature = "devices")]
        pci::all(manager, &access, data);
        #[cfg(feature = "devices")]
        pci::pins(manager, &access, data);
        #[cfg(feature = "devices")]
        timers::all(manager, &access, data);
        #[cfg(feature = "devices")]
        uart::all(manager, &access, data);
        #[cfg(feature = "devices")]
        pl011::all(manager, &access, data);
        #[cfg(feature = "devices")]
        ports::all(manager, &access, data);
        #[cfg(feature = "devices")]
        tables::all(manager, data);
    }
    #[cfg(feature = "texts")]
    texts::all(manager);
    #[cfg(feature = "texts")]
    exits_arm64::texts();
    #[cfg(feature = "texts")]
    exits_riscv64::texts();
    loop {
        core::hint::spin_loop();
    }
}
