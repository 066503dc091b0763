//! The keys that are not the guest's: those after Ctrl-A.

/// Ctrl-A, by which a key is told from the guest's.
const PREFIX: u8 = 0x01;

/// What a byte from the keyboard means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Key {
    /// It is the guest's.
    Send(u8),
    /// The next one says what is meant.
    Prefix,
    /// The user leaves.
    Leave,
    /// The user asks for help.
    Help,
    /// It means nothing.
    Unknown(u8),
}

/// Takes the keys apart.
#[derive(Default)]
pub(super) struct Keys {
    prefixed: bool,
}

impl Keys {
    pub(super) fn feed(&mut self, byte: u8) -> Key {
        if !std::mem::take(&mut self.prefixed) {
            self.prefixed = byte == PREFIX;
            return if self.prefixed { Key::Prefix } else { Key::Send(byte) };
        }
        match byte {
            PREFIX => Key::Send(PREFIX),
            b'x' => Key::Leave,
            b'h' => Key::Help,
            byte => Key::Unknown(byte),
        }
    }
}

/// What is printed for help.
pub(super) const HELP: &str = "\n\
    hosttest: Ctrl-A x       leaves\n\
    hosttest: Ctrl-A h       shows this help\n\
    hosttest: Ctrl-A Ctrl-A  sends Ctrl-A to the guest\n";

/// What is printed for a key that means nothing.
pub(super) fn unknown(byte: u8) -> String {
    // A control character is shown as the letter that it is typed with.
    let name = match byte {
        0x01..=0x1a => format!("Ctrl-{}", char::from(byte | 0x40)),
        _ => byte.escape_ascii().to_string(),
    };
    format!("\nhosttest: Ctrl-A {name} is unknown; Ctrl-A h helps\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_after_ctrl_a_is_not_the_guests() {
        let mut keys = Keys::default();
        let meant = b"x\x01xh\x01h\x01\x01h\x01bx".map(|byte| keys.feed(byte));
        let send = Key::Send;
        assert_eq!(
            meant,
            [
                send(b'x'),
                Key::Prefix,
                Key::Leave,
                send(b'h'),
                Key::Prefix,
                Key::Help,
                Key::Prefix,
                send(1),
                send(b'h'),
                Key::Prefix,
                Key::Unknown(b'b'),
                send(b'x')
            ]
        );
    }

    #[test]
    fn unknown_keys_are_named() {
        for (byte, name) in
            [(b'b', "Ctrl-A b "), (3, "Ctrl-A Ctrl-C "), (0x1b, "Ctrl-A \\x1b "), (0xff, "Ctrl-A \\xff ")]
        {
            assert!(unknown(byte).contains(name), "{}", unknown(byte));
        }
    }
}
