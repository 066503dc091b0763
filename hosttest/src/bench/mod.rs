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
pub fn run(_arguments: impl Iterator<Item = String>) -> ExitCode {
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
