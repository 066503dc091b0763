//! The small guest: what its machines have in common, and the verdict over it.
//!
//! It is a program in the processor's own language, which checks that every kind of access does to its registers and to memory
//! what it does on hardware. Before each check it writes the number of the check to [`POST`], as firmware writes its POST codes;
//! where a check fails it halts. So the last code tells how far it came, and [`DONE`] that every check held.

use spin::Mutex;
use vm_device::IrqLine;
use vm_device::devices::post::PostPort;

use crate::counts::COUNTS;
use crate::devices::{Bell, Eject, FRAME_BUFFER, Scratch, Silent, frame_is_filled};
use crate::failure::Failure;
use crate::manager::MANAGER;
use crate::memory::GuestMemory;
use crate::processor::guest::TEXT;
use crate::wire::Wire;

/// The bus that all devices of the small guest are on.
pub static BUS: Silent = Silent("bus");
/// The number of the check that the guest makes.
pub static POST: PostPort = PostPort::new();
/// The line of its emulated serial port.
pub static WIRE: Wire = Wire::new();
pub static BELL: Bell<'static> = Bell(Mutex::new(IrqLine::DISCONNECTED));
pub static SCRATCH: Scratch = Scratch(Mutex::new([0; 4096]));
pub static EJECT: Eject = Eject { paths: ["/bus/scratch", "/bus/frame buffer"] };

/// The code that the guest writes at its end.
pub const DONE: u8 = 0xff;

/// Puts the guest into its memory. `None` if it does not fit.
pub fn write_image(memory: GuestMemory, address: u64) -> Option<()> {
    unsafe extern "C" {
        static guest_image: u8;
        static guest_image_end: u8;
    }
    let first = &raw const guest_image;
    let length = &raw const guest_image_end as usize - first as usize;
    // SAFETY: the linker script puts both symbols around the guest's section, which is loaded there and never written.
    memory.write(address, unsafe { core::slice::from_raw_parts(first, length) })
}

/// Judges what the guest did.
///
/// # Errors
/// The first thing that was not as it should be.
pub fn judge() -> Result<(), Failure> {
    let post = POST.last_code();
    if post != DONE {
        return Err(Failure::Check(post));
    }
    let held = |condition: bool, what| if condition { Ok(()) } else { Err(Failure::Told(what)) };
    held(WIRE.transcript().as_bytes() == TEXT.as_bytes(), "the UART did not send what the guest wrote")?;
    held(frame_is_filled(), "the frame buffer is not what the guest drew")?;
    held(EJECT.paths.iter().all(|path| MANAGER.find_by_path(path).is_err()), "a removed device is still there")?;
    held(COUNTS.of(FRAME_BUFFER.0) == 0, "an access to the frame buffer exited")
}
