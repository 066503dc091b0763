//! What a run has counted.

use std::fmt;
use std::time::Duration;

use super::access::{Reader, Tally};
use super::counts::{Round, Rounds, Violation, Violations};
use super::waits::Waits;

/// Everything a run has counted.
#[derive(Default, Debug)]
pub struct Report {
    /// What was run.
    pub title: String,
    /// How long it took.
    pub elapsed: Duration,
    /// Accesses of readers, or exits of the guest.
    pub accesses: u64,
    /// Accesses of devices to devices, from within callbacks.
    pub nested: u64,
    /// Accesses of both kinds that reached a device.
    pub answered: u64,
    /// Accesses of both kinds that did not: no device was there.
    pub refused: u64,
    /// Accesses that more changes overtook than are remembered, which is why only the devices judged them.
    pub unjudged: u64,
    /// Reads over the end of a place, which are split; not among the accesses.
    pub splits: u64,
    /// Changes.
    pub rounds: Rounds,
    /// Removals that gave up because a callback did not end in time; they were tried again.
    pub gave_up: u64,
    /// How long accesses took, callbacks included; without those that changed the topology in a callback.
    pub access: Waits,
    /// How long removals took that wait.
    pub removal: Waits,
    /// What did not hold.
    pub violations: Violations,
    /// Further lines.
    pub notes: Vec<String>,
}

impl Report {
    /// Adds the accesses of one thread.
    pub(crate) fn add(&mut self, tally: Tally, reader: &Reader) {
        self.accesses += reader.accesses;
        self.unjudged += reader.unjudged;
        self.splits += reader.splits;
        self.access.add(&reader.waits);
        self.nested += tally.nested;
        self.answered += tally.answered;
        self.refused += tally.refused;
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.elapsed.as_secs_f64();
        writeln!(f, "{}", self.title)?;
        writeln!(
            f,
            "  accesses    {} in {seconds:.1} s, {:.0} a second, and {} nested in them; {} of the {} found a device; {} \
             overtaken",
            self.accesses,
            self.accesses as f64 / seconds,
            self.nested,
            self.answered,
            self.accesses + self.nested,
            self.unjudged
        )?;
        write!(f, "  rounds      {}", self.rounds.total())?;
        let kinds = Round::ALL.iter().filter(|round| self.rounds.of(**round) > 0);
        for (round, before) in kinds.zip([":"].into_iter().chain(std::iter::repeat(","))) {
            write!(f, "{before} {} {round}", self.rounds.of(*round))?;
        }
        writeln!(f, "; {} removals gave up", self.gave_up)?;
        if self.splits > 0 {
            writeln!(f, "  split       {} reads over the end of a place", self.splits)?;
        }
        writeln!(f, "  access      {}", self.access)?;
        writeln!(f, "  removal     {}", self.removal)?;
        for note in &self.notes {
            writeln!(f, "  {note}")?;
        }
        write!(f, "  violations  {}", self.violations.total())?;
        for violation in Violation::ALL.iter().filter(|violation| self.violations.of(**violation) > 0) {
            write!(f, "\n    {:>8} {violation}", self.violations.of(*violation))?;
        }
        Ok(())
    }
}
