//! The picture: nanoseconds for a random MMIO read against the number of ranges, both axes logarithmic.

use std::fmt::Write;
use std::path::Path;
use std::{fs, io};

use super::report::Report;

const WIDTH: f64 = 960.0;
const HEIGHT: f64 = 560.0;
const LEFT: f64 = 60.0;
const RIGHT: f64 = 700.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 510.0;

/// Where `value` lies between the logarithms of `from` and `to`, on the way from `start` to `end`.
fn along(value: f64, (from, to): (f64, f64), (start, end): (f64, f64)) -> f64 {
    let part = (value.ln() - from.ln()) / (to.ln() - from.ln());
    start + part * (end - start)
}

pub(super) fn draw(report: &Report, file: &Path) -> io::Result<()> {
    let rows: Vec<_> = report
        .rows
        .iter()
        .filter(|row| {
            let work = &row.work;
            (work.bench, work.pattern.as_str(), work.space, work.threads) == ("dispatch", "random", "mmio", 1)
        })
        .collect();
    let largest = rows.iter().map(|row| row.work.n as f64).fold(2.0, f64::max);
    let slowest = rows.iter().map(|row| row.figure.median).fold(2.0, f64::max) * 1.2;
    let x = |n: usize| along(n as f64, (1.0, largest), (LEFT, RIGHT));
    let y = |ns: f64| along(ns.max(1.0), (1.0, slowest), (BOTTOM, TOP));
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{HEIGHT}\" font-family=\"sans-serif\" \
         font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"{LEFT}\" y=\"20\" font-size=\"15\">A 4-byte MMIO read, uniformly random over n ranges, one thread</text>\n"
    );
    let mut text = |part: String| svg.push_str(&part);
    for ns in [1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0].into_iter().filter(|ns| *ns <= slowest) {
        let at = y(ns);
        text(format!("<line x1=\"{LEFT}\" y1=\"{at:.1}\" x2=\"{RIGHT}\" y2=\"{at:.1}\" stroke=\"#ddd\"/>\n"));
        text(format!("<text x=\"{}\" y=\"{at:.1}\" text-anchor=\"end\">{ns} ns</text>\n", LEFT - 6.0));
    }
    let mut sizes: Vec<_> = rows.iter().map(|row| row.work.n).collect();
    sizes.dedup();
    for n in sizes {
        text(format!("<text x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">{n}</text>\n", x(n), BOTTOM + 18.0));
    }
    let mut names: Vec<&str> = Vec::new();
    for row in &rows {
        if !names.contains(&row.subject) {
            names.push(row.subject);
        }
    }
    for (place, name) in names.iter().enumerate() {
        let hue = place * 360 / names.len();
        let ours = name.starts_with("this crate");
        let mut points = String::new();
        for row in rows.iter().filter(|row| row.subject == *name) {
            let _ = write!(points, "{:.1},{:.1} ", x(row.work.n), y(row.figure.median));
        }
        let (width, dash) = if ours { (3, "none") } else { (1, "5 3") };
        let line = format!("stroke=\"hsl({hue},70%,40%)\" stroke-width=\"{width}\" stroke-dasharray=\"{dash}\"");
        let at = TOP + 18.0 * place as f64;
        text(format!("<polyline points=\"{points}\" fill=\"none\" {line}/>\n"));
        text(format!("<line x1=\"{}\" y1=\"{at}\" x2=\"{}\" y2=\"{at}\" {line}/>\n", RIGHT + 15.0, RIGHT + 40.0));
        text(format!("<text x=\"{}\" y=\"{}\">{name}</text>\n", RIGHT + 46.0, at + 4.0));
    }
    svg.push_str("</svg>\n");
    fs::write(file, svg)
}
