//! Text on the machine's own serial port.

use core::fmt;

use crate::processor::host;

/// The machine's own serial port, as a sink of text.
pub struct Console;

impl fmt::Write for Console {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        text.bytes().for_each(host::send);
        Ok(())
    }
}

/// Prints a line on the machine's serial port.
#[macro_export]
macro_rules! println {
    ($($argument:tt)*) => {{
        use core::fmt::Write;
        // The console never fails.
        let _ = writeln!($crate::console::Console, $($argument)*);
    }};
}
