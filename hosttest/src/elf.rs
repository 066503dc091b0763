//! What is needed of ELF files of 64 bits, little-endian (System V ABI, chapters 4 and 5).

/// The kind of a segment that is loaded.
const LOAD: u32 = 1;
/// The kind of a segment that names the loader of a program's libraries.
const INTERPRETER: u32 = 3;

/// A segment: its kind, where its bytes begin and end in the file, and at which physical address they belong.
struct Segment {
    kind: u32,
    start: u64,
    end: u64,
    address: u64,
}

/// The segments of a program, if the file is one.
fn segments(elf: &[u8]) -> Option<Vec<Segment>> {
    if !elf.starts_with(b"\x7fELF\x02\x01") {
        return None;
    }
    let table = usize::try_from(word(elf, 32)?).ok()?;
    let (size, count) = (usize::from(half(elf, 54)?), usize::from(half(elf, 56)?));
    let segment = |number| {
        let header = elf.get(table.checked_add(number * size)?..)?;
        let kind = u32::from_le_bytes(*header.first_chunk()?);
        let start = word(header, 8)?;
        Some(Segment { kind, start, end: start.checked_add(word(header, 32)?)?, address: word(header, 24)? })
    };
    (0..count).map(segment).collect()
}

fn word(bytes: &[u8], offset: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(offset..)?.first_chunk()?))
}

fn half(bytes: &[u8], offset: usize) -> Option<u16> {
    Some(u16::from_le_bytes(*bytes.get(offset..)?.first_chunk()?))
}

/// Whether a file is a program that needs no libraries.
pub(crate) fn is_static(elf: &[u8]) -> bool {
    segments(elf).is_some_and(|segments| segments.iter().all(|segment| segment.kind != INTERPRETER))
}

/// What a program has to hold to be run: all up to the end of its last segment. What follows, such as the names of functions and
/// the lines of the source, is most of it.
pub(crate) fn loaded_part(elf: &[u8]) -> &[u8] {
    let end = segments(elf).and_then(|segments| segments.iter().map(|segment| segment.end).max());
    end.and_then(|end| elf.get(..usize::try_from(end).ok()?)).unwrap_or(elf)
}

/// The bytes that are loaded of a program, each run with its physical address. Memory that is empty at first has none.
pub(crate) fn loaded(elf: &[u8]) -> Vec<(u64, &[u8])> {
    let segments = segments(elf).unwrap_or_default().into_iter().filter(|segment| segment.kind == LOAD);
    let bytes = |from: u64, to: u64| elf.get(usize::try_from(from).ok()?..usize::try_from(to).ok()?);
    let loaded = segments.filter_map(|segment| Some((segment.address, bytes(segment.start, segment.end)?)));
    loaded.filter(|(_, bytes)| !bytes.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn this_program() -> Vec<u8> {
        std::fs::read("/proc/self/exe").unwrap()
    }

    #[test]
    fn the_loaded_part_of_a_program_is_a_program_and_no_more() {
        let elf = this_program();
        let loaded = loaded_part(&elf);
        assert!(loaded.len() < elf.len(), "a test has names of functions");
        assert!(loaded.starts_with(b"\x7fELF"));
        assert_eq!(loaded_part(loaded), loaded);
        for broken in [&b""[..], b"\x7fELF", b"\x7fELF\x02\x01", &[0xff; 64], &elf[..100]] {
            assert_eq!(loaded_part(broken), broken);
        }
    }

    #[test]
    fn a_program_is_static_unless_it_names_a_loader() {
        assert_eq!(is_static(&this_program()), cfg!(target_feature = "crt-static"));
        for other in [&b""[..], b"#!/bin/sh\n", b"\x7fELF\x02\x01"] {
            assert!(!is_static(other));
        }
        // A header of 64 bytes that tells of no segment.
        let mut bare = vec![0; 64];
        bare[..6].copy_from_slice(b"\x7fELF\x02\x01");
        assert!(is_static(&bare));
    }

    #[test]
    fn what_is_loaded_of_a_program_has_its_addresses() {
        // A header of 64 bytes, a note and two segments of four bytes.
        let mut elf = vec![0; 64];
        elf[..6].copy_from_slice(b"\x7fELF\x02\x01");
        (elf[32], elf[54], elf[56]) = (64, 56, 3);
        for (kind, start, address) in [(4u32, 0u64, 0u64), (LOAD, 1, 0x7c00), (LOAD, 6, 0x8000)] {
            elf.extend(u64::from(kind).to_le_bytes());
            elf.extend([start, !0, address, 3, 4, 1].map(u64::to_le_bytes).concat());
        }
        assert_eq!(loaded(&elf), [(0x7c00, &b"ELF"[..]), (0x8000, &[0; 3])]);
        assert_eq!(loaded(b""), []);
    }
}
