//! What is measured: something that finds the device of an address and lets it answer.

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The trivial device: an atomic register that answers reads. `KIND` makes types that differ in their code.
pub(super) struct Register<const KIND: u64>(AtomicU64);

impl<const KIND: u64> Register<KIND> {
    pub(super) const fn new() -> Self {
        Self(AtomicU64::new(0x1234_5678))
    }

    #[inline(always)]
    pub(super) fn answer(&self, offset: u64, data: &mut [u8]) {
        let value = self.0.load(Ordering::Relaxed).wrapping_add(offset ^ KIND) as u32;
        match <&mut [u8; 4]>::try_from(data) {
            Ok(data) => *data = value.to_le_bytes(),
            Err(_) => self.0.store(0, Ordering::Relaxed),
        }
    }
}

/// Calls a function that is generic over `KIND` with one of eight.
macro_rules! of_kind {
    ($kind:expr, $make:ident($($argument:expr),*)) => {
        match $kind {
            0 => $make::<0>($($argument),*),
            1 => $make::<1>($($argument),*),
            2 => $make::<2>($($argument),*),
            3 => $make::<3>($($argument),*),
            4 => $make::<4>($($argument),*),
            5 => $make::<5>($($argument),*),
            6 => $make::<6>($($argument),*),
            _ => $make::<7>($($argument),*),
        }
    };
}
pub(super) use of_kind;

/// One vCPU's way to dispatch a batch of reads. The loop is part of it, so that nothing but the dispatch stands in it.
pub(super) trait Reader {
    fn read_all(&mut self, addresses: &[u64]);
}

impl<F: FnMut(u64, &mut [u8; 4])> Reader for F {
    #[inline(never)]
    fn read_all(&mut self, addresses: &[u64]) {
        let mut sum = 0_u32;
        for address in addresses {
            let mut data = [0xff; 4];
            self(*address, &mut data);
            sum = sum.wrapping_add(u32::from_le_bytes(data));
        }
        black_box(sum);
    }
}

/// One implementation, filled with the devices of one layout.
pub(super) struct Subject {
    pub(super) name: &'static str,
    /// Makes a reader, for one thread.
    pub(super) reader: Box<dyn Fn() -> Box<dyn Reader> + Sync>,
    /// Adds one more device and takes it away again, while readers read; none where nothing can be changed then.
    pub(super) change: Option<Box<dyn Fn() + Sync>>,
    /// Whether it is given the number of the range instead of the address: it finds nothing, it only calls.
    pub(super) knows_range: bool,
}

impl Subject {
    /// `reader` makes a reader of what all readers share, which is gone with the subject and them.
    pub(super) fn new<S: Send + Sync + 'static, F: FnMut(u64, &mut [u8; 4]) + 'static>(
        name: &'static str,
        shared: &Arc<S>,
        reader: impl Fn(Arc<S>) -> F + Sync + 'static,
    ) -> Self {
        let shared = Arc::clone(shared);
        let reader = move || -> Box<dyn Reader> { Box::new(reader(Arc::clone(&shared))) };
        Self { name, reader: Box::new(reader), change: None, knows_range: false }
    }

    pub(super) fn knowing_ranges(mut self) -> Self {
        self.knows_range = true;
        self
    }

    pub(super) fn with_change(mut self, change: impl Fn() + Sync + 'static) -> Self {
        self.change = Some(Box::new(change));
        self
    }
}

/// Makes something large on a stack that has room for it: without optimisation a storage passes through several frames, and
/// takes several times its size there.
pub(super) fn apart<T: Send>(make: impl FnOnce() -> T + Send) -> Box<T> {
    const COPIES: usize = 12;
    const CALLS: usize = 1 << 20;
    std::thread::scope(|scope| {
        let builder = std::thread::Builder::new().stack_size(COPIES * size_of::<T>() + CALLS);
        let making = builder.spawn_scoped(scope, || Box::new(make())).expect("a thread can be started");
        making.join().expect("making it does not panic")
    })
}

/// What stays for as long as the program runs, where a reader keeps a plain reference, as that is what is measured.
pub(super) fn leaked<T>(value: T) -> &'static T {
    Box::leak(Box::new(value))
}
