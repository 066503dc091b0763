//! A text that is waited for in a stream of bytes.

/// Finds a text in bytes that come in pieces, wherever these end.
///
/// ```
/// use hosttest::boot::terminal::Expect;
///
/// let mut login = Expect::new("login: ");
/// assert!(!login.feed(b"debian log"));
/// assert!(login.feed(b"in: "));
/// assert!(login.feed(b"root"), "it has come, and stays so");
/// ```
pub struct Expect {
    text: Vec<u8>,
    /// The last bytes, as many as can be the beginning of the text.
    tail: Vec<u8>,
    has_come: bool,
}

impl Expect {
    /// Waits for `text`. An empty one has come when anything was looked at.
    pub fn new(text: impl Into<Vec<u8>>) -> Self {
        Self { text: text.into(), tail: Vec::new(), has_come: false }
    }

    /// Takes the next bytes. Returns whether the text stands in all bytes so far.
    pub fn feed(&mut self, bytes: &[u8]) -> bool {
        if !self.has_come {
            self.tail.extend_from_slice(bytes);
            let length = self.text.len();
            self.has_come = length == 0 || self.tail.windows(length).any(|window| window == self.text);
            let done = (self.tail.len() + 1).saturating_sub(length.max(1));
            self.tail.drain(..done);
        }
        self.has_come
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_found_wherever_the_pieces_end() {
        let stream = b"aab aabaaab aabaabaac";
        for text in ["aabaabaac", "a", "aabaaab aab", "aab aabaaab aabaabaac"] {
            for length in 1..=stream.len() {
                let mut expect = Expect::new(text);
                let mut found = stream.chunks(length).map(|piece| expect.feed(piece));
                assert!(found.any(|found| found), "{text} in pieces of {length}");
            }
        }
    }

    #[test]
    fn a_text_that_is_not_there_is_not_found_and_no_more_is_kept_than_its_beginning() {
        let mut expect = Expect::new("abcd");
        for _ in 0..100 {
            assert!(!expect.feed(b"abcabd"));
            assert!(expect.tail.len() < 4);
        }
    }

    #[test]
    fn an_empty_text_is_there_at_once() {
        assert!(Expect::new("").feed(b""));
    }
}
