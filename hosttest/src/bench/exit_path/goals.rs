//! What the steps of an exit's path are to take.

use std::io;

use super::other_decoders::ICED_WITH_ADDRESS;
use super::step::{BENCH, Order, RANGES};
use super::{AS_IT_WAS, DECODE, EXECUTE, OWN, OWN_SVM, OWN_WITH_ADDRESS, TOGETHER, x86_mmio, x86_ports};
use crate::bench::goals::{Goal, table};
use crate::bench::report::Report;

/// Prints each goal. One in nanoseconds is how many times the path goes into them.
pub(super) fn print(report: &Report) -> io::Result<()> {
    let ns = |path, step, order: Order, way| {
        let pattern = format!("{step}, {}", order.name());
        report.find(BENCH, &pattern, path, RANGES, 1, way).map(|row| row.figure.median)
    };
    let over = |a: Option<f64>, b: Option<f64>| Some(a? / b?);
    let ratio = |name, wanted, measured| Goal { name, wanted, measured, limit: None };
    let within = |name, most, measured| ratio(name, 1.0, over(Some(most), measured));
    let decode = |order, way| ns(x86_mmio::PATH, DECODE, order, way);
    let (turn, random) = (Order::InTurn, Order::Random);
    table(&[
        within("decode with the address, in turn: times in 10 ns", 10.0, decode(turn, OWN_WITH_ADDRESS)),
        within("decode with the address, random order: times in 20 ns", 20.0, decode(random, OWN_WITH_ADDRESS)),
        ratio("decode in turn, as it was", 4.0, over(decode(turn, AS_IT_WAS), decode(turn, OWN))),
        ratio(
            "decode with the address, in turn, iced-x86",
            3.0,
            over(decode(turn, ICED_WITH_ADDRESS), decode(turn, OWN_WITH_ADDRESS)),
        ),
        within("execute, in turn: times in 8 ns", 8.0, ns(x86_mmio::PATH, EXECUTE, turn, OWN)),
        within("an MMIO exit of SVM, in turn: times in 25 ns", 25.0, ns(x86_mmio::PATH, TOGETHER, turn, OWN_SVM)),
        within("a port exit of SVM, in turn: times in 8 ns", 8.0, ns(x86_ports::PATH, TOGETHER, turn, OWN_SVM)),
    ])
}
