//! test
#![no_std]
#![no_main]
mod boot; mod serial; mod svm; mod nested; mod memory; mod guest;
use vm_device::*;
pub const BELL_LINE: Gsi = Gsi(0);
static VCPU: spin::Mutex<svm::Vcpu> = spin::Mutex::new(svm::Vcpu::new());
static N: spin::Mutex<nested::NestedTables> = spin::Mutex::new(nested::NestedTables::new());
extern "sysv64" fn start(info: u64) -> ! {
    println!("start info {info:#x}");
    let mut n = N.lock();
    n.map(IoRange::with_size(GuestAddress(0), GuestUsize(0xa0000)).unwrap(), 64<<20).unwrap();
    memory::GuestMemory{size:2<<20}.write(guest::ENTRY as u64, guest::image()).unwrap();
    let vcpu = spin::MutexGuard::leak(VCPU.lock()).enable(n.root()).unwrap();
    vcpu.start_in_real_mode(guest::ENTRY);
    for _ in 0..10 {
    vcpu.run();
    println!("exit {:#x} {:#x} {:#x} {:x?}", vcpu.vmcb.exit_code, vcpu.vmcb.exit_info_1, vcpu.vmcb.exit_info_2, vcpu.registers);
    if vcpu.vmcb.exit_code!=0x7b {break}
    vcpu.registers.rip=vcpu.vmcb.exit_info_2;
    }
    serial::leave(serial::Ending::Passed)
}
#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    println!("{info}");
    serial::leave(serial::Ending::Failed)
}
