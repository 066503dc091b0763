//! The program's own image as guest memory, so that a guest can be a plain function of this program.

use std::fs;
use std::io;

/// A part of this process's address space.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mapping {
    /// The address of the first byte.
    pub first: u64,
    /// The length in bytes.
    pub length: u64,
    /// Whether it is data that this process writes.
    pub writable: bool,
}

impl Mapping {
    fn end(&self) -> u64 {
        self.first + self.length
    }
}

/// The code and the data of the program and of the libraries it is linked with: what the compiled code of a function may
/// touch besides its stack. (The compiler calls the C library's `memcpy` as it sees fit.)
///
/// # Errors
/// `/proc/self/maps` cannot be read.
pub fn mappings() -> io::Result<Vec<Mapping>> {
    Ok(parse(&fs::read_to_string("/proc/self/maps")?))
}

/// Reads the format of proc(5): `first-end permissions offset device inode path`.
fn parse(maps: &str) -> Vec<Mapping> {
    let mut found: Vec<Mapping> = Vec::new();
    for line in maps.lines() {
        let mut fields = line.split_ascii_whitespace();
        let (Some(range), Some(permissions)) = (fields.next(), fields.next()) else { continue };
        let path = fields.nth(3);
        let Some((first, end)) = range.split_once('-') else { continue };
        let (Ok(first), Ok(end)) = (u64::from_str_radix(first, 16), u64::from_str_radix(end, 16)) else { continue };
        let mapping = Mapping { first, length: end - first, writable: permissions.contains('w') };
        // Zero-initialised data has no file behind it, and lies straight after the data that has.
        let zeroed = path.is_none() && mapping.writable && found.last().is_some_and(|last| last.end() == first);
        let of_file = path.is_some_and(|path| path.starts_with('/') && !path.starts_with("/dev/"));
        if permissions.starts_with('r') && (of_file || zeroed) {
            found.push(mapping);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_files_and_the_zeroed_data_after_them() {
        let maps = "\
            555555554000-555555556000 r--p 00000000 fe:00 11 /bin/program\n\
            555555556000-555555558000 r-xp 00002000 fe:00 11 /bin/program\n\
            555555558000-555555559000 rw-p 00004000 fe:00 11 /bin/program\n\
            555555559000-55555555a000 rw-p 00000000 00:00 0\n\
            55555555a000-55555557b000 rw-p 00000000 00:00 0 [heap]\n\
            7ffff7d00000-7ffff7d01000 rw-p 00000000 00:00 0\n\
            7ffff7d01000-7ffff7d02000 ---p 00004000 fe:00 12 /lib/library.so\n\
            7ffffffde000-7ffffffff000 rw-p 00000000 00:00 0 [stack]\n";
        let found: Vec<_> = parse(maps).iter().map(|m| (m.first, m.length, m.writable)).collect();
        assert_eq!(
            found,
            [
                (0x5555_5555_4000, 0x2000, false),
                (0x5555_5555_6000, 0x2000, false),
                (0x5555_5555_8000, 0x1000, true),
                (0x5555_5555_9000, 0x1000, true),
            ]
        );
    }

    #[test]
    fn finds_this_function() {
        let address = finds_this_function as fn() as usize as u64;
        assert!(mappings().unwrap().iter().any(|mapping| (mapping.first..mapping.end()).contains(&address)));
    }
}
