//! Reading and writing of file descriptors that others may have open too: without changing their flags, and without waiting for
//! longer than is asked for.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

/// How much is written at once: no more than fits into what poll(2) says has room: of a pipe, `PIPE_BUF` bytes are free then.
const PIECE: usize = 512;

/// Waits until one of them can be read, and returns which; the first if several can.
pub(super) fn wait_to_read<const N: usize>(descriptors: [BorrowedFd<'_>; N]) -> io::Result<usize> {
    let mut polled = descriptors.map(|descriptor| interest(descriptor, libc::POLLIN));
    loop {
        poll(&mut polled, -1)?;
        if let Some(ready) = polled.iter().position(|polled| polled.revents != 0) {
            return Ok(ready);
        }
    }
}

/// Reads what there is; 0 at the end. `None` if there is nothing at the moment.
pub(super) fn read(descriptor: BorrowedFd<'_>, bytes: &mut [u8]) -> io::Result<Option<usize>> {
    // SAFETY: as many bytes can be written there.
    let count = unsafe { libc::read(descriptor.as_raw_fd(), bytes.as_mut_ptr().cast(), bytes.len()) };
    not_yet(count)
}

/// Writes as much as there is room for, but at most a piece. `None` if there was no room for that long.
pub(super) fn write(descriptor: BorrowedFd<'_>, bytes: &[u8], patience: Duration) -> io::Result<Option<usize>> {
    let mut polled = [interest(descriptor, libc::POLLOUT)];
    poll(&mut polled, i32::try_from(patience.as_millis()).unwrap_or(i32::MAX))?;
    if polled[0].revents == 0 {
        return Ok(None);
    }
    let piece = bytes.get(..PIECE).unwrap_or(bytes);
    // SAFETY: as many bytes can be read there.
    let count = unsafe { libc::write(descriptor.as_raw_fd(), piece.as_ptr().cast(), piece.len()) };
    not_yet(count)
}

fn interest(descriptor: BorrowedFd<'_>, events: libc::c_short) -> libc::pollfd {
    libc::pollfd { fd: descriptor.as_raw_fd(), events, revents: 0 }
}

/// A signal that interrupts it is as if the time was over.
fn poll(polled: &mut [libc::pollfd], milliseconds: libc::c_int) -> io::Result<()> {
    // SAFETY: the pointer and the length are those of a slice.
    let count = unsafe { libc::poll(polled.as_mut_ptr(), polled.len() as libc::nfds_t, milliseconds) };
    not_yet(count as isize).map(drop)
}

/// `None` where the call is to be made again later.
fn not_yet(count: isize) -> io::Result<Option<usize>> {
    if let Ok(count) = usize::try_from(count) {
        return Ok(Some(count));
    }
    let error = io::Error::last_os_error();
    match error.kind() {
        io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock => Ok(None),
        _ => Err(error),
    }
}
