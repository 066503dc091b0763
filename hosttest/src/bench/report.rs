//! What was measured, as tables for people, as JSON for programs.

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};

use super::measure::Figure;
use super::this_crate;

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
    /// Of the subject's time to that of this crate with the portable fence, or to the first subject's.
    ratio: f64,
}

/// Collects rows, and says on a terminal how far the work is.
#[derive(Default)]
pub(super) struct Report {
    pub(super) rows: Vec<Row>,
}

impl Report {
    pub(super) fn progress(&self, work: &Work) {
        if io::stderr().is_terminal() {
            eprint!("\r\x1b[K{} {} {} n={} threads={}", work.bench, work.pattern, work.space, work.n, work.threads);
        }
    }

    /// Prints the figures of one piece of work, with their ratios to this crate with the portable fence.
    pub(super) fn add(&mut self, work: &Work, subjects: &[&'static str], figures: &[Figure]) -> io::Result<()> {
        let own = subjects.iter().position(|name| *name == this_crate::PORTABLE);
        self.add_beside(own.and_then(|own| figures.get(own)), work, subjects, figures)
    }

    /// The same, with ratios to the first subject.
    pub(super) fn add_beside_first(
        &mut self,
        work: &Work,
        subjects: &[&'static str],
        figures: &[Figure],
    ) -> io::Result<()> {
        self.add_beside(figures.first(), work, subjects, figures)
    }

    fn add_beside(
        &mut self,
        own: Option<&Figure>,
        work: &Work,
        subjects: &[&'static str],
        figures: &[Figure],
    ) -> io::Result<()> {
        if io::stderr().is_terminal() {
            eprint!("\r\x1b[K");
        }
        let own = own.map_or(f64::NAN, |figure| figure.median);
        let mut out = io::stdout().lock();
        let Work { bench, pattern, space, n, threads } = work;
        writeln!(out, "\n{bench}: {pattern}, {space}, n = {n}, threads = {threads}")?;
        writeln!(out, "  {:<40}{:>10}{:>8}{:>10}{:>12}{:>8}", "ns", "median", "noise", "min", "max", "ratio")?;
        for (subject, figure) in subjects.iter().zip(figures) {
            let Figure { median, min, max, noise } = *figure;
            let ratio = median / own;
            writeln!(out, "  {subject:<40}{median:>10.1}{noise:>7.1}%{min:>10.1}{max:>12.1}{ratio:>8.2}")?;
            self.rows.push(Row { work: work.clone(), subject, figure: *figure, ratio });
        }
        Ok(())
    }

    /// All rows, an object of JSON in each line.
    pub(super) fn json(&self) -> String {
        let mut lines = String::new();
        for Row { work: Work { bench, pattern, space, n, threads }, subject, figure, ratio } in &self.rows {
            let Figure { median, min, max, noise } = figure;
            let number = |value: f64| if value.is_finite() { format!("{value:.3}") } else { "null".into() };
            let (noise, ratio) = (number(*noise), number(*ratio));
            // Nothing fails that writes to a string.
            let _ = writeln!(
                lines,
                "{{\"bench\":\"{bench}\",\"pattern\":\"{pattern}\",\"space\":\"{space}\",\"n\":{n},\
                 \"threads\":{threads},\"subject\":\"{subject}\",\"ns\":{median:.2},\"noise_percent\":{noise},\
                 \"min\":{min:.2},\"max\":{max:.2},\"ratio\":{ratio}}}"
            );
        }
        lines
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
}
