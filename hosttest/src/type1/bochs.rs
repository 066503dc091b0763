//! Bochs: the disk that it boots from, and what it is told.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use crate::elf;
use crate::qemu::Error;

/// The program, and the packages that have it and its firmware on Debian.
pub(super) const PROGRAM: &str = "bochs";
pub(super) const PACKAGE: &str = "bochs bochsbios vgabios";

/// How Bochs ends when it is told to by what runs in it.
pub(super) const EXIT_CODE: i32 = 1;

/// Where the firmware loads the boot sector. The sectors that follow lie behind it in memory as on the disk, up to the end of what
/// it loads (`image.ld` of VMX).
const FIRST: u64 = 0x7c00;
const END: u64 = 0x9f000;
const SECTOR: usize = 512;
/// The disk: 16 heads of 63 sectors, and enough cylinders for all that is loaded.
const CYLINDERS: usize = 2;
const DISK: usize = CYLINDERS * 16 * 63 * SECTOR;

/// Bochs with this image on its disk, and with the hypervisor's console as its output. The hypervisor gets the command line and
/// these files, each at its address in the machine's memory. What Bochs reads is written to `folder`.
///
/// # Errors
/// [`Error::Io`] or [`Error::TooLarge`].
pub(super) fn command(
    image: &Path,
    command_line: &str,
    files: &[(&Path, u64)],
    folder: &Path,
) -> Result<Command, Error> {
    let read = |file: &Path| std::fs::read(file).map_err(|error| Error::Io(file.display().to_string(), error));
    let files = files.iter().map(|(file, address)| Ok((read(file)?, *address))).collect::<Result<Vec<_>, Error>>()?;
    let disk = disk(&read(image)?, command_line, &files).ok_or(Error::TooLarge(END - FIRST))?;
    let write = |name, contents: &[u8]| {
        let file = folder.join(name);
        match std::fs::write(&file, contents) {
            Ok(()) => Ok(file),
            Err(error) => Err(Error::Io(file.display().to_string(), error)),
        }
    };
    let disk = write("disk", &disk)?;
    let settings = write("settings", settings(&disk).as_bytes())?;
    // It has a debugger, which is to let it run.
    let debugger = write("debugger", b"c\n")?;
    let mut bochs = Command::new("sh");
    // The debugger speaks on the standard output: the hypervisor's console is another file, and what that one was.
    bochs
        .args(["-c", "exec 3>&1 >/dev/null; exec \"$0\" \"$@\"", PROGRAM, "-q", "-f"])
        .arg(settings)
        .arg("-rc")
        .arg(debugger);
    Ok(bochs)
}

/// The disk: the image from its first sector on, then a sector of the command line, one of the table of files (`boot.rs` of VMX),
/// and the files. `None` if that does not fit what is loaded of the disk.
fn disk(image: &[u8], command_line: &str, files: &[(Vec<u8>, u64)]) -> Option<Vec<u8>> {
    let mut disk = Vec::new();
    for (address, bytes) in elf::loaded(image) {
        let start = usize::try_from(address.checked_sub(FIRST)?).ok()?;
        disk.resize(disk.len().max(start + bytes.len()), 0);
        disk[start..start + bytes.len()].copy_from_slice(bytes);
    }
    let mut append = |bytes: &[u8]| {
        let start = disk.len().next_multiple_of(SECTOR);
        disk.resize(start, 0);
        disk.extend(bytes);
        start
    };
    let (mut text, mut table) = ([0; SECTOR], [0; SECTOR]);
    text[..SECTOR - 1].get_mut(..command_line.len())?.copy_from_slice(command_line.as_bytes());
    append(&text);
    let place = append(&table);
    for ((file, address), entry) in files.iter().zip(table.chunks_exact_mut(12)) {
        let from = FIRST + append(file) as u64;
        for (word, value) in entry.chunks_exact_mut(4).zip([from, *address, file.len() as u64]) {
            word.copy_from_slice(&u32::try_from(value).ok()?.to_le_bytes());
        }
    }
    disk[place..place + SECTOR].copy_from_slice(&table);
    let fits = FIRST + disk.len() as u64 <= END;
    disk.resize(DISK.max(disk.len()), 0);
    fits.then_some(disk)
}

/// A machine with VMX, without a display, that speaks only of what makes it end.
fn settings(disk: &Path) -> String {
    let mut text = String::from(
        "display_library: rfb, options=\"timeout=0\"\n\
         config_interface: textconfig\n\
         cpu: model=corei7_skylake_x, count=1, ips=50000000, reset_on_triple_fault=0\n\
         memory: guest=512, host=512\n\
         romimage: file=/usr/share/bochs/BIOS-bochs-latest, options=fastboot\n\
         vgaromimage: file=/usr/share/vgabios/vgabios.bin\n\
         boot: disk\n\
         clock: sync=none\n\
         com1: enabled=1, mode=file, dev=/dev/fd/3\n\
         speaker: enabled=0\n\
         sound: waveoutdrv=dummy\n\
         log: /dev/stderr\n\
         panic: action=fatal\n\
         error: action=ignore\n\
         info: action=ignore\n\
         debug: action=ignore\n\
         ata0: enabled=1, ioaddr1=0x1f0, ioaddr2=0x3f0, irq=14\n",
    );
    let _ = writeln!(
        text,
        "ata0-master: type=disk, path=\"{}\", mode=flat, cylinders={CYLINDERS}, heads=16, spt=63",
        disk.display()
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An image of one segment.
    fn image(bytes: &[u8]) -> Vec<u8> {
        let mut elf = vec![0; 64];
        elf[..6].copy_from_slice(b"\x7fELF\x02\x01");
        (elf[32], elf[54], elf[56]) = (64, 56, 1);
        elf.extend([1, 120, 0, FIRST, bytes.len() as u64, 0, 1].map(u64::to_le_bytes).concat());
        elf.extend(bytes);
        elf
    }

    #[test]
    fn the_files_lie_behind_the_image_and_a_table_tells_where() {
        let files = [(b"kernel".to_vec(), 0x500_0000), (b"disk".to_vec(), 0x1400_0000)];
        let disk = disk(&image(&[0x55; 700]), "linux 4 quiet", &files).unwrap();
        assert_eq!(disk.len(), DISK);
        assert_eq!(disk[..700], [0x55; 700]);
        assert_eq!(&disk[1024..1038], b"linux 4 quiet\0");
        let word = |at: usize| u32::from_le_bytes(disk[at..at + 4].try_into().unwrap());
        let table: Vec<_> = (1536..1572).step_by(4).map(word).collect();
        assert_eq!(table, [0x7c00 + 2048, 0x500_0000, 6, 0x7c00 + 2560, 0x1400_0000, 4, 0, 0, 0]);
        assert_eq!((&disk[2048..2054], &disk[2560..2564]), (&b"kernel"[..], &b"disk"[..]));
    }

    #[test]
    fn what_is_not_loaded_is_refused() {
        let room = (END - FIRST) as usize - 3 * SECTOR;
        assert!(disk(&image(&[0; SECTOR]), "", &[(vec![0; room], 0)]).is_some());
        assert!(disk(&image(&[0; SECTOR]), "", &[(vec![0; room + 1], 0)]).is_none());
        assert!(disk(&image(&[]), &" ".repeat(SECTOR - 1), &[]).is_some());
        assert!(disk(&image(&[]), &" ".repeat(SECTOR), &[]).is_none());
    }
}
