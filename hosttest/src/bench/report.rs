//! What was measured, as tables for people, as JSON for programs.

use std::fs::File;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::Path;

use super::measure::Figure;
use super::ours;

/// What a group of figures is about.
#[derive(Clone)]
pub(super) struct Work {
    pub(super) bench: &'static str,
    pub(super) pattern: String,
    pub(super) space: &'static str,
    pub(super) n: usize,
    pub(super) threads: usize,
}

/// The figure of one subject.
pub(super) struct Row {
    pub(super) work: Work,
    pub(super) subject: &'static str,
    pub(super) figure: Figure,
}

/// Collects rows, and says on a terminal how far the work is.
pub(super) struct Report {
    pub(super) rows: Vec<Row>,
    json: Option<BufWriter<File>>,
}

impl Report {
    pub(super) fn new(json: Option<&Path>) -> io::Result<Self> {
        let json = json.map(File::create).transpose()?.map(BufWriter::new);
        Ok(Self { rows: Vec::new(), json })
    }

    pub(super) fn progress(&self, work: &Work) {
        if io::stderr().is_terminal() {
            eprint!("\r\x1b[K{} {} {} n={} threads={}", work.bench, work.pattern, work.space, work.n, work.threads);
        }
    }

    /// Prints the figures of one piece of work, and writes them as JSON.
    pub(super) fn add(&mut self, work: &Work, subjects: &[&'static str], figures: &[Figure]) -> io::Result<()> {
        if io::stderr().is_terminal() {
            eprint!("\r\x1b[K");
        }
        let own = subjects.iter().position(|name| *name == ours::PORTABLE);
        let own = own.and_then(|own| figures.get(own)).map_or(f64::NAN, |figure| figure.median);
        let mut out = io::stdout().lock();
        let Work { bench, pattern, space, n, threads } = work;
        writeln!(out, "\n{bench}: {pattern}, {space}, n = {n}, threads = {threads}")?;
        writeln!(out, "  {:<40}{:>10}{:>10}{:>12}{:>8}", "ns", "median", "min", "max", "ratio")?;
        for (subject, figure) in subjects.iter().zip(figures) {
            let Figure { median, min, max } = *figure;
            // Of the subject's time to that of this crate with the portable fence.
            let ratio = median / own;
            writeln!(out, "  {subject:<40}{median:>10.1}{min:>10.1}{max:>12.1}{ratio:>8.2}")?;
            if let Some(json) = &mut self.json {
                writeln!(
                    json,
                    "{{\"bench\":\"{bench}\",\"pattern\":\"{pattern}\",\"space\":\"{space}\",\"n\":{n},\
                     \"threads\":{threads},\"subject\":\"{subject}\",\"ns\":{median:.2},\"min\":{min:.2},\
                     \"max\":{max:.2},\"ratio\":{}}}",
                    if ratio.is_finite() { format!("{ratio:.3}") } else { "null".into() }
                )?;
            }
            self.rows.push(Row { work: work.clone(), subject, figure: *figure });
        }
        Ok(())
    }

    /// The row of a subject for a piece of work.
    pub(super) fn find(
        &self,
        bench: &str,
        pattern: &str,
        space: &str,
        n: usize,
        threads: usize,
        subject: &str,
    ) -> Option<&Row> {
        self.rows.iter().find(|row| {
            let work = &row.work;
            work.bench == bench
                && work.pattern == pattern
                && work.space == space
                && work.n == n
                && work.threads == threads
                && row.subject == subject
        })
    }

    pub(super) fn finish(&mut self) -> io::Result<()> {
        match &mut self.json {
            Some(json) => json.flush(),
            None => Ok(()),
        }
    }
}
