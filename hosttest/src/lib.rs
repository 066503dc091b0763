//! Runs real guests under KVM against [`vm_device`]: its test bed, and the model of how to wire it to `kvm-ioctls`.

pub mod membarrier;
pub mod torture;
