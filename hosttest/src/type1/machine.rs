//! The machines that the hypervisor has images for.

use std::path::Path;
use std::process::Command;

use clap::ValueEnum;

use crate::qemu::{Processor, start};

/// A machine that the hypervisor has an image for, and what emulates it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, ValueEnum)]
pub enum Machine {
    /// A PC with AMD SVM, emulated by QEMU
    #[default]
    Svm,
    /// A machine of Arm with EL2, emulated by QEMU
    Arm64,
}

impl Machine {
    /// All of them.
    pub const ALL: [Self; 2] = [Machine::Svm, Machine::Arm64];

    /// Its name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Machine::Svm => "svm",
            Machine::Arm64 => "arm64",
        }
    }

    /// The target that the image is built for.
    pub const fn target(self) -> &'static str {
        match self {
            Machine::Svm => "x86_64-unknown-none",
            Machine::Arm64 => "aarch64-unknown-none",
        }
    }

    /// The program that emulates it, and the package that has it on Debian.
    pub(super) const fn emulator(self) -> (&'static str, &'static str) {
        match self {
            Machine::Svm => (crate::qemu::PROGRAM, crate::qemu::PACKAGE),
            Machine::Arm64 => ("qemu-system-aarch64", "qemu-system-arm"),
        }
    }

    /// Its processor, and where its emulator puts the files of a kernel and an initial RAM disk in its memory: the hypervisor expects
    /// them there (`linux.rs`). `None` if it runs no kernel.
    pub(super) const fn linux(self) -> Option<(Processor, u64, u64)> {
        const MIB: u64 = 1 << 20;
        match self {
            Machine::Svm => Some((Processor::X86, (64 + 16) * MIB, (64 + 256) * MIB)),
            Machine::Arm64 => Some((Processor::Arm, (1024 + 64 + 2) * MIB, (1024 + 64 + 192) * MIB)),
        }
    }

    /// Whether the hypervisor runs a guest with two processors there.
    pub const fn has_two_processors(self) -> bool {
        matches!(self, Machine::Arm64)
    }

    /// The emulator with this image, and with the hypervisor's console as its output.
    pub(super) fn command(self, image: &Path) -> Command {
        match self {
            Machine::Svm => {
                let mut qemu = start::machine("tcg", 512);
                qemu.arg("-kernel").arg(image);
                qemu
            }
            Machine::Arm64 => {
                let mut qemu = Command::new(self.emulator().0);
                qemu.args(["-machine", "virt,virtualization=on,gic-version=3", "-cpu", "cortex-a57", "-m", "512"])
                    .args(["-nodefaults", "-display", "none", "-no-reboot", "-serial", "stdio", "-kernel"])
                    .arg(image);
                qemu
            }
        }
    }

    /// The exit code of the emulator when the hypervisor ends the machine with this verdict.
    pub(super) const fn exit_code(self, passed: bool) -> i32 {
        match self {
            // `isa-debug-exit` ends QEMU with twice what is written there, and one.
            Machine::Svm => 2 * (if passed { 0x10 } else { 0x11 }) + 1,
            // Turning the machine off says nothing: the last line does.
            Machine::Arm64 => 0,
        }
    }
}
