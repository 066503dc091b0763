//! Random histories: what is asked of the manager, step by step.

use proptest::prelude::*;
use vm_device::{AccessSizes, Gsi, GuestAddress, GuestUsize, IoRange, IoResource, IoType, IrqResource, RangeState};

use crate::platform::{HALF, address};

#[derive(Clone, Copy, Debug)]
pub(crate) enum Where {
    Fixed {
        first: u64,
        size: u64,
    },
    /// At an address, not a cell.
    At {
        first: u64,
        size: u64,
    },
    /// In a window of the parent, if it has one.
    Inside {
        offset: u64,
        size: u64,
    },
    Wide {
        first: u64,
        last: u64,
    },
    Any {
        size: u64,
        align: u64,
        limits: Option<(u64, u64)>,
        last_fit: bool,
    },
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Ask {
    pub(crate) io_type: IoType,
    pub(crate) place: Where,
    pub(crate) window: bool,
    pub(crate) state: RangeState,
    pub(crate) sizes: AccessSizes,
}

impl Ask {
    pub(crate) fn resource(&self) -> IoResource {
        let mut resource = match self.place {
            Where::Fixed { first, size } => {
                IoResource::fixed(self.io_type, GuestAddress(address(self.io_type, first)), GuestUsize(size))
            }
            Where::At { first, size } | Where::Inside { offset: first, size } => {
                IoResource::fixed(self.io_type, GuestAddress(first), GuestUsize(size))
            }
            Where::Wide { first, last } => {
                let (first, last) = (address(self.io_type, first), address(self.io_type, last));
                IoResource::at(self.io_type, IoRange::new(GuestAddress(first), GuestAddress(last)).unwrap())
            }
            Where::Any { size, align, limits, last_fit } => {
                let mut resource = IoResource::any(self.io_type, GuestUsize(size)).aligned(align);
                if let Some((low, high)) = limits {
                    let ends = [low, high].map(|cell| GuestAddress(address(self.io_type, cell)));
                    resource = resource.within(IoRange::new(ends[0], ends[1]).unwrap());
                }
                if last_fit { resource.last_fit() } else { resource }
            }
        };
        resource = resource.sizes(self.sizes);
        if self.window {
            resource = resource.window();
        }
        match self.state {
            RangeState::Decoded => resource,
            RangeState::Reserved => resource.reserved(),
            RangeState::Unplaced => resource.unplaced(),
            RangeState::Waiting => resource.waiting(),
        }
    }
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Target {
    Stay,
    /// To one of the addresses looked at.
    Cell(u64),
    /// To where another range lies or wants to lie, by any number.
    Onto(usize),
    /// Into a window of the bus above it.
    Inside(u64),
    /// The range and that of the move before it take each other's places.
    Swap,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Move {
    /// Which device, and which range of it, by any number.
    pub(crate) device: usize,
    pub(crate) range: usize,
    pub(crate) to: Target,
    /// Takes along everything that lies in it.
    pub(crate) with_contents: bool,
    pub(crate) size: Option<u64>,
    pub(crate) state: Option<RangeState>,
}

#[derive(Clone, Debug)]
pub(crate) enum Step {
    Register { parent: usize, asks: Vec<Ask>, irqs: Vec<IrqResource> },
    Unregister(usize),
    Subtree(usize),
    Deferred(usize),
    Collect,
    Relocate(Vec<Move>),
    Reserve(IoType, u64, u64),
    Release(usize),
    Reroute(usize, usize, Option<u32>),
}

pub(crate) fn io_type() -> impl Strategy<Value = IoType> {
    prop_oneof![3 => Just(IoType::Pio), 3 => Just(IoType::Mmio), 1 => Just(IoType::PhysicalMmio)]
}

/// One range. `windows` of ten are windows.
fn ask(windows: u32) -> impl Strategy<Value = Ask> {
    let limits = prop_oneof![
        4 => Just(None),
        1 => (0..HALF, 0..HALF).prop_map(|(a, b)| Some((a.min(b), a.max(b)))),
        1 => (HALF..2 * HALF, HALF..2 * HALF).prop_map(|(a, b)| Some((a.min(b), a.max(b)))),
    ];
    let fixed = |sizes| (0..2 * HALF, sizes).prop_map(|(first, size)| Where::Fixed { first, size });
    let wide = (0..HALF, HALF..2 * HALF).prop_map(|(first, last)| Where::Wide { first, last });
    let any = (1..9_u64, 0..4_u32, limits, any::<bool>()).prop_map(|(size, align, limits, last_fit)| Where::Any {
        size,
        align: 1 << align,
        limits,
        last_fit,
    });
    let inside = (0..128_u64, 1..9_u64).prop_map(|(offset, size)| Where::Inside { offset, size });
    // Windows are large, and what asks for any place lies in them.
    let window = (prop_oneof![5 => fixed(4..33_u64), 2 => wide, 1 => any.clone(), 2 => inside.clone()], Just(true));
    let other = (prop_oneof![3 => fixed(0..9_u64), 4 => any, 6 => inside.clone()], Just(false));
    let place = prop_oneof![windows => window, 10 - windows => other];
    let sizes = prop_oneof![
        6 => Just(AccessSizes::ANY),
        1 => Just(AccessSizes::BYTE | AccessSizes::SPLIT),
        1 => Just(AccessSizes::WORD | AccessSizes::DWORD),
        1 => Just(AccessSizes::ANY | AccessSizes::ALIGNED),
    ];
    (io_type(), place, state(12), sizes).prop_map(|(io_type, (place, window), state, sizes)| {
        // What may lie anywhere has nothing to wait for.
        let state = match (state, place) {
            (RangeState::Waiting, Where::Any { size, .. }) if size > 1 => RangeState::Decoded,
            _ => state,
        };
        Ask { io_type, place, window, state, sizes }
    })
}

/// A state, decoded ones so often as `decoded` says.
fn state(decoded: u32) -> impl Strategy<Value = RangeState> {
    prop_oneof![
        decoded => Just(RangeState::Decoded),
        2 => Just(RangeState::Reserved),
        2 => Just(RangeState::Unplaced),
        4 => Just(RangeState::Waiting),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let irq = prop_oneof![
        2 => Just(IrqResource::Any),
        2 => (4..8_u32).prop_map(|gsi| IrqResource::Fixed(Gsi(gsi))),
        4 => (4..8_u32).prop_map(|gsi| IrqResource::Shared(Gsi(gsi))),
        2 => Just(IrqResource::Unrouted),
    ];
    let irqs = prop_oneof![4 => Just(0..1), 4 => Just(1..2), 1 => Just(2..4)];
    let irqs = irqs.prop_flat_map(move |number| prop::collection::vec(irq.clone(), number));
    let target = prop_oneof![
        2 => Just(Target::Stay),
        3 => (0..2 * HALF).prop_map(Target::Cell),
        2 => any::<u8>().prop_map(|pick| Target::Onto(pick.into())),
        3 => (0..48_u64).prop_map(Target::Inside),
        2 => Just(Target::Swap),
    ];
    let size = prop_oneof![8 => 1..9_u64, 8 => 9..40_u64, 1 => Just(0), 1 => Just(u64::MAX)];
    let relocation = (
        any::<[u8; 2]>(),
        target,
        prop::bool::weighted(0.4),
        prop::option::weighted(0.15, size),
        prop::option::weighted(0.6, state(3)),
    );
    let relocation = relocation.prop_map(|([device, range], to, with_contents, size, state)| Move {
        device: device.into(),
        range: range.into(),
        to,
        with_contents,
        size,
        state,
    });
    prop_oneof![
        16 => (any::<u8>(), prop::collection::vec(ask(3), 0..4), irqs)
            .prop_map(|(parent, asks, irqs)| Step::Register { parent: parent.into(), asks, irqs }),
        2 => any::<u8>().prop_map(|pick| Step::Unregister(pick.into())),
        1 => any::<u8>().prop_map(|pick| Step::Subtree(pick.into())),
        1 => any::<u8>().prop_map(|pick| Step::Deferred(pick.into())),
        1 => Just(Step::Collect),
        10 => prop::collection::vec(relocation, 1..5).prop_map(Step::Relocate),
        1 => (io_type(), 0..2 * HALF, 1..6_u64).prop_map(|(io_type, first, size)| Step::Reserve(io_type, first, size)),
        1 => any::<u8>().prop_map(|pick| Step::Release(pick.into())),
        3 => (any::<u8>(), 0..3_usize, prop::option::weighted(0.8, 4..8_u32))
            .prop_map(|(pick, index, gsi)| Step::Reroute(pick.into(), index, gsi)),
    ]
}

/// A few buses, and the steps after them.
pub(crate) fn history(length: usize) -> impl Strategy<Value = Vec<Step>> {
    let bus = (any::<u8>(), prop::collection::vec(ask(9), 1..3)).prop_map(|(parent, asks)| Step::Register {
        parent: parent.into(),
        asks,
        irqs: vec![],
    });
    (prop::collection::vec(bus, 1..4), prop::collection::vec(step(), 4..length))
        .prop_map(|(buses, steps)| buses.into_iter().chain(steps).collect())
}
