//! memtest86+ on the board of `hosttest boot`, with 8 MiB: it finds the memory, has no errors in its first tests, and shows that on
//! the screen. Without `/dev/kvm` or memtest86+ the test counts as ignored; where `CI` is set, as failed.

mod needs;

use std::path::PathBuf;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use hosttest::boot::board::{Board, Setup, with_board};
use hosttest::boot::capture::Capture;
use hosttest::boot::chips::Chips;
use hosttest::boot::image::{Image, Kernel};
use hosttest::boot::ram::MIB;
use hosttest::boot::run::{Ended, Run, run};
use hosttest::vmm::crew::Crew;
use hosttest::vmm::host::kvm;
use libtest_mimic::{Arguments, Failed};

use needs::{Need, test};

fn main() -> ExitCode {
    let (kvm, memtest) = (Need::new("KVM", kvm()), Need::new("memtest86+", image()));
    let trials =
        [("it_finds_no_errors_in_8_mib", Chips::Kvm), ("nor_with_the_crates_interrupt_controllers", Chips::Crate)];
    let trials = trials.map(|(name, chips)| test(name, &[&kvm, &memtest], move || boot(chips)));
    let trials = Vec::from(trials);
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

const LIMIT: Duration = Duration::from_secs(180);
/// The test that has begun when those before it have ended, which take the address lines one by one (0), and write to each word its
/// own address (1).
const NEXT: u32 = 2;

fn image() -> Result<PathBuf, String> {
    let path = std::env::var_os("VM_DEVICE_MEMTEST").map_or("/boot/memtest86+x64.bin".into(), PathBuf::from);
    match path.exists() {
        true => Ok(path),
        false => Err(format!(
            "{} is not there: `apt-get install memtest86+`, or set VM_DEVICE_MEMTEST to a memtest86+x64.bin",
            path.display()
        )),
    }
}

/// What stands on the screen.
struct Screen(Vec<String>);

impl Screen {
    /// The number that follows a label.
    fn number(&self, label: &str) -> Option<u32> {
        let (_, rest) = self.0.iter().find_map(|row| row.split_once(label))?;
        let rest = rest.trim_start();
        let end = rest.find(|character: char| !character.is_ascii_digit()).unwrap_or(rest.len());
        rest[..end].parse().ok()
    }

    fn errors(&self) -> Option<u32> {
        self.number("Errors:")
    }

    fn test(&self) -> Option<u32> {
        self.number("Test #")
    }
}

fn boot(chips: Chips) -> Result<(), Failed> {
    // Without a command line it writes to the screen alone.
    let image = Image::Kernel(Kernel::read(&image()?, None, "")?);
    let serial = Capture::new();
    let setup = Setup {
        memory: 8 * MIB,
        image: &image,
        serial: &serial,
        debug: &serial,
        pci_serial: [&serial; 2],
        cards: &[],
        chips,
        trace: None,
    };
    with_board(&setup, |board| {
        let crew = Crew::new();
        let (outcome, screen) = thread::scope(|scope| {
            let watching = scope.spawn(|| {
                let screen = watch(board);
                crew.stop();
                screen
            });
            (run(board, &crew, &Run { cpus: 1, limit: Some(LIMIT), starts_again: &|| false }), watching.join())
        });
        let screen = screen.map_err(|_| "the one who watches has panicked")?;
        let ended = outcome?.ended;
        let found = (screen.number("Memory  :"), screen.errors(), screen.test() >= Some(NEXT));
        if !matches!(ended, Ended::Stopped { .. }) || found != (Some(8), Some(0), true) {
            return Err(format!("{ended}: {found:?}\n{}", screen.0.join("\n")).into());
        }
        Ok(())
    })?
}

/// Waits until the first tests have ended, or there are errors.
fn watch(board: &Board<'_>) -> Screen {
    let start = Instant::now();
    loop {
        let screen = Screen(board.ram.screen());
        if screen.test() >= Some(NEXT) || screen.errors().is_some_and(|errors| errors > 0) || start.elapsed() > LIMIT {
            return screen;
        }
        thread::sleep(Duration::from_millis(20));
    }
}
