//! The first process of the machine.

use std::arch::asm;
use std::convert::Infallible;
use std::ffi::{CStr, OsStr};
use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::process::{Command, Stdio};

use super::image::{ARGUMENTS, MODULES_DIRECTORY, PROGRAM, WORKING_DIRECTORY};
use super::{OTHER, verdict};
use crate::complain;
use crate::qemu::start::EXIT_PORT;

/// Makes a Linux of the bare kernel, with KVM; runs the program as its arguments say, and ends the machine with the exit code.
///
/// # Errors
/// The machine cannot be ended, as where this process is not the first one of a machine made for it.
pub fn init() -> Result<Infallible, io::Error> {
    if std::process::id() != 1 {
        return Err(io::Error::other("this is for the first process of a machine, which `hosttest nested` starts"));
    }
    end(run().unwrap_or_else(|error| {
        complain(&format_args!("the machine cannot be set up: {error}"));
        OTHER
    }))
}

fn run() -> io::Result<u8> {
    mount(c"/dev", c"devtmpfs")?;
    mount(c"/proc", c"proc")?;
    mount(c"/sys", c"sysfs")?;
    let mut modules = fs::read_dir(MODULES_DIRECTORY)?.collect::<Result<Vec<_>, _>>()?;
    modules.sort_by_key(fs::DirEntry::file_name);
    modules.iter().try_for_each(|module| load(&File::open(module.path())?))?;

    let arguments = fs::read(ARGUMENTS)?;
    let arguments =
        arguments.split_inclusive(|byte| *byte == 0).map(|argument| OsStr::from_bytes(&argument[..argument.len() - 1]));
    let directory = fs::read(WORKING_DIRECTORY)?;
    let status = Command::new(PROGRAM)
        .args(arguments)
        .current_dir(OsStr::from_bytes(&directory))
        .stdin(Stdio::null())
        .status()?;
    if status.code().is_none() {
        complain(&format_args!("the command ended by a {status}"));
    }
    Ok(verdict(status.code()))
}

fn mount(directory: &CStr, file_system: &CStr) -> io::Result<()> {
    // SAFETY: the strings end in a zero and outlive the call; the file system needs no data.
    let mounted =
        unsafe { libc::mount(c"none".as_ptr(), directory.as_ptr(), file_system.as_ptr(), 0, std::ptr::null()) };
    if mounted == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Loads a module of the kernel.
fn load(module: &File) -> io::Result<()> {
    // SAFETY: finit_module(2) takes a file, a string of parameters that ends in a zero, and flags.
    let loaded = unsafe { libc::syscall(libc::SYS_finit_module, module.as_raw_fd(), c"".as_ptr(), 0) };
    if loaded == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Ends the machine, when all that was printed is out.
fn end(verdict: u8) -> Result<Infallible, io::Error> {
    // SAFETY: both calls take numbers only.
    let may_write = unsafe {
        // What the console has not sent yet would be lost.
        libc::tcdrain(libc::STDOUT_FILENO);
        libc::ioperm(EXIT_PORT.into(), 4, 1)
    };
    if may_write != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the process may write to these ports, and the write touches no memory: it ends the machine.
    unsafe { asm!("out dx, eax", in("dx") EXIT_PORT, in("eax") u32::from(verdict), options(nomem, nostack)) };
    Err(io::Error::other("the machine goes on: it has no isa-debug-exit"))
}
