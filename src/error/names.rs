//! The same error, with its names in another form: an error names devices by what the manager holds of them, and a program
//! may want to keep it for longer.

use super::{IrqRefusal, Owner, RangeRefusal, RegisterError, RelocateError, RerouteError, ResetError, UnregisterError};

impl<N> Owner<N> {
    /// The same owner, with the name in another form.
    ///
    /// ```
    /// use vm_device::Owner;
    ///
    /// assert_eq!(Owner::<&str>::Vmm.map_names(String::from), Owner::Vmm);
    /// ```
    pub fn map_names<M>(self, name: impl FnOnce(N) -> M) -> Owner<M> {
        match self {
            Self::Device { id, name: of } => Owner::Device { id, name: name(of) },
            Self::Vmm => Owner::Vmm,
        }
    }
}

impl<N> RangeRefusal<Owner<N>> {
    /// The same refusal, with the names in another form.
    pub fn map_names<M>(self, name: impl FnOnce(N) -> M) -> RangeRefusal<Owner<M>> {
        self.map_owner(|owner| owner.map_names(name))
    }
}

impl<N> IrqRefusal<N> {
    /// The same refusal, with the names in another form.
    pub fn map_names<M>(self, name: impl FnOnce(N) -> M) -> IrqRefusal<M> {
        match self {
            Self::Taken { gsi, owner } => IrqRefusal::Taken { gsi, owner: owner.map_names(name) },
            Self::LineFull { gsi } => IrqRefusal::LineFull { gsi },
            Self::TooManyLines { capacity, owed } => IrqRefusal::TooManyLines { capacity, owed },
            Self::TooManyInterrupts { capacity } => IrqRefusal::TooManyInterrupts { capacity },
            Self::Pool(error) => IrqRefusal::Pool(error),
        }
    }
}

impl<N> RegisterError<N> {
    /// The same error, with the names in another form: as `String`s, it outlives the devices.
    ///
    /// ```
    /// # mod constant { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/guide/constant.rs")); }
    /// # use constant::Constant;
    /// use vm_device::{DeviceManager, IoRange, RegisterError, Storage, SystemAllocator};
    ///
    /// fn run() -> Result<(), RegisterError<String>> {
    ///     let device = Constant("a/b", 7);
    ///     let storage = Storage::<8, 16, 2>::new();
    ///     let manager = DeviceManager::new(&storage, SystemAllocator::new(IoRange::ALL_MEMORY));
    ///     manager.register_device(&device, None, &[], &[]).map_err(|error| error.map_names(String::from))?;
    ///     Ok(())
    /// }
    /// assert_eq!(run(), Err(RegisterError::InvalidName { device: "a/b".into() }));
    /// ```
    pub fn map_names<M>(self, mut name: impl FnMut(N) -> M) -> RegisterError<M> {
        match self {
            Self::InvalidName { device } => RegisterError::InvalidName { device: name(device) },
            Self::NoSuchParent { device, parent } => RegisterError::NoSuchParent { device: name(device), parent },
            Self::TooManyRanges { device, asked, limit } => {
                RegisterError::TooManyRanges { device: name(device), asked, limit }
            }
            Self::Range { device, index, io_type, refusal } => {
                RegisterError::Range { device: name(device), index, io_type, refusal: refusal.map_names(name) }
            }
            Self::TooManyIrqs { device, asked, limit } => {
                RegisterError::TooManyIrqs { device: name(device), asked, limit }
            }
            Self::Irq { device, index, refusal } => {
                RegisterError::Irq { device: name(device), index, refusal: refusal.map_names(name) }
            }
            Self::TooManyDevices { device, capacity } => {
                RegisterError::TooManyDevices { device: name(device), capacity }
            }
            Self::StorageInUse { device } => RegisterError::StorageInUse { device: name(device) },
            Self::OtherName { device, taken } => RegisterError::OtherName { device: name(device), taken: name(taken) },
            Self::ListenerRefused { device, index, code } => {
                RegisterError::ListenerRefused { device: name(device), index, code }
            }
            Self::Rejected { device, code } => RegisterError::Rejected { device: name(device), code },
        }
    }
}

impl<N> UnregisterError<N> {
    /// As [`RegisterError::map_names`].
    pub fn map_names<M>(self, mut name: impl FnMut(N) -> M) -> UnregisterError<M> {
        match self {
            Self::NotFound { id } => UnregisterError::NotFound { id },
            Self::HasChildren { device, child } => {
                UnregisterError::HasChildren { device: name(device), child: name(child) }
            }
            Self::Busy { device } => UnregisterError::Busy { device: name(device) },
            Self::InOwnCallback { device } => UnregisterError::InOwnCallback { device: name(device) },
            Self::InUse { device } => UnregisterError::InUse { device: name(device) },
        }
    }
}

impl<N> RelocateError<N> {
    /// As [`RegisterError::map_names`].
    pub fn map_names<M>(self, mut name: impl FnMut(N) -> M) -> RelocateError<M> {
        match self {
            Self::NotFound { id } => RelocateError::NotFound { id },
            Self::Busy { device } => RelocateError::Busy { device: name(device) },
            Self::NoSuchRange { device, index } => RelocateError::NoSuchRange { device: name(device), index },
            Self::NamedTwice { device, index } => RelocateError::NamedTwice { device: name(device), index },
            Self::ListenerRefused { device, index, code } => {
                RelocateError::ListenerRefused { device: name(device), index, code }
            }
            Self::Range { device, index, to, refusal } => {
                RelocateError::Range { device: name(device), index, to, refusal: refusal.map_names(name) }
            }
        }
    }
}

impl<N> RerouteError<N> {
    /// As [`RegisterError::map_names`].
    pub fn map_names<M>(self, mut name: impl FnMut(N) -> M) -> RerouteError<M> {
        match self {
            Self::NotFound { id } => RerouteError::NotFound { id },
            Self::Busy { device } => RerouteError::Busy { device: name(device) },
            Self::NoSuchInterrupt { device, index } => RerouteError::NoSuchInterrupt { device: name(device), index },
            Self::Line { device, index, refusal } => {
                RerouteError::Line { device: name(device), index, refusal: refusal.map_names(name) }
            }
            Self::Controller { device, index, gsi, error } => {
                RerouteError::Controller { device: name(device), index, gsi, error }
            }
        }
    }
}

impl<N> ResetError<N> {
    /// As [`RegisterError::map_names`].
    pub fn map_names<M>(self, name: impl FnOnce(N) -> M) -> ResetError<M> {
        match self {
            Self::InUse { device } => ResetError::InUse { device: name(device) },
            Self::InOwnCallback { device } => ResetError::InOwnCallback { device: name(device) },
            Self::UnderWay => ResetError::UnderWay,
        }
    }
}
