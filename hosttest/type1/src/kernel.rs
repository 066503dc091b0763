//! An unmodified Linux kernel as the guest, where it is an Image and learns from a device tree what its machine is: what that is on
//! each such processor (Linux, Documentation/arch/arm64/booting.rst and Documentation/arch/riscv/boot.rst).

use spin::Mutex;
use vm_device::IoRange;
use vm_device::tables::fdt::{self, Config};

use crate::manager::MANAGER;
use crate::memory::{GuestMemory, Page};

/// A kernel, as it lies in the guest's memory.
pub struct Kernel {
    /// Where QEMU has put its file: a guest physical address.
    pub address: u64,
    /// What stands at byte 56 of an Image for this processor.
    pub magic: [u8; 4],
    /// Where QEMU has put the file of the initial RAM disk.
    pub initrd: u64,
    /// Where its device tree is to be, behind the initial RAM disk.
    pub tree: u64,
    /// What it is told besides what the user says.
    pub arguments: &'static str,
}

/// The tree, before it is in the guest's memory, and the kernel's command line.
static BUFFER: Mutex<Page<16384>> = Mutex::new(Page([0; 16384]));
static COMMAND_LINE: Mutex<[u8; 2048]> = Mutex::new([0; 2048]);

impl Kernel {
    /// Puts the device tree into the guest's memory: what is registered, and what `config` has besides.
    ///
    /// The image's command line is `linux`, the size of the initial RAM disk, and the kernel's own command line.
    ///
    /// # Errors
    /// The command line is not so, or the kernel is none.
    pub fn prepare(&self, memory: GuestMemory, command_line: &str, config: Config<'_>) -> Result<(), &'static str> {
        let words = command_line.strip_prefix("linux ").and_then(|words| words.split_once(' '));
        let (initrd_size, arguments) = words.ok_or("the command line is not `linux SIZE ...`")?;
        let initrd_size: u64 = initrd_size.parse().map_err(|_| "the size of the initial RAM disk is no number")?;
        if initrd_size == 0 || initrd_size > self.tree - self.initrd {
            return Err("the initial RAM disk does not fit the guest's memory");
        }
        let mut magic = [0; 4];
        memory.read(self.address + 56, &mut magic).ok_or("no memory at the kernel")?;
        if magic != self.magic {
            return Err("the kernel is no Image");
        }
        self.write_tree(memory, initrd_size, arguments, config)
    }

    fn write_tree(
        &self,
        memory: GuestMemory,
        initrd_size: u64,
        arguments: &str,
        config: Config<'_>,
    ) -> Result<(), &'static str> {
        let mut command_line = COMMAND_LINE.lock();
        let mut length = 0;
        for part in [self.arguments, arguments] {
            let place = command_line.get_mut(length..length + part.len()).ok_or("the command line is too long")?;
            place.copy_from_slice(part.as_bytes());
            length += part.len();
        }
        let initrd = IoRange::new(self.initrd.into(), (self.initrd + initrd_size - 1).into());
        let (own, _) = memory.ranges().next().ok_or("the guest has no memory")?;
        let config = Config {
            memory: &[own],
            bootargs: core::str::from_utf8(&command_line[..length]).ok(),
            initrd: initrd.ok(),
            ..config
        };
        let tree = &mut BUFFER.lock().0;
        let length = fdt::write(&MANAGER, &config, tree).map_err(|_| "the device tree cannot be written")?;
        memory.write(self.tree, &tree[..length]).ok_or("no memory for the device tree")
    }
}
