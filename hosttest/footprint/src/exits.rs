//! VM exits.

use core::hint::black_box;

use vm_device::exit::x86::{
    AddressSize, Gpr, Mode, PortAccess, Register, Registers, Segment, Size, StringForm, svm, vmx,
};

pub fn ports(instruction: &[u8]) {
    let mode = call!(Mode::new, true, true, false);
    let registers = black_box(Registers { gpr: [0; 16], rip: 0, rflags: 0 });
    let exit = vmx::IoExit { qualification: 0, instruction_information: None, instruction_length: 1, rip: 0 };
    for access in [call!(svm::port_access, 0, 0, mode), call!(vmx::port_access, exit, mode)].into_iter().flatten() {
        let access = call!(PortAccess::with_prefixes, access, instruction, mode);
        call!(PortAccess::count, &access, &registers);
        call!(PortAccess::element, &access, &registers, 1);
        call!(PortAccess::output, &access, &registers);
        call!(PortAccess::complete, &access, &registers, 1);
        call!(PortAccess::complete_string, &access, &registers, 1);
        if let Some(form) = access.string {
            let form = call!(StringForm::with_prefixes, form, instruction, mode);
            call!(StringForm::count, &form, &registers);
            call!(StringForm::offset, &form, &registers, Gpr::Rsi, Size::Byte, 1);
        }
    }
}

pub fn memory() {
    call!(svm::memory_access, 0, 0);
    call!(vmx::memory_access, 0, 0);
}

pub fn operands() {
    let mut registers = black_box(Registers { gpr: [0; 16], rip: 0, rflags: 0 });
    call!(Registers::get, &registers, Gpr::Rax);
    call!(Registers::set, &mut registers, Gpr::Rax, 1);
    call!(Registers::rax, &registers);
    call!(Registers::flags, &registers);
    call!(Registers::read, &registers, Register::High(Gpr::Rax), Size::Byte);
    call!(Registers::write, &mut registers, Register::High(Gpr::Rax), Size::Byte, 1);
    call!(Gpr::from_number, 0);
    call!(Segment::from_number, 0);
    call!(Mode::address_size, Mode::Bits16);
    call!(Mode::overridden_address_size, Mode::Bits16);
    call!(AddressSize::size, AddressSize::Bits16);
    call!(Size::bytes, Size::Byte);
    call!(Size::bits, Size::Byte);
    call!(Size::from_bytes, 1);
    call!(Size::truncate, Size::Byte, 1);
    call!(Size::sign_extend, Size::Byte, 1);
    call!(Size::of, Size::Byte, &mut [0; 8]);
}
