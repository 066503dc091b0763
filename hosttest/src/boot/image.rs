//! What a machine starts: firmware at the reset vector, or a kernel that is loaded beforehand.

use std::fs::File;
use std::io::{Cursor, Read};
use std::path::{Path, PathBuf};

use kvm_bindings::kvm_regs;
use linux_loader::loader::bzimage::BzImage;
use linux_loader::loader::elf::{Elf, PvhBootCapability};
use linux_loader::loader::{KernelLoader, KernelLoaderResult};
use vm_memory::{Bytes, GuestAddress as LoaderAddress, GuestMemoryMmap};

use crate::boot::error::BootError;
use crate::boot::parameters::{self, Parameters};
use crate::boot::ram::{FOUR_GIB, LOW_END, MIB, Ram};
use crate::vmm::memory::{Memory, PAGE};
use crate::vmm::paging::{LARGE_PAGE, PageTables};
use crate::vmm::vcpu::{FLAT_DESCRIPTORS, LongMode, Ring, Vcpu, descriptor_table};

/// The largest firmware image.
const FIRMWARE_LIMIT: u64 = 8 * MIB;
/// Where an ELF file says for which processor it is, and this one (System V ABI, chapter 4, `e_machine`).
const ELF_MACHINE: usize = 18;
const X86_64: u16 = 62;
/// The last 128 KiB of a firmware image are below 1 MiB as well.
const LOW_FIRMWARE: usize = 0x2_0000;

/// What a machine starts.
pub enum Image {
    /// Firmware.
    Firmware(Firmware),
    /// A kernel.
    Kernel(Kernel),
}

/// A firmware image.
pub struct Firmware {
    bytes: Vec<u8>,
}

/// A kernel with what it is given.
pub struct Kernel {
    file: PathBuf,
    bytes: Vec<u8>,
    initrd: Vec<u8>,
    command_line: String,
}

/// Where and how the first processor starts.
#[derive(Clone, Copy, Debug)]
pub enum Entry {
    /// As after power-on.
    Reset,
    /// In protected mode, without paging.
    Protected(kvm_regs),
    /// In 64-bit mode at the first address, with the second in RSI.
    Long(u64, u64),
}

impl Firmware {
    /// Reads an image.
    ///
    /// # Errors
    /// [`BootError::Unreadable`], [`BootError::FirmwareSize`].
    pub fn read(file: &Path) -> Result<Self, BootError> {
        let (bytes, size) = read(file, FIRMWARE_LIMIT)?;
        if !(16..=FIRMWARE_LIMIT).contains(&size) {
            return Err(BootError::FirmwareSize { file: file.into(), size, largest: FIRMWARE_LIMIT });
        }
        Ok(Self { bytes })
    }

    /// The image in whole pages, for the place below 4 GiB.
    ///
    /// # Errors
    /// What the host refuses.
    pub fn rom(&self) -> std::io::Result<Memory> {
        let rom = Memory::new((self.bytes.len() as u64).next_multiple_of(PAGE))?;
        rom.write(rom.length() - self.bytes.len() as u64, &self.bytes);
        Ok(rom)
    }

    /// Puts the copy below 1 MiB there.
    fn load(&self, ram: &Ram) -> Option<()> {
        let last = self.bytes.len().saturating_sub(LOW_FIRMWARE);
        let low = self.bytes.get(last..)?;
        ram.write(MIB - low.len() as u64, low)
    }
}

impl Kernel {
    /// Reads the kernel and its initial RAM disk.
    ///
    /// # Errors
    /// [`BootError::Unreadable`], [`BootError::NotAKernel`], [`BootError::Memory`].
    pub fn read(file: &Path, initrd: Option<&Path>, command_line: &str) -> Result<Self, BootError> {
        let (bytes, size) = read(file, LOW_END)?;
        if size > LOW_END {
            let why = format!("it has more than the {LOW_END} bytes that there can be below 4 GiB");
            return Err(BootError::NotAKernel(file.into(), why));
        }
        let initrd = match initrd {
            Some(file) => match read(file, LOW_END)? {
                (_, size) if size > LOW_END => {
                    return Err(BootError::InitrdSize { file: file.into(), largest: LOW_END });
                }
                (bytes, _) => bytes,
            },
            None => Vec::new(),
        };
        Ok(Self { file: file.into(), bytes, initrd, command_line: command_line.into() })
    }

    /// The same kernel with another initial RAM disk.
    #[must_use]
    pub fn with_initrd(mut self, initrd: Vec<u8>) -> Self {
        self.initrd = initrd;
        self
    }

    fn load(&self, ram: &Ram, root_pointer: Option<u64>) -> Result<Entry, BootError> {
        let (staged, loaded) = self.stage()?;
        let kernel_end = end(&loaded);
        let longest =
            loaded.setup_header.map_or(parameters::COMMAND_LINE_SIZE - 1, |header| match header.cmdline_size {
                // Boot protocols before 2.06 do not say.
                0 => 255,
                size => (size as usize).min(parameters::COMMAND_LINE_SIZE - 1),
            });
        if self.command_line.len() > longest {
            return Err(BootError::CommandLine { length: self.command_line.len(), longest });
        }
        let room = self.initrd.len().next_multiple_of(PAGE as usize) as u64;
        let too_small = BootError::Memory { has: ram.size(), needs: kernel_end + room };
        if kernel_end + room > ram.low_end() {
            return Err(too_small);
        }
        copy(&staged, &loaded, ram).ok_or_else(|| self.malformed("it reaches into places without RAM"))?;

        // As high as the kernel allows.
        let highest = loaded.setup_header.map_or(u64::MAX, |header| match header.initrd_addr_max {
            0 => 0x37ff_ffff,
            last => last.into(),
        });
        let initrd = ram.low_end().min(highest.saturating_add(1)).saturating_sub(room) / PAGE * PAGE;
        if initrd < kernel_end {
            return Err(too_small);
        }
        let parameters = Parameters {
            command_line: &self.command_line,
            initrd: (initrd, self.initrd.len() as u32),
            root_pointer,
            low_end: ram.low_end(),
            high_size: ram.size() - ram.low_end(),
        };
        let written = ram.write(initrd, &self.initrd).and_then(|()| match (loaded.setup_header, loaded.pvh_boot_cap) {
            (None, PvhBootCapability::PvhEntryPresent(entry)) => {
                write_descriptors(ram, &FLAT_DESCRIPTORS)?;
                let rbx = parameters.write_pvh(ram)?;
                Some(Entry::Protected(kvm_regs { rip: entry.0, rbx, ..Default::default() }))
            }
            (Some(header), _) => {
                write_descriptors(ram, &FLAT_DESCRIPTORS)?;
                let rsi = parameters.write_linux(ram, header)?;
                Some(Entry::Protected(kvm_regs { rip: loaded.kernel_load.0, rsi, ..Default::default() }))
            }
            (None, _) => {
                write_descriptors(ram, &descriptor_table(vm_device::GuestAddress(TASK_STATE), TASK_STATE_LIMIT))?;
                let mut tables = PageTables::new(ram.first(), PAGE_TABLES, PAGE_TABLES_END);
                tables.map(0, 0, FOUR_GIB, LARGE_PAGE, true);
                Some(Entry::Long(loaded.kernel_load.0, parameters.write_linux(ram, Default::default())?))
            }
        });
        written.ok_or(BootError::Memory { has: ram.size(), needs: 2 * MIB })
    }

    /// Loads the kernel into memory of its own.
    fn stage(&self) -> Result<(GuestMemoryMmap, KernelLoaderResult), BootError> {
        // Pages that nothing is loaded to take no memory of the host.
        let staged = GuestMemoryMmap::from_ranges(&[(LoaderAddress(0), LOW_END as usize)])
            .map_err(|error| BootError::Machine(std::io::Error::other(error.to_string())))?;
        let mut bytes = Cursor::new(&self.bytes);
        let start = Some(LoaderAddress(MIB));
        let loaded = match self.bytes.get(..4) {
            Some(b"\x7fELF") if self.half(ELF_MACHINE).is_some_and(|machine| machine != X86_64) => {
                return Err(self.malformed("it is an ELF file, and not for this processor"));
            }
            Some(b"\x7fELF") => Elf::load(&staged, None, &mut bytes, start),
            Some(_) if self.bytes.get(0x202..0x206) == Some(b"HdrS") => {
                self.check_whole()?;
                BzImage::load(&staged, None, &mut bytes, start)
            }
            _ if self.bytes.is_empty() => return Err(self.malformed("it is empty")),
            _ => return Err(self.malformed("it is neither a bzImage nor an ELF file")),
        };
        let loaded = loaded.map_err(|error| self.malformed(&error.to_string()))?;
        if loaded.kernel_end == 0 {
            return Err(self.malformed("nothing of it is to be loaded"));
        }
        Ok((staged, loaded))
    }

    /// Whether a bzImage has all that its header tells of: the sectors of the setup code, and the rest in units of 16 bytes (boot
    /// protocol 2.04, `setup_sects` and `syssize`).
    fn check_whole(&self) -> Result<(), BootError> {
        if self.half(0x206) < Some(0x0204) {
            return Ok(());
        }
        let sectors = match self.bytes.get(0x1f1) {
            Some(0) | None => 4,
            Some(sectors) => u64::from(*sectors),
        };
        let rest = self.bytes.get(0x1f4..).and_then(|bytes| bytes.first_chunk());
        let told = (sectors + 1) * 512 + u64::from(rest.map_or(0, |size| u32::from_le_bytes(*size))) * 16;
        let size = self.bytes.len() as u64;
        // The last unit need not be whole.
        if size.next_multiple_of(16) < told {
            return Err(self.malformed(&format!(
                "it is cut off: its header tells of {told} bytes or a few less, and it has {size}"
            )));
        }
        Ok(())
    }

    fn half(&self, offset: usize) -> Option<u16> {
        Some(u16::from_le_bytes(*self.bytes.get(offset..)?.first_chunk()?))
    }

    fn malformed(&self, why: &str) -> BootError {
        BootError::NotAKernel(self.file.clone(), why.into())
    }
}

/// The first address after what the kernel needs before it knows how much memory there is.
fn end(loaded: &KernelLoaderResult) -> u64 {
    // A kernel that is moved to where it prefers to lie takes its memory there (boot protocol 2.10).
    let moved = loaded.setup_header.filter(|header| header.version >= 0x020a);
    let moved = moved.map_or(0, |header| header.pref_address + u64::from(header.init_size));
    loaded.kernel_end.max(moved)
}

/// Copies what was loaded into the RAM, page by page.
fn copy(staged: &GuestMemoryMmap, loaded: &KernelLoaderResult, ram: &Ram) -> Option<()> {
    let mut page = [0; PAGE as usize];
    for address in (MIB..loaded.kernel_end).step_by(PAGE as usize) {
        staged.read_slice(&mut page, LoaderAddress(address)).ok()?;
        ram.write(address, &page)?;
    }
    Some(())
}

/// Where the tables lie that a kernel starts with.
const DESCRIPTORS: u64 = 0x1000;
const TASK_STATE: u64 = 0x2000;
const TASK_STATE_LIMIT: u16 = 0x67;
const PAGE_TABLES: u64 = 0x3_0000;
const PAGE_TABLES_END: u64 = 0x4_0000;
const STACK: u64 = 0x8000;

fn write_descriptors(ram: &Ram, descriptors: &[u64]) -> Option<()> {
    let bytes: Vec<u8> = descriptors.iter().flat_map(|descriptor| descriptor.to_le_bytes()).collect();
    ram.write(DESCRIPTORS, &bytes)
}

/// Reads a file, and no more than that of one that is larger than `limit`. Returns how large it is as well, as far as that is known.
fn read(file: &Path, limit: u64) -> Result<(Vec<u8>, u64), BootError> {
    let read = || {
        let mut bytes = Vec::new();
        let mut opened = File::open(file)?;
        let size = opened.metadata()?.len();
        if size <= limit {
            opened.by_ref().take(limit + 1).read_to_end(&mut bytes)?;
        }
        let size = size.max(bytes.len() as u64);
        Ok((bytes, size))
    };
    read().map_err(|error| BootError::Unreadable(file.into(), error))
}

impl Image {
    /// Puts all of it into the RAM. `root_pointer` is the address of ACPI's RSDP, if there are tables.
    ///
    /// # Errors
    /// What is wrong with the images, or how much memory they take.
    pub fn load(&self, ram: &Ram, root_pointer: Option<u64>) -> Result<Entry, BootError> {
        match self {
            Image::Firmware(firmware) => {
                firmware.load(ram).ok_or(BootError::Memory { has: ram.size(), needs: 2 * MIB })?;
                Ok(Entry::Reset)
            }
            Image::Kernel(kernel) => kernel.load(ram, root_pointer),
        }
    }
}

impl Entry {
    /// Lets a processor that has the state after power-on start here.
    ///
    /// # Errors
    /// What KVM refuses.
    pub fn start(self, vcpu: &mut Vcpu) -> Result<(), kvm_ioctls::Error> {
        let gdt = vm_device::GuestAddress(DESCRIPTORS);
        match self {
            Entry::Reset => Ok(()),
            Entry::Protected(registers) => vcpu.start_protected_mode(gdt, registers),
            Entry::Long(entry, rsi) => {
                let tables = LongMode {
                    page_tables: vm_device::GuestAddress(PAGE_TABLES),
                    gdt,
                    idt: vm_device::GuestAddress(0),
                    tss: vm_device::GuestAddress(TASK_STATE),
                    tss_limit: TASK_STATE_LIMIT,
                };
                vcpu.start_long_mode(tables, Ring::Kernel, entry, STACK, 0)?;
                let registers = vcpu.fd().get_regs()?;
                vcpu.fd().set_regs(&kvm_regs { rsi, ..registers })
            }
        }
    }
}
