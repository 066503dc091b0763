//! The other end of a serial line, as a device sees it: bytes are moved without waiting.

use embedded_io::{Read, ReadReady, Write, WriteReady};

/// Sends what the line takes of `bytes` in one call, and returns how many that are: 0 while it takes none. An error of the line
/// loses all of them, as a line does that nobody listens to.
pub(super) fn send(line: &mut (impl Write + WriteReady), bytes: &[u8]) -> usize {
    if bytes.is_empty() {
        return 0;
    }
    match line.write_ready() {
        Ok(false) => 0,
        Ok(true) => line.write(bytes).unwrap_or(bytes.len()),
        Err(_) => bytes.len(),
    }
}

/// Receives in one call what there is, `room` bytes at most: none if the line has none or gives an error.
pub(super) fn receive<'b>(line: &mut (impl Read + ReadReady), buffer: &'b mut [u8], room: usize) -> &'b [u8] {
    let room = buffer.get_mut(..room).unwrap_or_default();
    let count = match room.is_empty() {
        false if matches!(line.read_ready(), Ok(true)) => line.read(room).unwrap_or(0),
        _ => 0,
    };
    room.get(..count).unwrap_or_default()
}
