//! The heavy barrier of the asymmetric fence, by `membarrier(2)`.

use std::io;

use vm_device::HeavyBarrier;

/// This process cannot use `membarrier(2)` with `MEMBARRIER_CMD_PRIVATE_EXPEDITED`, which came with Linux 4.14.
#[derive(Debug)]
pub struct Unsupported(io::Error);

impl std::fmt::Display for Unsupported {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "the asymmetric fence needs membarrier(2) with MEMBARRIER_CMD_PRIVATE_EXPEDITED (Linux 4.14): {}",
            self.0
        )
    }
}

impl std::error::Error for Unsupported {}

/// Registers the process for expedited barriers, and returns one to give to
/// [`with_asymmetric_fence`](vm_device::DeviceManager::with_asymmetric_fence).
///
/// # Errors
/// [`Unsupported`] if the kernel does not have them, or does not let this process use them.
pub fn heavy_barrier() -> Result<HeavyBarrier, Unsupported> {
    command(libc::MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED).map_err(Unsupported)?;
    command(libc::MEMBARRIER_CMD_PRIVATE_EXPEDITED).map_err(Unsupported)?;
    // SAFETY: the process is registered, and a dispatch runs in one of its threads. When the command returns, each of them
    // has executed a full memory barrier since it was called, or was not running, in which case the scheduler has
    // executed one (membarrier(2)).
    Ok(unsafe { HeavyBarrier::new(execute) })
}

fn execute() {
    if let Err(error) = command(libc::MEMBARRIER_CMD_PRIVATE_EXPEDITED) {
        // It has worked before, and cannot fail after that. Going on would break the promise that a removal makes.
        crate::complaint::complain(&Unsupported(error));
        std::process::abort();
    }
}

fn command(command: libc::c_int) -> io::Result<()> {
    // SAFETY: the system call takes three integers and touches no memory of the process.
    match unsafe { libc::syscall(libc::SYS_membarrier, command, 0, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
