//! One step of an exit's path, done in several ways over the same cases.

use std::hint::black_box;
use std::io;

use clap::ValueEnum;
use vm_device::IoType;

use crate::bench::layout::{Layout, Random};
use crate::bench::measure::{interleaved, per_operation};
use crate::bench::report::{Report, Work};

/// What these measurements are called in the report.
pub(super) const BENCH: &str = "exit path";

/// How many ranges the devices of a manager have.
pub(super) const RANGES: usize = 64;

/// How many exits one sample takes.
pub(super) const BATCH: usize = 4096;

/// How many there are in all: as many as no branch predictor learns.
const CASES: usize = 1 << 16;

/// The layout of the devices.
pub(super) fn layout(io_type: IoType) -> Layout {
    Layout::new(io_type, RANGES, 1)
}

/// One exit: which of the step's samples caused it, and which address it accessed.
#[derive(Clone, Copy)]
pub(super) struct Case {
    pub(super) which: u32,
    pub(super) address: u64,
}

/// In which order the samples follow each other.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(in crate::bench) enum Order {
    /// One after the other, again and again.
    #[value(name = "turn")]
    InTurn,
    /// At random.
    Random,
}

impl Order {
    pub(in crate::bench) const ALL: [Self; 2] = [Self::InTurn, Self::Random];

    pub(in crate::bench) fn name(self) -> &'static str {
        match self {
            Self::InTurn => "in turn",
            Self::Random => "random order",
        }
    }

    /// Accesses of random ranges of the layout, by each of `samples` samples equally often. An operand of 8 bytes is aligned, as far
    /// as the ranges are.
    fn cases(self, layout: &Layout, samples: usize) -> Vec<Case> {
        let mut random = Random::new(0x0de5);
        let align = if layout.io_type == IoType::Pio { 1 } else { 8 };
        let addresses = layout.addresses(crate::bench::layout::Pattern::Random, CASES);
        let cases = addresses.into_iter().enumerate().map(|(number, address)| {
            let which = match self {
                Self::InTurn => number % samples,
                Self::Random => random.below(samples as u64) as usize,
            };
            Case { which: which as u32, address: address / align * align }
        });
        cases.collect()
    }
}

/// Does a step for each case of a batch. The loop is part of it, so that nothing but the step stands in it.
type Batch = Box<dyn FnMut(&[Case])>;

/// One way to do a step.
pub(super) struct Way {
    pub(super) name: &'static str,
    batch: Batch,
}

impl Way {
    /// `once` does the step for one sample and address. What it returns is added up, so that it has to be found.
    pub(super) fn new<S>(
        name: &'static str,
        samples: &'static [S],
        mut once: impl FnMut(&S, u64) -> u64 + 'static,
    ) -> Self {
        let batch = move |cases: &[Case]| {
            let mut sum = 0_u64;
            for case in cases {
                if let Some(sample) = samples.get(case.which as usize) {
                    sum = sum.wrapping_add(once(sample, case.address));
                }
            }
            black_box(sum);
        };
        Self { name, batch: Box::new(batch) }
    }

    pub(super) fn run(&mut self, cases: &[Case]) {
        (self.batch)(cases);
    }
}

/// A step of the path.
pub(super) struct Step {
    pub(super) name: &'static str,
    /// Which path it is a step of.
    pub(super) path: &'static str,
    pub(super) io_type: IoType,
    /// How many samples there are.
    pub(super) samples: usize,
    /// The first is what the ratios are to.
    pub(super) ways: Vec<Way>,
}

impl Step {
    pub(super) fn cases(&self, order: Order) -> Vec<Case> {
        order.cases(&layout(self.io_type), self.samples)
    }

    /// Measures all ways, in turn and in random order.
    pub(super) fn measure(&mut self, rounds: usize, report: &mut Report) -> io::Result<()> {
        let names: Vec<_> = self.ways.iter().map(|way| way.name).collect();
        for order in Order::ALL {
            let work = Work {
                bench: BENCH,
                pattern: format!("{}, {}", self.name, order.name()),
                space: self.path,
                n: RANGES,
                threads: 1,
            };
            report.progress(&work);
            let cases = self.cases(order);
            let batches: Vec<_> = cases.chunks(BATCH).collect();
            let figures = interleaved(rounds, self.ways.len(), |which, round| {
                let way = &mut self.ways[which];
                // The batch before warms the caches, which all other ways have had since.
                way.run(batches[(round + batches.len() - 1) % batches.len()]);
                per_operation(BATCH, || way.run(batches[round % batches.len()]))
            });
            report.add_beside_first(&work, &names, &figures)?;
        }
        Ok(())
    }
}
