//! The messages by which a device interrupts, as the device and its VMM see them.

use super::controller::InterruptError;
use super::line::IrqLine;
use super::message_list::{Entry, MessageList};
use crate::address::GuestAddress;
use crate::sync::const_fn;

/// One message: the write by which a device interrupts (PCI Local Bus 3.0, 6.8).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Message {
    /// Where it is written: a multiple of 4.
    pub address: GuestAddress,
    /// What is written.
    pub data: u32,
    /// The message is not sent, but remembered.
    pub masked: bool,
}

/// The `N` messages by which a device interrupts, for PCI functions (PCI Local Bus 3.0, 6.8.1 MSI, 6.8.2 MSI-X) and for any other
/// device that interrupts by messages.
///
/// It lives in the device, which gives it its handle in [`set_resources`](crate::Device::set_resources)
/// ([`connect`](Self::connect)), and [signals](Self::signal) messages from any thread. The messages go out through the handle
/// ([`IrqLine::message`]), for which the device needs no line.
///
/// A message that cannot be sent is *pending*: because it is masked, because all are, because messages are not enabled, or because
/// the interrupt controller has refused it. It is sent once, however often it was signalled meanwhile:
///
/// - when it may be sent, by the call that lets it: [`set`](Self::set), [`set_masked`](Self::set_masked),
///   [`set_enabled`](Self::set_enabled), or the guest's write ([`store_table`](Self::store_table)). Of several messages, that with the
///   lowest number is sent first.
/// - if the controller has refused it, by the next signal of any message, and by each of those calls.
///
/// PCI says that a masked message is pending (6.8.3.5), and nothing of messages that are not enabled (6.8.3.3 forbids to send them):
/// they are remembered too, so that none is lost while a guest sets them up. A device with an interrupt pin uses it while
/// [`is_enabled`](Self::is_enabled) says no, and signals no message then.
///
/// One call makes at most `N` calls of the controller. A call that masks messages does not wait for other vCPUs that are
/// sending one: a message may still arrive whose sending had begun.
///
/// The guest sees the messages as an MSI-X table of 16 bytes each and an array of pending bits, or as a capability in configuration
/// space; `devices::pci` has both.
///
/// ```
/// use vm_device::{
///     Access, Device, DeviceManager, GuestAddress, InterruptController, InterruptError, IoRange, IoResource, IoType, Gsi,
///     Messages, Rejected, Resources, Storage, SystemAllocator,
/// };
/// use core::sync::atomic::{AtomicU32, Ordering};
///
/// /// Two messages, whose table is the memory of the device from its base on.
/// struct Card<'d>(Messages<'d, 2>);
///
/// impl<'d> Device<'d> for Card<'d> {
///     fn name(&self) -> &str {
///         "card"
///     }
///     fn read(&self, access: &Access<'_>, data: &mut [u8]) {
///         self.0.load_table(access.offset(), data);
///     }
///     fn write(&self, access: &Access<'_>, data: &[u8]) {
///         self.0.store_table(access.offset(), data);
///     }
///     fn set_resources(&self, resources: &Resources<'_, 'd>) -> Result<(), Rejected> {
///         self.0.connect(resources.irq(0));
///         Ok(())
///     }
/// }
///
/// /// Keeps the data of the last message.
/// struct Last(AtomicU32);
///
/// impl InterruptController for Last {
///     fn set_level(&self, _: Gsi, _: bool) -> Result<(), InterruptError> {
///         Err(InterruptError::Refused)
///     }
///     fn pulse(&self, _: Gsi) -> Result<(), InterruptError> {
///         Err(InterruptError::Refused)
///     }
///     fn message(&self, _: GuestAddress, data: u32) -> Result<(), InterruptError> {
///         self.0.store(data, Ordering::Relaxed);
///         Ok(())
///     }
/// }
///
/// static CARD: Card<'static> = Card(Messages::new());
/// static CONTROLLER: Last = Last(AtomicU32::new(0));
/// static STORAGE: Storage<8, 16, 2> = Storage::new();
/// static MANAGER: DeviceManager<'static> =
///     DeviceManager::new(&STORAGE, SystemAllocator::new(IoRange::ALL_MEMORY)).with_interrupt_controller(&CONTROLLER);
///
/// MANAGER.register_device(&CARD, None, &[IoResource::mmio(0xc000_0000, 0x1000)], &[])?;
/// CARD.0.set_enabled(true);
/// // Message 1 is masked, as all are at first.
/// CARD.0.signal(1)?;
/// assert!(CARD.0.is_pending(1));
/// assert_eq!(CONTROLLER.0.load(Ordering::Relaxed), 0);
/// // The guest writes its address, its data and its vector control.
/// for (offset, value) in [(0x10, 0xfee0_0000_u32), (0x18, 0x41), (0x1c, 0)] {
///     MANAGER.write(GuestAddress(0xc000_0000 + offset), &value.to_le_bytes(), IoType::Mmio)?;
/// }
/// assert!(!CARD.0.is_pending(1));
/// assert_eq!(CONTROLLER.0.load(Ordering::Relaxed), 0x41);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Messages<'d, const N: usize>(MessageList<'d, [Entry; N]>);

impl<'d, const N: usize> Messages<'d, N> {
    const_fn! {
        /// The messages after power-on: not enabled, each of them masked and not pending (PCI Local Bus 3.0, 6.8.2.3 and 6.8.2.9).
        pub fn new() -> Self {
            Self(MessageList::new([Entry::RESET; N]))
        }
    }

    /// The messages, of any number.
    pub(crate) const fn list(&self) -> &MessageList<'d, [Entry]> {
        &self.0
    }

    /// The messages go out through this handle from now on: that of the device's registration, `resources.irq(0)`, even if the
    /// device has no line. Before, and when the device is unregistered, they are pending as those that a controller refuses.
    pub fn connect(&self, irq: IrqLine<'d>) {
        self.list().connect(irq);
    }

    /// The device interrupts by message `number`. `Ok` says that the controller has taken the message, or that it is pending because
    /// it may not be sent now.
    ///
    /// # Errors
    /// [`NoMessage`](InterruptError::NoMessage) if `number` is not below `N`. Otherwise those of [`IrqLine::message`]: the message is
    /// pending then, and the next signal tries it again.
    pub fn signal(&self, number: usize) -> Result<(), InterruptError> {
        self.list().signal(number)
    }

    /// What the message was signalled for has been served in another way: it is not pending any more (PCI Local Bus 3.0, 6.8.3.5: a
    /// guest may keep a message masked, and look at its pending bit alone).
    ///
    /// ```
    /// use vm_device::Messages;
    ///
    /// let messages = Messages::<4>::new();
    /// messages.signal(3).unwrap();
    /// assert!(messages.is_pending(3));
    /// messages.withdraw(3);
    /// assert!(!messages.is_pending(3));
    /// ```
    pub fn withdraw(&self, number: usize) {
        self.list().withdraw(number);
    }

    /// Whether the message was signalled and is still to be sent.
    pub fn is_pending(&self, number: usize) -> bool {
        self.list().is_pending(number)
    }

    /// Where message `number` is written, what, and whether it is masked; `None` if there is none.
    pub fn get(&self, number: usize) -> Option<Message> {
        self.list().get(number)
    }

    /// Changes message `number`, and sends it if it is pending and may be sent now. There is nothing to change if `number` is not below
    /// `N`.
    ///
    /// ```
    /// use vm_device::{GuestAddress, Message, Messages};
    ///
    /// let messages = Messages::<4>::new();
    /// let message = Message { address: GuestAddress(0xfee0_0000), data: 0x41, masked: false };
    /// messages.set(2, message);
    /// assert_eq!(messages.get(2), Some(message));
    /// // After power-on they are masked.
    /// assert!(messages.get(1).is_some_and(|message| message.masked));
    /// assert_eq!(messages.get(4), None);
    /// ```
    pub fn set(&self, number: usize, message: Message) {
        self.list().set(number, message);
        self.list().settle();
    }

    /// Whether messages are enabled. While they are, a device does not use its interrupt pin (PCI Local Bus 3.0, 6.8.1.3 and
    /// 6.8.2.3).
    pub fn is_enabled(&self) -> bool {
        self.list().control().enabled
    }

    /// Enables messages, and sends what is pending and not masked; or forbids to send any.
    ///
    /// ```
    /// use vm_device::Messages;
    ///
    /// let messages = Messages::<1>::new();
    /// assert!(!messages.is_enabled());
    /// messages.set_enabled(true);
    /// assert!(messages.is_enabled());
    /// ```
    pub fn set_enabled(&self, enabled: bool) {
        self.list().change_control(|control| control.enabled = enabled);
        self.list().settle();
    }

    /// Whether all messages are masked, whatever the mask of each says (PCI Local Bus 3.0, 6.8.2.3: the function mask).
    pub fn is_masked(&self) -> bool {
        self.list().control().masked
    }

    /// Masks all messages; or unmasks those that are not masked themselves, and sends what is pending of them.
    ///
    /// ```
    /// use vm_device::Messages;
    ///
    /// let messages = Messages::<1>::new();
    /// assert!(!messages.is_masked());
    /// messages.set_masked(true);
    /// assert!(messages.is_masked());
    /// ```
    pub fn set_masked(&self, masked: bool) {
        self.list().change_control(|control| control.masked = masked);
        self.list().settle();
    }

    /// Reads the MSI-X table (PCI Local Bus 3.0, 6.8.2) from `offset` on: 16 bytes for each message, which are the two halves of
    /// its address, its data, and its vector control, whose bit 0 is the mask.
    ///
    /// Software reads and writes the table by whole dwords and qwords, each at a multiple of 4; the standard defines no other
    /// access. Another one reads nothing here: the bytes stay as they are, and so do those behind the table's end.
    ///
    /// ```
    /// use vm_device::{GuestAddress, Message, Messages};
    ///
    /// let messages = Messages::<2>::new();
    /// messages.set(1, Message { address: GuestAddress(0x1_fee0_0000), data: 0x41, masked: false });
    /// let mut address = [0; 8];
    /// messages.load_table(0x10, &mut address);
    /// assert_eq!(u64::from_le_bytes(address), 0x1_fee0_0000);
    /// ```
    pub fn load_table(&self, offset: u64, data: &mut [u8]) {
        self.list().load_table(offset, data);
    }

    /// Writes the MSI-X table from `offset` on, and sends what that unmasks and what is pending. It takes the accesses that
    /// [`load_table`](Self::load_table) takes, and ignores others, and what is behind the table's end. Bits 0 and 1 of an address stay
    /// 0 (PCI Local Bus 3.0, 6.8.2.6).
    ///
    /// ```
    /// use vm_device::{GuestAddress, Messages};
    ///
    /// let messages = Messages::<2>::new();
    /// messages.store_table(0x10, &0xfee0_0000_u64.to_le_bytes());
    /// // Half of a dword.
    /// messages.store_table(0x18, &[0xff, 0xff]);
    /// assert_eq!(messages.get(1).map(|message| (message.address.0, message.data)), Some((0xfee0_0000, 0)));
    /// ```
    pub fn store_table(&self, offset: u64, data: &[u8]) {
        self.list().store_table(offset, data);
        self.list().settle();
    }

    /// Reads the array of pending bits from `offset` on: bit 0 of its first byte is message 0's (PCI Local Bus 3.0, 6.8.2.10). It has
    /// whole qwords, of which bits without a message are 0, and cannot be written. It takes the accesses that
    /// [`load_table`](Self::load_table) takes.
    ///
    /// ```
    /// use vm_device::Messages;
    ///
    /// let messages = Messages::<40>::new();
    /// messages.signal(33).unwrap();
    /// let mut pending = [0; 8];
    /// messages.load_pending(0, &mut pending);
    /// assert_eq!(u64::from_le_bytes(pending), 1 << 33);
    /// ```
    pub fn load_pending(&self, offset: u64, data: &mut [u8]) {
        self.list().load_pending(offset, data);
    }

    /// The state after power-on: not enabled, each message masked, none pending. The handle stays.
    ///
    /// ```
    /// use vm_device::Messages;
    ///
    /// let messages = Messages::<1>::new();
    /// messages.set_enabled(true);
    /// messages.signal(0).unwrap();
    /// messages.reset();
    /// assert!(!messages.is_enabled() && !messages.is_pending(0));
    /// ```
    pub fn reset(&self) {
        self.list().reset();
    }
}

impl<const N: usize> Default for Messages<'_, N> {
    fn default() -> Self {
        Self::new()
    }
}
