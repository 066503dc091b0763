//! The picture: nanoseconds for a dispatch against the number of ranges, both axes logarithmic.

use super::layout::{Pattern, space_name};
use super::options::Plan;
use super::report::{Report, Row};
use crate::svg::{Anchor, Svg};

const LEFT: f64 = 60.0;
const RIGHT: f64 = 700.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 510.0;
/// Where the names begin.
const NAMES: f64 = RIGHT + 46.0;
/// What a letter takes at most, on the average.
const LETTER: f64 = 7.0;
const LINE: f64 = 18.0;
const MARGIN: f64 = 20.0;

/// Where `value` lies between the logarithms of `from` and `to`, on the way from `start` to `end`; half-way if there is only
/// one value.
fn along(value: f64, (from, to): (f64, f64), (start, end): (f64, f64)) -> f64 {
    let part = if from < to { (value.ln() - from.ln()) / (to.ln() - from.ln()) } else { 0.5 };
    start + part * (end - start)
}

/// What was asked for, or random MMIO reads of one thread.
pub(super) fn draw(plan: &Plan, report: &Report) -> String {
    let pattern = plan.pattern.unwrap_or(Pattern::Random).name();
    let space = plan.space.map_or("mmio", space_name);
    let threads = plan.threads.unwrap_or(1);
    let is_shown = |row: &&Row| {
        let work = &row.work;
        (work.bench, work.pattern.as_str(), work.space, work.threads) == ("dispatch", pattern, space, threads)
    };
    let rows: Vec<_> = report.rows.iter().filter(is_shown).collect();
    let what = if space == "pio" { "A 4-byte read of ports" } else { "A 4-byte MMIO read" };
    draw_rows(&format!("{what}, n ranges, pattern `{pattern}`, threads: {threads}"), &rows)
}

fn draw_rows(title: &str, rows: &[&Row]) -> String {
    let mut sizes: Vec<_> = rows.iter().map(|row| row.work.n).collect();
    sizes.dedup();
    let mut names: Vec<&str> = Vec::new();
    for row in rows {
        if !names.contains(&row.subject) {
            names.push(row.subject);
        }
    }
    let smallest = sizes.iter().copied().min().unwrap_or(1) as f64;
    let largest = sizes.iter().copied().max().unwrap_or(1) as f64;
    let slowest = rows.iter().map(|row| row.figure.median).fold(2.0, f64::max) * 1.2;
    let x = |n: usize| along(n as f64, (smallest, largest), (LEFT, RIGHT));
    let y = |ns: f64| along(ns.max(1.0), (1.0, slowest), (BOTTOM, TOP));
    let longest = names.iter().map(|name| name.len()).max().unwrap_or(0) as f64;
    let width = NAMES + LETTER * longest + MARGIN;
    let height = (BOTTOM + 2.0 * MARGIN).max(TOP + LINE * names.len() as f64);

    let mut svg = Svg::new(width, height);
    svg.text((LEFT, 20.0), Anchor::Start, " font-size=\"15\"", title);
    let scale = [1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0, 2000.0, 5000.0];
    for ns in scale.into_iter().filter(|ns| *ns <= slowest) {
        let at = y(ns);
        svg.line((LEFT, at), (RIGHT, at), " stroke=\"#ddd\"");
        svg.text((LEFT - 6.0, at), Anchor::End, "", &format!("{ns} ns"));
    }
    for n in sizes {
        svg.text((x(n), BOTTOM + 18.0), Anchor::Middle, "", &n.to_string());
    }
    for (place, name) in names.iter().enumerate() {
        let colour = format!("hsl({},70%,40%)", place * 360 / names.len());
        let radius = if name.starts_with("this crate") { 3.0 } else { 2.0 };
        let mut points = Vec::new();
        for row in rows.iter().filter(|row| row.subject == *name) {
            let point = (x(row.work.n), y(row.figure.median));
            points.push(point);
            // A line of one point shows nothing.
            svg.circle(point, radius, &colour);
        }
        let (width, dash) = if radius == 3.0 { (3, "none") } else { (1, "5 3") };
        let line = format!(" stroke=\"{colour}\" stroke-width=\"{width}\" stroke-dasharray=\"{dash}\"");
        let at = TOP + LINE * place as f64;
        svg.polyline(&points, &line);
        svg.line((RIGHT + 15.0, at), (RIGHT + 40.0, at), &line);
        svg.text((NAMES, at + 4.0), Anchor::Start, "", name);
    }
    svg.finish()
}

#[cfg(test)]
mod tests {
    use super::super::measure::Figure;
    use super::super::report::Work;
    use super::*;

    fn report(sizes: &[usize], subjects: &[&'static str]) -> Report {
        let mut report = Report::default();
        for n in sizes {
            let work = Work { bench: "dispatch", pattern: "random".into(), space: "mmio", n: *n, threads: 1 };
            let figures: Vec<_> = subjects.iter().map(|_| Figure::of(vec![5.0, 7.0, 9.0])).collect();
            report.add(&work, subjects, &figures).unwrap();
        }
        report
    }

    fn plan() -> Plan {
        Plan { pattern: None, n: None, space: None, threads: None, rounds: 1, processors: vec![0] }
    }

    /// The value of an attribute of the first element that has it behind `from`.
    fn attribute(svg: &str, from: &str, name: &str) -> f64 {
        let (_, rest) = svg.split_once(from).unwrap();
        let (_, rest) = rest.split_once(&format!(" {name}=\"")).unwrap();
        rest.split('"').next().unwrap().parse().unwrap()
    }

    #[test]
    fn one_number_of_ranges_is_shown_as_points_within_the_axes() {
        for n in [1, 64] {
            let svg = draw(&plan(), &report(&[n], &["this crate, handle", "another"]));
            assert_eq!(svg.matches("<circle").count(), 2, "{svg}");
            let (x, y) = (attribute(&svg, "<circle", "cx"), attribute(&svg, "<circle", "cy"));
            assert!((LEFT..=RIGHT).contains(&x) && (TOP..=BOTTOM).contains(&y), "{svg}");
            assert!(!svg.contains("NaN"), "{svg}");
        }
    }

    #[test]
    fn every_measured_point_is_shown() {
        let svg = draw(&plan(), &report(&[1, 8, 64], &["this crate, handle", "another"]));
        assert_eq!(svg.matches("<circle").count(), 6, "{svg}");
    }

    #[test]
    fn the_picture_has_room_for_every_name() {
        let names: &[&'static str] = &["m"; 1];
        let long: &'static str = "a name that is longer than any other one of them all, asymmetric";
        for subjects in [names, &[long]] {
            let svg = draw(&plan(), &report(&[1, 8], subjects));
            // 12 pixels high, 7 wide.
            assert!(attribute(&svg, "<svg", "width") >= NAMES + 7.0 * subjects[0].len() as f64, "{svg}");
        }
        let text: &'static str = "a subject that has one name more with each letter that it loses at its end";
        let many: Vec<&'static str> = (1..=60).map(|length| &text[..length]).collect();
        let svg = draw(&plan(), &report(&[1, 8], &many));
        let (_, last) = svg.rsplit_once("<text").unwrap();
        assert!(attribute(last, "", "y") < attribute(&svg, "<svg", "height"), "{svg}");
    }

    #[test]
    fn what_was_asked_for_is_shown() {
        let asked = Plan { threads: Some(2), ..plan() };
        let svg = draw(&asked, &report(&[8], &["this crate, handle"]));
        assert!(svg.contains("threads: 2") && !svg.contains("<circle"), "{svg}");
    }
}
