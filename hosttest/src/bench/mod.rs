//! Speed beside the peers: `hosttest bench`.
use std::process::ExitCode;
mod layout;
mod measure;
mod ours;
mod peers;
mod schemes;
mod subject;
use layout::*;
use vm_device::IoType;
/// quick
pub fn run(arguments: impl Iterator<Item = String>) -> ExitCode {
    let args: Vec<String> = arguments.collect();
    if args.first().map(|s| s.as_str()) == Some("loop") {
        let io = if args[4] == "pio" { IoType::Pio } else { IoType::Mmio };
        let pattern = *Pattern::ALL.iter().find(|p| p.name() == args[2]).unwrap();
        let layout = Layout::new(io, args[3].parse().unwrap(), pattern.types());
        let mut subjects = vec![];
        subjects.push(schemes::floor(&layout));
        subjects.extend(ours::subjects(&layout));
        subjects.extend(peers::subjects(&layout));
        subjects.extend(schemes::subjects(&layout));
        let s = subjects.iter().find(|s| s.name == args[1]).unwrap();
        let addresses = layout.addresses(pattern, 1 << 12);
        let mut r = (s.reader)();
        for _ in 0..args[5].parse().unwrap() {
            r.read_all(&addresses);
        }
        return ExitCode::SUCCESS;
    }
    let cpus = measure::processors();
    measure::pin(cpus[0]);
    for (io, n, pattern) in [
        (IoType::Mmio, 64, Pattern::Random),
        (IoType::Mmio, 64, Pattern::Same),
        (IoType::Mmio, 1024, Pattern::Random),
        (IoType::Mmio, 64, Pattern::Miss),
        (IoType::Mmio, 8, Pattern::Random),
        (IoType::Pio, 64, Pattern::Random),
        (IoType::Pio, 64, Pattern::Same),
    ] {
        let layout = Layout::new(io, n, 1);
        let mut subjects = vec![];
        if pattern != Pattern::Miss {
            subjects.push(schemes::floor(&layout));
        }
        subjects.extend(ours::subjects(&layout));
        subjects.extend(peers::subjects(&layout));
        subjects.extend(schemes::subjects(&layout));
        let addresses = layout.addresses(pattern, 1 << 16);
        let numbers: Vec<u64> =
            addresses.iter().map(|a| layout.ranges.partition_point(|r| r.0 <= *a) as u64 - 1).collect();
        let mut readers: Vec<_> = subjects.iter().map(|s| (s.reader)()).collect();
        let figures = measure::interleaved(100, subjects.len(), |i, round| {
            measure::one_thread(&mut *readers[i], if subjects[i].knows_range { &numbers } else { &addresses }, round)
        });
        println!("== {io} n={n} {}", pattern.name());
        let ours = figures[subjects.iter().position(|s| s.name == ours::PORTABLE).unwrap()].median;
        for (s, f) in subjects.iter().zip(&figures) {
            println!("{:40} {:7.2} {:7.2} {:7.2}  x{:.2}", s.name, f.median, f.min, f.max, f.median / ours);
        }
    }
    ExitCode::SUCCESS
}
