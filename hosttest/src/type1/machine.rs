//! The machines that the hypervisor has images for.

use std::ffi::OsString;
use std::iter;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;
use std::process::Command;

use clap::ValueEnum;

use super::bochs;
use crate::qemu::{Error, Processor, start};

/// A machine that the hypervisor has an image for, and what emulates it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, ValueEnum)]
pub enum Machine {
    /// A PC with AMD SVM, emulated by QEMU
    #[default]
    Svm,
    /// A PC with Intel VMX, emulated by Bochs
    Vmx,
    /// A machine of Arm with EL2, emulated by QEMU
    Arm64,
    /// A machine of RISC-V with the hypervisor extension, emulated by QEMU
    Riscv64,
}

impl Machine {
    /// All of them.
    pub const ALL: [Self; 4] = [Machine::Svm, Machine::Vmx, Machine::Arm64, Machine::Riscv64];

    /// Its name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Machine::Svm => "svm",
            Machine::Vmx => "vmx",
            Machine::Arm64 => "arm64",
            Machine::Riscv64 => "riscv64",
        }
    }

    /// The target that the image is built for.
    pub const fn target(self) -> &'static str {
        match self {
            Machine::Svm | Machine::Vmx => "x86_64-unknown-none",
            Machine::Arm64 => "aarch64-unknown-none",
            Machine::Riscv64 => "riscv64gc-unknown-none-elf",
        }
    }

    /// The feature of the image that stands for the machine, where the target does not.
    pub(super) const fn feature(self) -> Option<&'static str> {
        match self {
            Machine::Vmx => Some("vmx"),
            Machine::Svm | Machine::Arm64 | Machine::Riscv64 => None,
        }
    }

    /// The program that emulates it, and the package that has it on Debian.
    pub(super) const fn emulator(self) -> (&'static str, &'static str) {
        match self {
            Machine::Svm => (crate::qemu::PROGRAM, crate::qemu::PACKAGE),
            Machine::Vmx => (bochs::PROGRAM, bochs::PACKAGE),
            Machine::Arm64 => ("qemu-system-aarch64", "qemu-system-arm"),
            Machine::Riscv64 => ("qemu-system-riscv64", "qemu-system-misc"),
        }
    }

    /// Its processor, and where its emulator puts the files of a kernel and an initial RAM disk in its memory: the hypervisor expects
    /// them there (`linux.rs`).
    pub(super) const fn linux(self) -> (Processor, u64, u64) {
        const MIB: u64 = 1 << 20;
        match self {
            Machine::Svm | Machine::Vmx => (Processor::X86, (64 + 16) * MIB, (64 + 256) * MIB),
            Machine::Arm64 => (Processor::Arm, (1024 + 64 + 2) * MIB, (1024 + 64 + 192) * MIB),
            Machine::Riscv64 => (Processor::RiscV, (2048 + 64 + 2) * MIB, (2048 + 64 + 192) * MIB),
        }
    }

    /// Whether the hypervisor runs a guest with two processors there.
    pub const fn has_two_processors(self) -> bool {
        matches!(self, Machine::Arm64)
    }

    /// The emulator with this image, and with the hypervisor's console as its output. The hypervisor gets the command line, if there
    /// is one, and finds each of the files at its address. The emulator may have files of its own in `folder`.
    ///
    /// # Errors
    /// [`Error::Io`] or [`Error::TooLarge`].
    pub(super) fn command(
        self,
        image: &Path,
        command_line: &str,
        files: &[(&Path, u64)],
        folder: &Path,
    ) -> Result<Command, Error> {
        let mut qemu = match self {
            Machine::Vmx => return bochs::command(image, command_line, files, folder),
            Machine::Svm => start::machine("tcg", 512),
            Machine::Arm64 => self.virt(&["virt,virtualization=on,gic-version=3", "-cpu", "cortex-a57"]),
            Machine::Riscv64 => self.virt(&["virt", "-cpu", "rv64,h=true", "-bios", "none"]),
        };
        qemu.arg("-kernel").arg(image);
        for (file, address) in files {
            qemu.arg("-device").arg(loader(file, *address));
        }
        if !command_line.is_empty() {
            qemu.args(["-append", command_line]);
        }
        Ok(qemu)
    }

    /// QEMU's machine `virt`, of this kind.
    fn virt(self, kind: &[&str]) -> Command {
        let mut qemu = Command::new(self.emulator().0);
        qemu.arg("-machine").args(kind).args([
            "-m",
            "512",
            "-nodefaults",
            "-display",
            "none",
            "-no-reboot",
            "-serial",
            "stdio",
        ]);
        qemu
    }

    /// The exit code of the emulator when the hypervisor ends the machine with this verdict.
    pub(super) const fn exit_code(self, passed: bool) -> i32 {
        match self {
            // `isa-debug-exit` ends QEMU with twice what is written there, and one.
            Machine::Svm => 2 * (if passed { 0x10 } else { 0x11 }) + 1,
            Machine::Vmx => bochs::EXIT_CODE,
            // Turning the machine off says nothing: the last line does.
            Machine::Arm64 => 0,
            Machine::Riscv64 if passed => 0,
            Machine::Riscv64 => 1,
        }
    }
}

/// The device of QEMU's that loads a file to an address of the machine.
fn loader(file: &Path, address: u64) -> OsString {
    let mut device = format!("loader,force-raw=on,addr={address:#x},file=").into_bytes();
    // In an option of QEMU's a comma ends the value, and two are one.
    for byte in file.as_os_str().as_bytes() {
        device.extend(iter::repeat_n(*byte, if *byte == b',' { 2 } else { 1 }));
    }
    OsString::from_vec(device)
}
