//! What this program says on the standard error.

use std::fmt::Display;
use std::io::{self, Write};

/// Says what is wrong, if the standard error can be written.
pub fn complain(what: &dyn Display) {
    let _ = writeln!(io::stderr(), "hosttest: {what}");
}
