//! The paths of devices, by which observers name them.

use std::collections::BTreeMap;

use vm_device::{DeviceManager, InstanceId};

/// The paths of devices that were seen. A device that is gone keeps its path.
pub struct Names {
    paths: BTreeMap<InstanceId, String>,
    look_up: Option<LookUp>,
}

/// The path of a device that is registered at the moment.
type LookUp = Box<dyn Fn(InstanceId) -> Option<String> + Send>;

impl Names {
    /// No path is known.
    pub const fn new() -> Self {
        Self { paths: BTreeMap::new(), look_up: None }
    }

    /// These paths are known, and no others.
    pub fn replace(&mut self, paths: impl Iterator<Item = (InstanceId, String)>) {
        self.paths = paths.collect();
    }

    /// A device that has no path here is looked up when it is seen.
    pub fn look_up_with(&mut self, look_up: impl Fn(InstanceId) -> Option<String> + Send + 'static) {
        self.look_up = Some(Box::new(look_up));
    }

    /// The path of a device, if it is known or can be looked up.
    pub fn of(&mut self, device: InstanceId) -> Option<&str> {
        if !self.paths.contains_key(&device) {
            let path = self.look_up.as_ref()?(device)?;
            self.paths.insert(device, path);
        }
        self.paths.get(&device).map(String::as_str)
    }
}

impl Default for Names {
    fn default() -> Self {
        Self::new()
    }
}

/// The path of a device, if it is registered at the moment: for [`Names::look_up_with`].
pub fn path(manager: &DeviceManager<'_>, device: InstanceId) -> Option<String> {
    manager.device(device).map(|info| manager.path(info.id).to_string())
}
