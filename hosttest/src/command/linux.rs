//! `hosttest linux`

use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use clap::Args;
use hosttest::boot::board::{MAX_CPUS, Setup, with_board};
use hosttest::boot::capture::Capture;
use hosttest::boot::image::{Image, Kernel};
use hosttest::boot::ram::MIB;
use hosttest::boot::run::{Run, run};
use hosttest::linux_guest::initramfs;
use hosttest::linux_guest::shell::{SCRIPT, Shell};
use hosttest::vmm::crew::Crew;

use super::error::CommandError;

#[derive(Args)]
pub(super) struct Arguments {
    #[arg(long, value_name = "FILE")]
    kernel: PathBuf,
    #[arg(long, value_name = "FILE", default_value = "/bin/busybox")]
    busybox: PathBuf,
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=MAX_CPUS as i64))]
    cpus: u16,
    #[arg(long, default_value = "")]
    append: String,
    #[arg(long)]
    run: Vec<String>,
}

pub(super) fn execute(arguments: &Arguments) -> Result<bool, CommandError> {
    let disk = initramfs(SCRIPT, &arguments.busybox, &[]).unwrap_or_default();
    let cmdline = format!("console=ttyS0 panic=-1 lpj=4000000 tsc_early_khz=1000000 nokaslr {}", arguments.append);
    let image = Image::Kernel(Kernel::read(&arguments.kernel, None, &cmdline)?.with_initrd(disk));
    let (console, first, second) = (Capture::new(), Capture::new(), Capture::new());
    let setup = Setup {
        memory: 256 * MIB,
        image: &image,
        serial: &console,
        debug: &console,
        pci_serial: [&first, &second],
        cards: &[],
        trace: None,
    };
    with_board(&setup, |board| {
        let crew = Crew::new();
        let how = Run { cpus: arguments.cpus.into(), limit: Some(Duration::from_secs(200)), starts_again: &|| false };
        board.plug(0).unwrap();
        board.plug(1).unwrap();
        thread::scope(|scope| {
            scope.spawn(|| {
                let shell = Shell::new(&console, board.poll_serial);
                println!("{:?}", shell.wait_until_ready());
                println!("{}", console.output());
                for command in &arguments.run {
                    println!("{command}");
                    match shell.run(command) {
                        Ok(output) => println!("{output}"),
                        Err(error) => println!("{error}"),
                    }
                }
                println!("{}", board.manager.map());
                crew.stop();
            });
            let outcome = run(board, &crew, &how);
            console.end();
            println!("{outcome:?}");
        });
    })?;
    Ok(true)
}
