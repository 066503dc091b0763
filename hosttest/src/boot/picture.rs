//! The picture of a run: exits over time, by device, one on top of the other.

use std::time::Duration;

use super::summary::{Line, Summary, share};
use crate::svg::{Anchor, Svg};

const WIDTH: f64 = 1000.0;
const HEIGHT: f64 = 480.0;
const LEFT: f64 = 84.0;
const RIGHT: f64 = 700.0;
const TOP: f64 = 76.0;
const BOTTOM: f64 = 420.0;
/// Where the legend's colours begin, its names, and where its counts and shares end.
const LEGEND: f64 = RIGHT + 24.0;
const NAMES: f64 = LEGEND + 20.0;
const COUNTS: f64 = WIDTH - 76.0;
const SHARES: f64 = WIDTH - 20.0;
const LEGEND_LINE: f64 = 24.0;
/// How many letters of a name the legend has room for.
const NAME_LENGTH: usize = 16;

/// How many steps there are at most from left to right.
const STEPS: usize = 154;

/// The colours of devices, the most frequent first: those of Okabe and Ito that are legible on white, as people with any kind of
/// colour vision tell them apart, and two more.
const DEVICES: [&str; 7] = ["#0072b2", "#e69f00", "#009e73", "#56b4e9", "#cc79a7", "#7a5195", "#8c6d31"];
const OTHERS: &str = "#b0b0b0";
const UNCLAIMED: &str = "#d62728";

const INK: &str = " fill=\"#222\"";
const PALE: &str = " fill=\"#666\"";

/// What has a colour of its own.
struct Layer {
    name: String,
    colour: &'static str,
    accesses: u64,
    buckets: Vec<u64>,
}

/// The picture, as the text of an SVG file.
pub fn draw(title: &str, summary: &Summary) -> String {
    let layers = layers(summary);
    let time = Time::new(summary.elapsed, summary.bucket);
    let rates: Vec<Vec<f64>> = layers.iter().map(|layer| time.rates(&layer.buckets)).collect();
    let highest = (0..time.steps).map(|step| rates.iter().map(|rates| rates[step]).sum()).fold(0.0, f64::max);
    let rate = Axis::new(highest, 6);
    let x = |seconds: f64| LEFT + seconds / time.seconds * (RIGHT - LEFT);
    let y = |exits: f64| BOTTOM - exits / rate.end * (BOTTOM - TOP);

    let mut svg = Svg::new(WIDTH, HEIGHT);
    svg.text((20.0, 30.0), Anchor::Start, &format!(" font-size=\"18\" font-weight=\"bold\"{INK}"), title);
    let mean = grouped(summary.exits_per_second().round() as u64);
    let exits = grouped(summary.exits);
    let what = format!("{exits} exits in {:.2?}, {mean} a second; accesses over time, by device", summary.elapsed);
    svg.text((20.0, 52.0), Anchor::Start, &format!(" font-size=\"13\"{PALE}"), &what);

    for exits in rate.ticks() {
        svg.line((LEFT, y(exits)), (RIGHT, y(exits)), " stroke=\"#e4e4e4\"");
        svg.text((LEFT - 8.0, y(exits) + 4.0), Anchor::End, INK, &rate.label(exits));
    }
    let mut below = vec![0.0; time.steps];
    for (layer, rates) in layers.iter().zip(&rates) {
        let above: Vec<f64> = below.iter().zip(rates).map(|(below, rate)| below + rate).collect();
        let mut outline = Vec::new();
        for (step, exits) in above.iter().enumerate() {
            outline.extend([(x(time.start(step)), y(*exits)), (x(time.start(step + 1)), y(*exits))]);
        }
        for (step, exits) in below.iter().enumerate().rev() {
            outline.extend([(x(time.start(step + 1)), y(*exits)), (x(time.start(step)), y(*exits))]);
        }
        svg.polygon(&outline, &format!(" fill=\"{}\" shape-rendering=\"crispEdges\"", layer.colour));
        below = above;
    }
    let axis = " stroke=\"#444\"";
    svg.line((LEFT, BOTTOM), (RIGHT, BOTTOM), axis);
    svg.line((LEFT, TOP), (LEFT, BOTTOM), axis);
    let (unit, seconds_of_unit) = if time.seconds < 1.0 { ("ms", 1e-3) } else { ("s", 1.0) };
    let units = Axis::new(time.seconds / seconds_of_unit, 10);
    // The axis ends where the time does.
    for tick in units.ticks().filter(|tick| tick * seconds_of_unit <= time.seconds) {
        let at = x(tick * seconds_of_unit);
        svg.line((at, BOTTOM), (at, BOTTOM + 5.0), axis);
        svg.text((at, BOTTOM + 20.0), Anchor::Middle, INK, &units.label(tick));
    }
    let middle = (f64::midpoint(LEFT, RIGHT), BOTTOM + 44.0);
    svg.text(middle, Anchor::Middle, PALE, &format!("time since the start ({unit})"));
    let (at, half) = (22.0, f64::midpoint(TOP, BOTTOM));
    let turned = format!("{PALE} transform=\"rotate(-90 {at} {half})\"");
    svg.text((at, half), Anchor::Middle, &turned, "accesses per second");
    legend(&mut svg, &layers);
    svg.finish()
}

fn legend(svg: &mut Svg, layers: &[Layer]) {
    let all = layers.iter().map(|layer| layer.accesses).sum();
    svg.text((COUNTS, TOP + 2.0), Anchor::End, PALE, "accesses");
    svg.text((SHARES, TOP + 2.0), Anchor::End, PALE, "share");
    // In the order in which they lie on each other.
    for (place, layer) in layers.iter().rev().enumerate() {
        let at = TOP + LEGEND_LINE * (place + 1) as f64;
        svg.rect((LEGEND, at - 10.0), (13.0, 13.0), layer.colour);
        svg.text((NAMES, at + 1.0), Anchor::Start, INK, &shortened(&layer.name));
        svg.text((COUNTS, at + 1.0), Anchor::End, INK, &grouped(layer.accesses));
        svg.text((SHARES, at + 1.0), Anchor::End, INK, &format!("{:.1} %", share(layer.accesses, all)));
    }
}

/// From the bottom to the top: the most frequent devices, all others together, and what no device claims.
fn layers(summary: &Summary) -> Vec<Layer> {
    let (unclaimed, rest): (Vec<_>, Vec<_>) =
        summary.lines.iter().partition(|line| !line.is_device && line.name == "unclaimed");
    let (devices, misfits): (Vec<_>, Vec<_>) = rest.into_iter().partition(|line| line.is_device);
    // A colour for one device is better than one for others of which there is one only.
    let named = if devices.len() + misfits.len() <= DEVICES.len() { devices.len() } else { DEVICES.len() };
    let (named, others) = devices.split_at(named.min(devices.len()));
    let mut layers: Vec<_> = named.iter().zip(DEVICES).map(|(line, colour)| sum(&line.name, colour, &[line])).collect();
    let others: Vec<_> = others.iter().copied().chain(misfits).collect();
    match &others[..] {
        [] => {}
        [one] => layers.push(sum(&one.name, OTHERS, &others)),
        several => layers.push(sum(&format!("{} others", several.len()), OTHERS, several)),
    }
    if !unclaimed.is_empty() {
        layers.push(sum("unclaimed", UNCLAIMED, &unclaimed));
    }
    layers
}

fn sum(name: &str, colour: &'static str, lines: &[&Line]) -> Layer {
    let length = lines.iter().map(|line| line.buckets.len()).max().unwrap_or(0);
    let at = |bucket: usize| lines.iter().filter_map(|line| line.buckets.get(bucket)).sum();
    let accesses = lines.iter().map(|line| line.counts.accesses()).sum();
    Layer { name: name.into(), colour, accesses, buckets: (0..length).map(at).collect() }
}

/// The time of the run, in steps of as many buckets each as are needed for no more than [`STEPS`].
struct Time {
    seconds: f64,
    steps: usize,
    /// The buckets of a step.
    buckets: usize,
    step: f64,
}

impl Time {
    fn new(elapsed: Duration, bucket: Duration) -> Self {
        let (elapsed, bucket) = (elapsed.max(Duration::from_nanos(1)), bucket.max(Duration::from_nanos(1)));
        let all = usize::try_from(elapsed.as_nanos().div_ceil(bucket.as_nanos())).unwrap_or(usize::MAX);
        let buckets = all.div_ceil(STEPS);
        let step = bucket.as_secs_f64() * buckets as f64;
        Self { seconds: elapsed.as_secs_f64(), steps: all.div_ceil(buckets), buckets, step }
    }

    /// When a step begins, in seconds; the last one ends with the run.
    fn start(&self, step: usize) -> f64 {
        (step as f64 * self.step).min(self.seconds)
    }

    /// Accesses per second in each step.
    fn rates(&self, buckets: &[u64]) -> Vec<f64> {
        let mut rates = vec![0.0; self.steps];
        for (step, buckets) in buckets.chunks(self.buckets).enumerate().take(self.steps) {
            // The last step may be shorter, but a rate of a moment says nothing.
            let seconds = (self.start(step + 1) - self.start(step)).max(self.step / 4.0);
            rates[step] = buckets.iter().sum::<u64>() as f64 / seconds;
        }
        rates
    }
}

/// An axis from 0 on, with ticks at multiples of 1, 2 or 5 times a power of ten.
struct Axis {
    end: f64,
    tick: f64,
}

impl Axis {
    /// As long as it takes for `highest`, with at most `count` ticks behind 0.
    fn new(highest: f64, count: u32) -> Self {
        let highest = highest.max(1e-9);
        let least = highest / f64::from(count);
        let power = 10f64.powf(least.log10().floor());
        let tick = [1.0, 2.0, 5.0, 10.0].map(|factor| factor * power);
        let tick = tick.into_iter().find(|tick| *tick >= least * (1.0 - 1e-9)).unwrap_or(10.0 * power);
        Self { end: tick * (highest / tick - 1e-9).ceil(), tick }
    }

    fn ticks(&self) -> impl Iterator<Item = f64> {
        let count = (self.end / self.tick).round() as u32;
        (0..=count).map(|number| f64::from(number) * self.tick)
    }

    /// As many decimal places as the ticks have.
    fn label(&self, value: f64) -> String {
        let places = (-self.tick.log10().floor()).clamp(0.0, 9.0) as usize;
        if places == 0 { grouped(value.round() as u64) } else { format!("{value:.places$}") }
    }
}

/// A number with commas between its thousands.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// The end of a path that is too long: it tells it from others.
fn shortened(name: &str) -> String {
    let length = name.chars().count();
    if length <= NAME_LENGTH {
        return name.into();
    }
    let end: String = name.chars().skip(length - (NAME_LENGTH - 1)).collect();
    format!("\u{2026}{end}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vmm::counters::Counts;

    fn line(name: &str, is_device: bool, buckets: Vec<u64>) -> Line {
        let counts = Counts { reads: buckets.iter().sum(), ..Counts::default() };
        Line { name: name.into(), is_device, counts, buckets }
    }

    fn summary(elapsed: Duration, bucket: Duration, lines: Vec<Line>) -> Summary {
        let exits = lines.iter().map(|line| line.counts.reads).sum();
        Summary { exits, elapsed, bucket, lines, missed: Vec::new(), missed_beside: 0 }
    }

    /// A run like the boot of a kernel.
    fn boot(elapsed: f64, devices: usize) -> Summary {
        let bucket = Duration::from_nanos(1 << 23);
        let count = (elapsed / bucket.as_secs_f64()) as u64;
        let names =
            ["/serial", "/rtc", "/i8042", "/pit", "/pci", "/pci/serial@c0000000", "/pm", "/pic", "/ioapic", "/hpet"];
        let mut lines: Vec<_> = (0..devices as u64)
            .map(|device| {
                let at = |bucket: u64| {
                    let wave = (bucket * (device + 3) / 7) % 40 + bucket % (device + 2);
                    let is_on = bucket * 10 / count >= device && (device == 0 || bucket * 10 / count < device + 2);
                    if is_on { wave * 30 / (device + 1) } else { 0 }
                };
                line(names[device as usize], true, (0..count).map(at).collect())
            })
            .collect();
        lines.push(line("unclaimed", false, (0..count).map(|bucket| 200 * u64::from(bucket % 90 < 4)).collect()));
        lines.push(line("straddling", false, vec![3]));
        summary(Duration::from_secs_f64(elapsed), bucket, lines)
    }

    /// The points of all surfaces.
    fn points(svg: &str) -> Vec<(f64, f64)> {
        let lists = svg.split("<polygon points=\"").skip(1).map(|rest| rest.split('"').next().unwrap());
        let points = lists.flat_map(|list| list.split(' ')).map(|point| point.split_once(',').unwrap());
        points.map(|(x, y)| (x.parse().unwrap(), y.parse().unwrap())).collect()
    }

    #[test]
    fn everything_lies_within_the_axes() {
        for (elapsed, devices) in [(0.02, 1), (0.6, 3), (3.3, 10), (4000.0, 8)] {
            let svg = draw("A boot", &boot(elapsed, devices));
            let points = points(&svg);
            assert!(!points.is_empty() && !svg.contains("NaN") && !svg.contains("inf"), "{svg}");
            let is_inside = |(x, y)| (LEFT..=RIGHT).contains(&x) && (TOP..=BOTTOM).contains(&y);
            assert!(points.into_iter().all(is_inside), "{svg}");
        }
    }

    #[test]
    fn nothing_counted_is_a_picture_without_surfaces() {
        let svg = draw("Nothing", &summary(Duration::ZERO, Duration::from_nanos(1 << 20), Vec::new()));
        assert!(!svg.contains("<polygon") && !svg.contains("NaN") && !svg.contains("inf"), "{svg}");
    }

    #[test]
    fn the_devices_beside_the_most_frequent_are_others_and_the_unclaimed_have_a_colour_of_their_own() {
        let all = layers(&boot(3.3, 10));
        let names: Vec<_> = all.iter().map(|layer| layer.name.as_str()).collect();
        assert_eq!(names[..2], ["/serial", "/rtc"]);
        assert_eq!(names[7..], ["4 others", "unclaimed"]);
        let accesses: u64 = all.iter().map(|layer| layer.accesses).sum();
        assert_eq!(accesses, boot(3.3, 10).total().accesses());
        assert_eq!(all.iter().map(|layer| layer.buckets.iter().sum::<u64>()).sum::<u64>(), accesses);
        let few = layers(&boot(3.3, 3));
        assert_eq!(few.iter().map(|layer| layer.name.as_str()).next_back(), Some("unclaimed"));
        assert_eq!((few.len(), few[3].name.as_str(), few[3].colour), (5, "straddling", OTHERS));
    }

    #[test]
    fn a_step_is_as_high_as_its_rate() {
        // 100 accesses in each bucket of 10 ms, the last of which is half over.
        let time = Time::new(Duration::from_millis(9985), Duration::from_millis(10));
        let rates = time.rates(&vec![100; 998]);
        assert!(rates.len() <= STEPS);
        assert!(rates[..rates.len() - 1].iter().all(|rate| (rate - 10_000.0).abs() < 1e-6), "{rates:?}");
    }

    #[test]
    fn ticks_are_round_numbers_up_to_the_highest_value() {
        let ticks = |highest, count| {
            let axis = Axis::new(highest, count);
            axis.ticks().map(|tick| axis.label(tick)).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(ticks(61_234.0, 6), "0 20,000 40,000 60,000 80,000");
        assert_eq!(ticks(5.0, 5), "0 1 2 3 4 5");
        assert_eq!(ticks(3.3, 10), "0.0 0.5 1.0 1.5 2.0 2.5 3.0 3.5");
        assert_eq!(ticks(0.0, 1), "0.000000000 0.000000001");
    }

    #[test]
    fn a_long_path_is_shortened_at_its_beginning() {
        assert_eq!(shortened("/pci/serial"), "/pci/serial");
        assert_eq!(shortened("/pci/bridge/serial@c0000000"), "\u{2026}serial@c0000000");
        assert_eq!(grouped(1_234_567) + " " + &grouped(999) + " " + &grouped(1000), "1,234,567 999 1,000");
    }
}
