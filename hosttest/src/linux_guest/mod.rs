//! Linux as a guest: the kernels, and an initramfs that reports what the kernel found.

pub mod kernel;
