//! What the steps of an exit's path are to take.

use std::io::{self, Write};

use super::other_decoders::ICED_WITH_ADDRESS;
use super::step::{BENCH, Order, RANGES};
use super::{
    AS_IT_WAS, DECODE, DISPATCH, EXECUTE, OWN, OWN_ASYMMETRIC, OWN_SVM, OWN_WITH_ADDRESS, TOGETHER, arm64, riscv64,
    x86_mmio, x86_ports,
};
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
    let exit = |name, most, path, way, dispatch| Goal {
        limit: over(Some(most), ns(path, DISPATCH, Order::InTurn, dispatch)),
        ..within(name, most, ns(path, TOGETHER, Order::InTurn, way))
    };
    let decode = |order, way| ns(x86_mmio::PATH, DECODE, order, way);
    let (turn, random) = (Order::InTurn, Order::Random);
    table(&[
        within("decode with the address, in turn: times in 10 ns", 10.0, decode(turn, OWN_WITH_ADDRESS)),
        within("decode with the address, random order: times in 20 ns", 20.0, decode(random, OWN_WITH_ADDRESS)),
        ratio("decode, in turn, as it was", 4.0, over(decode(turn, AS_IT_WAS), decode(turn, OWN))),
        ratio(
            "decode with the address, in turn, iced-x86",
            3.0,
            over(decode(turn, ICED_WITH_ADDRESS), decode(turn, OWN_WITH_ADDRESS)),
        ),
        within("execute, in turn: times in 8 ns", 8.0, ns(x86_mmio::PATH, EXECUTE, turn, OWN)),
        exit("MMIO exit of SVM, in turn: times in 25 ns", 25.0, x86_mmio::PATH, OWN_SVM, OWN),
        exit("the same, asymmetric fence", 25.0, x86_mmio::PATH, OWN_ASYMMETRIC, OWN_ASYMMETRIC),
        exit("port exit of SVM, in turn: times in 8 ns", 8.0, x86_ports::PATH, OWN_SVM, OWN),
        exit("the same, asymmetric fence", 8.0, x86_ports::PATH, OWN_ASYMMETRIC, OWN_ASYMMETRIC),
        exit("exit of Arm, valid syndrome, in turn: times in 10 ns", 10.0, arm64::WITH_SYNDROME, OWN, OWN),
        exit("the same, asymmetric fence", 10.0, arm64::WITH_SYNDROME, OWN_ASYMMETRIC, OWN_ASYMMETRIC),
        exit("exit of RISC-V, htinst, in turn: times in 10 ns", 10.0, riscv64::TRANSFORMED, OWN, OWN),
        exit("the same, asymmetric fence", 10.0, riscv64::TRANSFORMED, OWN_ASYMMETRIC, OWN_ASYMMETRIC),
    ])?;
    writeln!(io::stdout(), "limit: the same of the dispatch alone, with the same fence.")
}
