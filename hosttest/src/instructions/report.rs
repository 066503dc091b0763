//! What a run found.

use std::collections::BTreeMap;
use std::fmt;

use vm_device::exit::x86::instruction::Operation;

use super::faults::Oracle;

/// The cases of a run, by what became of them.
#[derive(Default)]
pub struct Report {
    /// All.
    pub cases: u64,
    /// Instructions that the crate decodes, and that the oracles and the processor take as the crate does.
    pub agreed: u64,
    /// Executed by the processor and by the crate.
    pub executed: u64,
    /// Of these: with a fault, which changes nothing.
    pub faulted: u64,
    /// Decoded, and not executed: what the processor cannot be given here.
    pub decoded_only: u64,
    /// What the crate refuses.
    pub refused: u64,
    /// Of these: by the processor too, which was asked.
    pub refused_by_processor: u64,
    /// The processor cleared the upper halves of RCX, RSI or RDI, which no manual says.
    pub upper_halves: u64,
    /// Both operands of MOVS, CMPS, PUSH or POP fault, and the processor reported the other one: no manual says which.
    pub other_order: u64,
    /// How often each operation was executed.
    pub operations: BTreeMap<Operation, u64>,
    pub(super) faults: BTreeMap<(Oracle, &'static str), u64>,
    /// The first of the disagreements, in full.
    pub disagreements: Vec<String>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:>12} cases", self.cases)?;
        writeln!(f, "{:>12} decoded, and taken alike by all judges but for the faults below", self.agreed)?;
        writeln!(
            f,
            "{:>12} executed by the processor and by the crate, {} of them with a fault",
            self.executed, self.faulted
        )?;
        writeln!(
            f,
            "{:>12} decoded only: in FS, in the code itself, or in a mode that cannot be entered here",
            self.decoded_only
        )?;
        writeln!(
            f,
            "{:>12} refused, {} of them by the processor too, which was asked",
            self.refused, self.refused_by_processor
        )?;
        writeln!(
            f,
            "{:>12} the processor: cleared upper halves of RCX, RSI, RDI with 67 and REP, though no element was done",
            self.upper_halves
        )?;
        writeln!(f, "{:>12} the processor: reported the other one of two operands that both fault", self.other_order)?;
        for ((oracle, fault), count) in &self.faults {
            writeln!(f, "{count:>12} {oracle:?}: {fault}")?;
        }
        write!(f, "{:>12} operations executed:", self.operations.len())?;
        for (operation, count) in &self.operations {
            write!(f, " {operation:?} {count}")?;
        }
        writeln!(f)?;
        for disagreement in &self.disagreements {
            writeln!(f, "{disagreement}")?;
        }
        write!(f, "{:>12} disagreements", self.disagreements.len())
    }
}
