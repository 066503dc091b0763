//! The machines that the hypervisor has images for.

use std::path::Path;
use std::process::Command;

use clap::ValueEnum;

use crate::qemu::start;

/// A machine that the hypervisor has an image for, and what emulates it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, ValueEnum)]
pub enum Machine {
    /// A PC with AMD SVM, emulated by QEMU
    #[default]
    Svm,
}

impl Machine {
    /// All of them.
    pub const ALL: [Self; 1] = [Machine::Svm];

    /// Its name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Machine::Svm => "svm",
        }
    }

    /// The target that the image is built for.
    pub const fn target(self) -> &'static str {
        match self {
            Machine::Svm => "x86_64-unknown-none",
        }
    }

    /// The program that emulates it, and the package that has it on Debian.
    pub(super) const fn emulator(self) -> (&'static str, &'static str) {
        match self {
            Machine::Svm => (crate::qemu::PROGRAM, crate::qemu::PACKAGE),
        }
    }

    /// The emulator with this image, and with the hypervisor's console as its output.
    pub(super) fn command(self, image: &Path) -> Command {
        match self {
            Machine::Svm => {
                let mut qemu = start::machine("tcg", 512);
                qemu.arg("-kernel").arg(image);
                qemu
            }
        }
    }

    /// The exit code of the emulator when the hypervisor ends the machine with this verdict.
    pub(super) const fn exit_code(self, passed: bool) -> i32 {
        match self {
            // `isa-debug-exit` ends QEMU with twice what is written there, and one.
            Machine::Svm => 2 * (if passed { 0x10 } else { 0x11 }) + 1,
        }
    }
}
