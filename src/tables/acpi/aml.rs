//! The byte code of definition blocks (ACPI 6.5, 20.2).

use super::super::writer::Writer;

const ZERO: u8 = 0x00;
const ONE: u8 = 0x01;
const NAME: u8 = 0x08;
const BYTE: u8 = 0x0a;
const WORD: u8 = 0x0b;
const DWORD: u8 = 0x0c;
const STRING: u8 = 0x0d;
const QWORD: u8 = 0x0e;
const SCOPE: u8 = 0x10;
const BUFFER: u8 = 0x11;
const PACKAGE: u8 = 0x12;
const DEVICE: [u8; 2] = [0x5b, 0x82];

/// The tag that ends a resource template, without a checksum (ACPI 6.5, 6.4.2.9).
const END_TAG: [u8; 2] = [0x79, 0];

/// A name of four letters, in the current scope.
pub(super) type Name = [u8; 4];

/// What `fill` writes, after its length. The length counts its own bytes.
fn with_length(w: &mut Writer<'_>, fill: impl FnOnce(&mut Writer<'_>)) {
    let start = w.position();
    fill(w);
    put_length(w, start);
}

/// Puts the length of what is from `start` on before it.
fn put_length(w: &mut Writer<'_>, start: usize) {
    let length = w.position().saturating_sub(start);
    // Four bits in the first byte if others follow, and then eight in each (ACPI 6.5, 20.2.4).
    let others = match length {
        0..=0x3e => 0,
        0x3f..=0xffd => 1,
        0xffe..=0xf_fffc => 2,
        _ => 3,
    };
    let length = length.saturating_add(1).saturating_add(others);
    let [low, first, second, third, ..] = if others == 0 {
        [length as u8, 0, 0, 0]
    } else {
        let [first, second, third, _] = ((length >> 4) as u32).to_le_bytes();
        [(length & 0xf) as u8 | (others as u8) << 6, first, second, third]
    };
    let bytes = [low, first, second, third];
    w.insert(start, bytes.get(..=others).unwrap_or_default());
}

/// What is below `_SB`, as seen from the root.
pub(super) fn system_bus(w: &mut Writer<'_>, fill: impl FnOnce(&mut Writer<'_>)) {
    w.byte(SCOPE);
    with_length(w, |w| {
        w.bytes(b"_SB_");
        fill(w);
    });
}

pub(super) fn device(w: &mut Writer<'_>, name: Name, fill: impl FnOnce(&mut Writer<'_>)) {
    w.bytes(&DEVICE);
    with_length(w, |w| {
        w.bytes(&name);
        fill(w);
    });
}

/// A name; its value is written next.
pub(super) fn name(w: &mut Writer<'_>, name: &Name) {
    w.byte(NAME);
    w.bytes(name);
}

pub(super) fn integer(w: &mut Writer<'_>, value: u64) {
    match value {
        0 => w.byte(ZERO),
        1 => w.byte(ONE),
        2..=0xff => w.bytes(&[BYTE, value as u8]),
        0x100..=0xffff => {
            w.byte(WORD);
            w.word(value as u16);
        }
        0x1_0000..=0xffff_ffff => {
            w.byte(DWORD);
            w.dword(value as u32);
        }
        _ => {
            w.byte(QWORD);
            w.qword(value);
        }
    }
}

/// A package whose elements `fill` writes.
pub(super) fn package(w: &mut Writer<'_>, elements: u8, fill: impl FnOnce(&mut Writer<'_>)) {
    w.byte(PACKAGE);
    with_length(w, |w| {
        w.byte(elements);
        fill(w);
    });
}

/// A hardware id: three letters and four hexadecimal digits as an EISA id (ACPI 6.5, 19.3.4), others as text.
pub(super) fn hardware_id(w: &mut Writer<'_>, id: &str) {
    if let Some(eisa) = eisa_id(id) {
        integer(w, u32::from_le_bytes(eisa).into());
    } else {
        w.byte(STRING);
        // A text ends with its first zero.
        id.bytes().filter(|byte| (0x01..0x80).contains(byte)).for_each(|byte| w.byte(byte));
        w.byte(0);
    }
}

/// Five bits for each letter and four for each digit, the most significant first.
fn eisa_id(id: &str) -> Option<[u8; 4]> {
    let [letters @ .., a, b, c, d] = <&[u8; 7]>::try_from(id.as_bytes()).ok()?;
    let mut bits = 0_u32;
    for letter in letters {
        bits = bits << 5 | u32::from(letter.checked_sub(b'@').filter(|_| letter.is_ascii_uppercase())?);
    }
    for digit in [a, b, c, d] {
        let is_lowercase = digit.is_ascii_lowercase();
        bits = bits << 4 | char::from(*digit).to_digit(16).filter(|_| !is_lowercase)?;
    }
    Some(bits.to_be_bytes())
}

/// A buffer with the resource descriptors that `fill` writes.
pub(super) fn resources(w: &mut Writer<'_>, fill: impl FnOnce(&mut Writer<'_>)) {
    w.byte(BUFFER);
    with_length(w, |w| {
        let start = w.position();
        fill(w);
        w.bytes(&END_TAG);
        // Sixteen ranges and as many lines have fewer than 1024 bytes.
        let [low, high, ..] = w.position().saturating_sub(start).to_le_bytes();
        if high == 0 {
            w.insert(start, &[BYTE, low]);
        } else {
            w.insert(start, &[WORD, low, high]);
        }
    });
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;

    #[test]
    fn eisa_ids_are_compressed() {
        // ACPI 6.5, 19.6.36 has PNP0C09 as an example, and 19.3.4 how it is compressed.
        assert_eq!(eisa_id("PNP0C09"), Some([0x41, 0xd0, 0x0c, 0x09]));
        assert_eq!(eisa_id("PNP0A03"), Some([0x41, 0xd0, 0x0a, 0x03]));
        for other in ["ACPI0007", "pNP0A03", "PNP0a03", "PNP0A0G", "PNP0A0", "", "PN\u{e9}0A0"] {
            assert_eq!(eisa_id(other), None, "{other}");
        }
    }

    #[test]
    fn lengths_take_as_few_bytes_as_they_can() {
        for (content, expected) in [
            (0, std::vec![1]),
            (0x3e, std::vec![0x3f]),
            (0x3f, std::vec![0x41, 0x04]),
            (0xffd, std::vec![0x4f, 0xff]),
            (0xffe, std::vec![0x81, 0x00, 0x01]),
            (0xf_fffc, std::vec![0x8f, 0xff, 0xff]),
            (0xf_fffd, std::vec![0xc1, 0x00, 0x00, 0x01]),
        ] {
            let mut buffer = std::vec![0xaa; content + 4];
            let mut writer = Writer::new(&mut buffer);
            with_length(&mut writer, |w| {
                for number in 0..content {
                    w.byte(number as u8);
                }
            });
            let length = writer.position();
            assert_eq!(length, content + expected.len());
            assert_eq!(buffer[..expected.len()], expected);
            assert!((0..content).all(|number| buffer[expected.len() + number] == number as u8), "{content:#x}");
        }
    }

    #[test]
    fn integers_take_as_few_bytes_as_they_can() {
        for (value, length) in
            [(0, 1), (1, 1), (2, 2), (0xff, 2), (0x100, 3), (0xffff, 3), (0x1_0000, 5), (0xffff_ffff, 5), (1 << 32, 9)]
        {
            let mut buffer = [0; 9];
            let mut writer = Writer::new(&mut buffer);
            integer(&mut writer, value);
            assert_eq!(writer.position(), length, "{value:#x}");
        }
    }
}
