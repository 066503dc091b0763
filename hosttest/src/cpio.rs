//! An initramfs: a cpio archive, as Linux unpacks it into its first file system.

use std::collections::BTreeSet;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

// What a file is, and who may do what with it (inode(7)).
const DIRECTORY: usize = 0o040_755;
const REGULAR: usize = 0o100_644;
const EXECUTABLE: usize = 0o100_755;
const SYMBOLIC_LINK: usize = 0o120_777;

/// A cpio archive in the format "newc" (Linux, `Documentation/driver-api/early-userspace/buffer-format.rst`).
///
/// A path may be absolute or relative to the root, and has no `.` or `..`. The directories that it lies in are made before it.
///
/// ```
/// use std::path::Path;
/// use hosttest::cpio::Archive;
///
/// let mut archive = Archive::new();
/// archive.executable(Path::new("/init"), b"#!/bin/sh\n");
/// archive.link(Path::new("/bin/sh"), Path::new("busybox"));
/// let bytes = archive.finish();
/// assert!(bytes.starts_with(b"070701"));
/// assert_eq!(bytes.len() % 4, 0);
/// ```
#[derive(Debug, Default)]
pub struct Archive {
    bytes: Vec<u8>,
    /// Those that are in it.
    directories: BTreeSet<PathBuf>,
}

impl Archive {
    /// An archive of nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a directory, unless it is there.
    pub fn directory(&mut self, path: &Path) {
        let relative = path.strip_prefix("/").unwrap_or(path);
        // From the root to the directory itself.
        let mut missing: Vec<_> = relative.ancestors().filter(|directory| !directory.as_os_str().is_empty()).collect();
        missing.reverse();
        for directory in missing {
            if self.directories.insert(directory.to_path_buf()) {
                self.append(directory.as_os_str().as_bytes(), DIRECTORY, &[]);
            }
        }
    }

    /// Adds a file.
    pub fn file(&mut self, path: &Path, data: &[u8]) {
        self.entry(path, REGULAR, data);
    }

    /// Adds a program.
    pub fn executable(&mut self, path: &Path, data: &[u8]) {
        self.entry(path, EXECUTABLE, data);
    }

    /// Adds a symbolic link to `target`.
    pub fn link(&mut self, path: &Path, target: &Path) {
        self.entry(path, SYMBOLIC_LINK, target.as_os_str().as_bytes());
    }

    /// The whole archive.
    #[must_use]
    pub fn finish(mut self) -> Vec<u8> {
        self.append(b"TRAILER!!!", 0, &[]);
        self.bytes
    }

    fn entry(&mut self, path: &Path, mode: usize, data: &[u8]) {
        if let Some(parent) = path.parent() {
            self.directory(parent);
        }
        self.append(path.strip_prefix("/").unwrap_or(path).as_os_str().as_bytes(), mode, data);
    }

    fn append(&mut self, name: &[u8], mode: usize, data: &[u8]) {
        // Inode, mode, owner, group, links, time, size, four of device numbers, length of the name, checksum.
        let fields = [0, mode, 0, 0, 1, 0, data.len(), 0, 0, 0, 0, name.len() + 1, 0];
        self.bytes.extend_from_slice(b"070701");
        fields.iter().for_each(|field| self.bytes.extend_from_slice(format!("{field:08x}").as_bytes()));
        self.bytes.extend_from_slice(name);
        self.bytes.push(0);
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
        self.bytes.extend_from_slice(data);
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Name, mode and data of each entry, in order.
    fn entries(mut archive: &[u8]) -> Vec<(String, usize, Vec<u8>)> {
        let mut entries = Vec::new();
        while !archive.is_empty() {
            let (magic, header) = archive[..110].split_at(6);
            assert_eq!(magic, b"070701");
            let field = |number: usize| {
                let text = std::str::from_utf8(&header[number * 8..][..8]).unwrap();
                usize::from_str_radix(text, 16).unwrap()
            };
            let (mode, size, name) = (field(1), field(6), field(11));
            let data = (110 + name).next_multiple_of(4);
            assert_eq!(archive[110 + name - 1], 0, "a name ends in a zero");
            let text = String::from_utf8(archive[110..110 + name - 1].to_vec()).unwrap();
            entries.push((text, mode, archive[data..data + size].to_vec()));
            archive = &archive[(data + size).next_multiple_of(4)..];
        }
        entries
    }

    #[test]
    fn the_directories_of_a_path_come_once_and_before_it() {
        let mut archive = Archive::new();
        archive.file(Path::new("/a/b/one"), b"1");
        archive.executable(Path::new("a/two"), b"22222");
        archive.directory(Path::new("/a/b"));
        archive.directory(Path::new("/c"));
        let expected = [
            ("a", DIRECTORY, &b""[..]),
            ("a/b", DIRECTORY, b""),
            ("a/b/one", REGULAR, b"1"),
            ("a/two", EXECUTABLE, b"22222"),
            ("c", DIRECTORY, b""),
            ("TRAILER!!!", 0, b""),
        ];
        let expected = expected.map(|(name, mode, data)| (name.to_owned(), mode, data.to_vec()));
        assert_eq!(entries(&archive.finish()), expected);
    }

    #[test]
    fn a_link_holds_the_name_of_its_target() {
        let mut archive = Archive::new();
        archive.link(Path::new("sh"), Path::new("busybox"));
        let archive = entries(&archive.finish());
        assert_eq!(archive[0], ("sh".to_owned(), SYMBOLIC_LINK, b"busybox".to_vec()));
    }
}
