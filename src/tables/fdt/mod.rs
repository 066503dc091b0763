//! A flattened device tree (Devicetree Specification 0.4).
//!
//! | node | what is in it |
//! |---|---|
//! | `/chosen` | the command line, the initial ramdisk, and the first [`Uart`](crate::Role::Uart) as console |
//! | `/memory@...` | the embedder's memory |
//! | what the embedder adds | processors, the interrupt controller, timers: [`Config::nodes`] |
//! | `/soc` | every device whose first range with addresses is memory, if it has names in the property `compatible` ([`Description::compatible`](crate::Description::compatible)) |
//! | `/soc/isa@0` | every such device whose first range is ports |
//! | `/pcie@...`, `/pci` | every [`PciHost`](crate::Role::PciHost) that the embedder gives windows |
//!
//! A node has the name of its device, and its first address as unit address.

mod blob;
mod nodes;

use super::TableError;
use super::pci::PciRoot;
use super::registered::Registered;
use super::survey::Survey;
use crate::address::IoRange;
use crate::description::Property;
use blob::{Blob, size};

/// What neither the devices nor the manager know.
#[derive(Clone, Copy)]
pub struct Config<'a> {
    /// The property `model` of the root.
    pub model: &'a str,
    /// The property `compatible` of the root, the most specific name first.
    pub compatible: &'a [&'a str],
    /// The interrupt controller that the lines of devices lead to, and how it counts them; without one, nothing is said of lines.
    pub interrupts: Option<InterruptParent>,
    /// The guest's memory.
    pub memory: &'a [IoRange],
    /// Memory that the guest must not use for itself.
    pub reserved: &'a [IoRange],
    /// The guest's command line.
    pub bootargs: Option<&'a str>,
    /// Where the initial ramdisk is.
    pub initrd: Option<IoRange>,
    /// The processor that boots, as its `reg` says.
    pub boot_cpu: u32,
    /// A clock for devices that refer to one ([`Property::Clocks`]).
    pub clock: Option<Clock>,
    /// For each host bridge that is registered, in their order, what lies behind it.
    pub pci: &'a [PciRoot<'a>],
    /// Adds nodes below the root: processors, the interrupt controller, timers. It is called twice, and does the same both times.
    pub nodes: Option<&'a dyn Fn(&mut Nodes<'_, '_>)>,
}

impl Config<'_> {
    /// A machine that has nothing but its devices.
    pub const fn new() -> Self {
        Self {
            model: "vm-device",
            compatible: &["linux,dummy-virt"],
            interrupts: None,
            memory: &[],
            reserved: &[],
            bootargs: None,
            initrd: None,
            boot_cpu: 0,
            clock: None,
            pci: &[],
            nodes: None,
        }
    }
}

impl Default for Config<'_> {
    fn default() -> Self {
        Self::new()
    }
}

/// A clock of constant rate.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Clock {
    /// By what other nodes refer to it: a number that no other node has.
    pub phandle: u32,
    /// Its rate, in Hz.
    pub hertz: u32,
}

/// The interrupt controller that lines lead to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct InterruptParent {
    /// By what other nodes refer to it: a number that no other node has. The registered [`IoApic`](crate::Role::IoApic) whose lines begin
    /// with GSI 0 gets it. The node that an embedder adds instead has `#address-cells` 0, and as many `#interrupt-cells` as its kind.
    pub phandle: u32,
    /// How it counts lines.
    pub kind: ControllerKind,
}

/// How an interrupt controller counts lines.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum ControllerKind {
    /// Arm's GIC, three cells: the lines from GSI 32 on are its shared peripheral interrupts.
    Gic,
    /// RISC-V's PLIC, one cell: the line.
    Plic,
    /// An IOAPIC, two cells: the line, and how it is triggered.
    IoApic,
}

/// The node that is being written. Its properties come before the nodes below it.
///
/// ```
/// use vm_device::tables::fdt::{self, Config, ControllerKind, InterruptParent, Nodes};
/// use vm_device::{DeviceManager, IoRange, Property, Storage, SystemAllocator};
///
/// const GIC: u32 = 1;
///
/// /// What an Arm machine has besides its devices.
/// fn processor_and_timer(root: &mut Nodes<'_, '_>) {
///     root.node("cpus", |cpus| {
///         cpus.property("#address-cells", Property::Cells(&[1]));
///         cpus.property("#size-cells", Property::Cells(&[0]));
///         cpus.node("cpu@0", |cpu| {
///             cpu.property("device_type", Property::Text("cpu"));
///             cpu.property("compatible", Property::Text("arm,armv8"));
///             cpu.property("reg", Property::Cells(&[0]));
///             cpu.property("enable-method", Property::Text("psci"));
///         });
///     });
///     root.node("psci", |psci| {
///         psci.property("compatible", Property::Texts(&["arm,psci-1.0", "arm,psci-0.2"]));
///         psci.property("method", Property::Text("hvc"));
///     });
///     root.node("interrupt-controller@8000000", |gic| {
///         gic.property("compatible", Property::Text("arm,gic-v3"));
///         gic.property("reg", Property::Cells(&[0, 0x800_0000, 0, 0x1_0000, 0, 0x80a_0000, 0, 0x2_0000]));
///         gic.property("interrupt-controller", Property::Empty);
///         gic.property("#interrupt-cells", Property::Cells(&[3]));
///         gic.property("#address-cells", Property::Cells(&[0]));
///         gic.property("phandle", Property::Cells(&[GIC]));
///     });
///     root.node("timer", |timer| {
///         timer.property("compatible", Property::Text("arm,armv8-timer"));
///         timer.property("interrupts", Property::Cells(&[1, 13, 4, 1, 14, 4, 1, 11, 4, 1, 10, 4]));
///         timer.property("always-on", Property::Empty);
///     });
/// }
///
/// let storage = Storage::<8, 16, 2>::new();
/// let manager = DeviceManager::new(&storage, SystemAllocator::new(IoRange::ALL_MEMORY));
/// let config = Config {
///     interrupts: Some(InterruptParent { phandle: GIC, kind: ControllerKind::Gic }),
///     memory: &[IoRange::of::<0x4000_0000, 0x5fff_ffff>()],
///     bootargs: Some("console=ttyAMA0"),
///     nodes: Some(&processor_and_timer),
///     ..Config::new()
/// };
/// let mut buffer = [0; 0x1000];
/// let length = fdt::write(&manager, &config, &mut buffer)?;
/// assert_eq!(buffer[..4], 0xd00d_feed_u32.to_be_bytes());
/// assert_eq!(buffer[4..8], (length as u32).to_be_bytes());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Nodes<'w, 'b> {
    blob: &'w mut Blob<'b>,
}

impl Nodes<'_, '_> {
    /// A node below this one. The name has its unit address with it, if it has one.
    pub fn node(&mut self, name: &str, fill: impl FnOnce(&mut Nodes<'_, '_>)) {
        self.blob.node(name, |blob| fill(&mut Nodes { blob }));
    }

    /// A property of this node.
    pub fn property(&mut self, name: &str, value: Property<'_>) {
        self.blob.property(name, value);
    }
}

/// Writes the tree into `buffer`, and returns how many bytes it takes. It may lie anywhere in the guest's memory, at a multiple of 8
/// bytes.
///
/// ```
/// use vm_device::tables::fdt::{self, Config};
/// use vm_device::tables::PciRoot;
/// use vm_device::devices::pci::HostBridge;
/// use vm_device::{DeviceManager, IoRange, Storage, SystemAllocator};
///
/// static STORAGE: Storage<8, 16, 2> = Storage::new();
/// static MANAGER: DeviceManager<'static> = DeviceManager::new(&STORAGE, SystemAllocator::new(IoRange::ALL_MEMORY));
/// static HOST: HostBridge<'static> = HostBridge::new("pcie", &MANAGER);
///
/// MANAGER.register_device(&HOST, None, &[HostBridge::ecam(0x4000_0000, 15)], &[])?;
/// let root = PciRoot { memory: &[IoRange::of::<0x5000_0000, 0x5fff_ffff>()], ..PciRoot::NOTHING };
/// let config = Config { memory: &[IoRange::of::<0x8000_0000, 0x8fff_ffff>()], pci: &[root], ..Config::new() };
/// let mut buffer = [0; 0x1000];
/// let length = fdt::write(&MANAGER, &config, &mut buffer)?;
/// let is_there = |text: &[u8]| buffer[..length].windows(text.len()).any(|bytes| bytes == text);
/// assert!(is_there(b"pcie@40000000\0") && is_there(b"pci-host-ecam-generic\0"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// [`TableError`]: the buffer is too small, a window of a PCI root bridge is not free, or devices have changed meanwhile.
pub fn write(registered: &dyn Registered, config: &Config<'_>, buffer: &mut [u8]) -> Result<usize, TableError> {
    for root in config.pci {
        root.check(registered)?;
    }
    let survey = Survey::new(registered);
    Blob::write(buffer, config.reserved, config.boot_cpu, config.clock, |blob| {
        root(blob, registered, config, &survey);
    })
}

fn root(blob: &mut Blob<'_>, registered: &dyn Registered, config: &Config<'_>, survey: &Survey) {
    blob.cells("#address-cells", &[2]);
    blob.cells("#size-cells", &[2]);
    blob.property("model", Property::Text(config.model));
    blob.property("compatible", Property::Texts(config.compatible));
    if let Some(parent) = config.interrupts {
        blob.cells("interrupt-parent", &[parent.phandle]);
    }
    blob.node("chosen", |blob| {
        if let Some(bootargs) = config.bootargs {
            blob.property("bootargs", Property::Text(bootargs));
        }
        if let Some(initrd) = config.initrd {
            blob.property_with("linux,initrd-start", |blob| blob.put_wide(&[initrd.first().0]));
            // It is the address behind the last.
            blob.property_with("linux,initrd-end", |blob| blob.put_wide(&[initrd.last().0.saturating_add(1)]));
        }
        nodes::console(blob, registered, survey);
    });
    for range in config.memory {
        blob.node_at("memory", Some(range.first().0), |blob| {
            blob.property("device_type", Property::Text("memory"));
            blob.property_with("reg", |blob| {
                blob.put_wide(&[range.first().0, size(*range)]);
            });
        });
    }
    if let Some(Clock { phandle, hertz }) = config.clock {
        blob.node("clock", |blob| {
            blob.property("compatible", Property::Text("fixed-clock"));
            blob.cells("#clock-cells", &[0]);
            blob.cells("clock-frequency", &[hertz]);
            blob.cells("phandle", &[phandle]);
        });
    }
    if let Some(add) = config.nodes {
        add(&mut Nodes { blob });
    }
    nodes::devices(blob, registered, config, survey);
    nodes::host_bridges(blob, registered, config);
}
