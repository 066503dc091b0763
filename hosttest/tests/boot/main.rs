//! `hosttest boot` as a user has it: what it says of images and options that are wrong, and of guests that end in each way there is.
//! The guests are a few instructions each. Without `/dev/kvm` those that run one count as ignored; where `CI` is set, as failed.

mod guests;
#[path = "../needs/mod.rs"]
mod needs;

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{FromRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Output, Stdio};
use std::{fs, ptr};

use hosttest::vmm::host::kvm;
use libtest_mimic::{Arguments, Failed, Trial};

use guests::{Code, bz_image, elf, file};
use needs::{Need, test};

/// A test with its name.
type Named = (&'static str, fn() -> Outcome);

fn main() -> ExitCode {
    let kvm = [&Need::new("KVM", kvm())];
    let mut trials: Vec<Trial> = Vec::new();
    let without: [Named; 5] = [
        ("an_option_that_makes_no_sense_is_named", wrong_options),
        ("an_image_that_cannot_be_read_is_named", unreadable_images),
        ("firmware_is_as_large_as_there_is_room_for", firmware_sizes),
        ("without_kvm_it_says_so_and_writes_nothing", no_kvm),
        ("its_help_names_the_exit_codes", help),
    ];
    trials.extend(without.map(|(name, run)| test(name, &[], run)));
    let with: [Named; 17] = [
        ("a_file_that_is_no_kernel_is_named_and_why", no_kernels),
        ("a_kernel_that_does_not_fit_says_how_much_it_takes", too_little_memory),
        ("a_command_line_that_is_too_long_says_so", long_command_line),
        ("a_guest_that_switches_off_has_ended_well", powers_off),
        ("each_kind_of_kernel_finds_its_command_line", entries),
        ("what_is_typed_reaches_the_guest", input),
        ("a_reset_starts_the_guest_again", reset),
        ("without_reboots_a_reset_is_the_end", no_reboot),
        ("a_kernel_that_panics_has_died", panic),
        ("what_was_expected_has_come_whatever_else", expected_panic),
        ("a_triple_fault_is_told_with_its_place", fault),
        ("a_guest_that_does_not_end_is_stopped", timeout),
        ("what_is_expected_ends_the_guest", expected),
        ("an_end_without_what_was_expected_is_a_failure", not_expected),
        ("all_processors_start", processors),
        ("trace_and_picture_are_written_or_nothing_runs", files),
        ("ctrl_a_x_leaves", leaves),
    ];
    trials.extend(with.map(|(name, run)| test(name, &kvm, run)));
    trials.push(test("a_full_output_is_an_error", &kvm, full_output));
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

type Outcome = Result<(), Failed>;

/// The command with these arguments.
fn boot<A: AsRef<OsStr>>(arguments: impl IntoIterator<Item = A>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hosttest"));
    command.arg("boot").args(arguments).stdin(Stdio::null());
    command
}

/// An image, and options after it.
fn with(kind: &str, image: &Path, options: &[&str]) -> Vec<OsString> {
    let image = [OsString::from(kind), image.into()];
    image.into_iter().chain(options.iter().map(OsString::from)).collect()
}

/// Whether the command ends with this exit code, having printed `printed` and complained of `complaint`.
fn expect(command: &mut Command, code: i32, printed: &[&str], complaint: &[&str]) -> Result<String, Failed> {
    let Output { status, stdout, stderr } = command.output()?;
    let (stdout, stderr) = (String::from_utf8_lossy(&stdout).into_owned(), String::from_utf8_lossy(&stderr));
    let missing =
        |text: &str, parts: &[&str]| parts.iter().find(|part| !text.contains(**part)).map(|part| part.to_string());
    let missing = missing(&stdout, printed).or(missing(&stderr, complaint));
    let is_silent = complaint.is_empty() && !stderr.is_empty();
    if status.code() == Some(code) && missing.is_none() && !is_silent && !stderr.contains("panicked") {
        return Ok(stdout);
    }
    let missing = missing.map(|missing| format!(", without {missing:?}")).unwrap_or_default();
    Err(format!("{command:?}: {status}, not {code}{missing}\n{stdout}\n{stderr}").into())
}

/// The same of a command that must have run no guest.
fn refuses(command: &mut Command, code: i32, complaint: &[&str]) -> Outcome {
    let printed = expect(command, code, &[], complaint)?;
    if printed.is_empty() { Ok(()) } else { Err(format!("{command:?} printed {printed:?}").into()) }
}

const NOWHERE: &str = "/nowhere/image";

fn wrong_options() -> Outcome {
    for (arguments, named) in [
        (&[][..], "--firmware <FILE>"),
        (&["--firmware", NOWHERE, "--kernel", NOWHERE], "cannot be used with"),
        (&["--firmware", NOWHERE, "--initrd", NOWHERE], "--initrd <FILE>"),
        (&["--firmware", NOWHERE, "--cmdline", "quiet"], "--cmdline <TEXT>"),
        (&["--kernel", NOWHERE, "--bogus"], "'--bogus'"),
        (&["--kernel", NOWHERE, "--memory", "1"], "--memory"),
        (&["--kernel", NOWHERE, "--memory", "65537"], "--memory"),
        (&["--kernel", NOWHERE, "--cpus", "0"], "--cpus"),
        (&["--kernel", NOWHERE, "--cpus", "17"], "--cpus"),
        (&["--kernel", NOWHERE, "--timeout", "0"], "--timeout"),
        (&["--kernel", NOWHERE, "--expect", ""], "--expect"),
    ] {
        refuses(&mut boot(arguments), 64, &[named])?;
    }
    Ok(())
}

fn unreadable_images() -> Outcome {
    let directory = env!("CARGO_TARGET_TMPDIR");
    for (arguments, complaint) in [
        (&["--firmware", NOWHERE][..], [NOWHERE, "apt-get install seabios"]),
        (&["--kernel", NOWHERE], [NOWHERE, ".ci/debian-kernel"]),
        (&["--firmware", directory], [directory, "directory"]),
        (&["--kernel", directory], [directory, "directory"]),
        (&["--kernel", "/dev/null", "--initrd", NOWHERE], [NOWHERE, "No such file"]),
    ] {
        refuses(&mut boot(arguments), 66, &complaint)?;
    }
    Ok(())
}

fn firmware_sizes() -> Outcome {
    let large = file("large", &[]);
    File::options().write(true).open(&large)?.set_len((8 << 20) + 1)?;
    for (image, size) in [
        (file("empty", b""), "it has 0 bytes"),
        (file("short", &[0xf4; 15]), "it has 15 bytes"),
        (large, "it has 8388609 bytes"),
    ] {
        refuses(&mut boot(with("--firmware", &image, &[])), 65, &[&image.to_string_lossy(), size, "16 to 8388608"])?;
    }
    // It has no end.
    refuses(&mut boot(["--firmware", "/dev/zero"]), 65, &["/dev/zero", "16 to 8388608"])
}

fn no_kvm() -> Outcome {
    let trace = file("kept.trace", b"old");
    let mut command = boot(with("--firmware", &guests::greets(), &["--kvm-device", "/dev/null", "--trace"]));
    refuses(command.arg(&trace), 2, &["/dev/null is not KVM", "mknod"])?;
    if fs::read(&trace)? == b"old" { Ok(()) } else { Err("the trace was emptied, and nothing ran".into()) }
}

fn help() -> Outcome {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hosttest"));
    expect(command.arg("--help"), 0, &["boot", "64 if", "65 if", "66 if"], &[])?;
    expect(&mut boot(["--help"]), 0, &["--firmware <FILE>", "--kernel <FILE>", "--expect <TEXT>"], &[]).map(drop)
}

fn no_kernels() -> Outcome {
    let spin = Code::long().spin();
    let cut = |name: &str, image: PathBuf| -> Result<PathBuf, Failed> {
        let bytes = fs::read(image)?;
        Ok(file(name, &bytes[..bytes.len() - 1]))
    };
    let mut other = fs::read(elf("whole", &spin, false))?;
    // For Arm.
    other[18] = 183;
    let mut bare = fs::read(elf("whole", &spin, false))?;
    bare[56] = 0;
    for (image, why) in [
        (file("empty", b""), "it is empty"),
        (file("letter", b"Dear guest,\n"), "neither a bzImage nor an ELF file"),
        (file("sector", &[0; 512]), "neither a bzImage nor an ELF file"),
        (cut("cut.bz", bz_image("whole.bz", &spin, 0x1000))?, "its header tells of 1040 bytes, and it has 1039"),
        (cut("cut.elf", elf("whole.elf", &spin, false))?, "Unable to read kernel image"),
        (file("arm.elf", &other), "not for this processor"),
        (file("bare.elf", &bare), "nothing of it is to be loaded"),
        (file("head.elf", b"\x7fELF"), "Unable to read elf header"),
        (guests::greets(), "neither a bzImage nor an ELF file"),
    ] {
        refuses(&mut boot(with("--kernel", &image, &[])), 65, &[&image.to_string_lossy(), why])?;
    }
    Ok(())
}

fn too_little_memory() -> Outcome {
    let spin = Code::long().spin();
    let large = bz_image("large.bz", &spin, 64 << 20);
    let small = bz_image("small.bz", &spin, 0x1000);
    let disk = file("disk", &vec![0; 4 << 20]);
    let disk = disk.to_string_lossy();
    for (image, options, needs) in [
        (&large, &["--memory", "32"][..], "32 MiB of memory are too little: kernel and initial RAM disk need 65 MiB"),
        (&small, &["--memory", "4", "--initrd", &disk], "kernel and initial RAM disk need 6 MiB"),
    ] {
        refuses(&mut boot(with("--kernel", image, options)), 64, &[needs, "--memory"])?;
    }
    Ok(())
}

fn long_command_line() -> Outcome {
    let kernel = bz_image("short.bz", &Code::long().power_off(), 0x1000);
    let line = |length| with("--kernel", &kernel, &["--cmdline", &"x".repeat(length)]);
    expect(&mut boot(line(255)), 0, &[], &[])?;
    refuses(&mut boot(line(256)), 64, &["the command line has 256 bytes, and the kernel takes 255", "--cmdline"])
}

fn powers_off() -> Outcome {
    let printed = expect(
        &mut boot(with("--firmware", &guests::greets(), &[])),
        0,
        &["hello\r\n", "Accesses", "/isa/serial", "/isa/pm1", "the guest switched the machine off"],
        &[],
    )?;
    if printed.starts_with("hello") { Ok(()) } else { Err(printed.into()) }
}

fn entries() -> Outcome {
    for image in guests::entries() {
        let options = ["--cmdline", "one two=3 --four", "--memory", "2"];
        let printed = expect(&mut boot(with("--kernel", &image, &options)), 0, &["switched the machine off"], &[])?;
        if !printed.starts_with("one two=3 --four\n") {
            return Err(format!("{}: {printed}", image.display()).into());
        }
    }
    Ok(())
}

fn input() -> Outcome {
    let mut command = boot(with("--firmware", &guests::echoes(), &["--expect", "typed", "--timeout", "60"]));
    command.stdin(File::open(file("input", b"typed"))?);
    expect(&mut command, 0, &["ready\r\ntyped", "The guest printed \"typed\""], &[]).map(drop)
}

fn reset() -> Outcome {
    let mut command = boot(with("--firmware", &guests::resets_once(), &["--timeout", "60"]));
    expect(&mut command, 0, &["first\r\nsecond\r\n", ", reset once before: the guest switched"], &[]).map(drop)
}

fn no_reboot() -> Outcome {
    let mut command = boot(with("--firmware", &guests::resets_always(), &["--no-reboot"]));
    let printed = expect(&mut command, 0, &["the guest reset the machine"], &[])?;
    if printed.matches("again").count() == 1 { Ok(()) } else { Err(printed.into()) }
}

fn panic() -> Outcome {
    let mut command = boot(with("--firmware", &guests::panics(), &["--timeout", "60"]));
    let complaint = ["hosttest: the kernel died: [ 1.0] Kernel panic - not syncing: tiny\n"];
    let printed = expect(&mut command, 1, &[], &complaint)?;
    if printed.matches("not syncing").count() == 1 { Ok(()) } else { Err(printed.into()) }
}

fn expected_panic() -> Outcome {
    let mut command = boot(with("--firmware", &guests::panics(), &["--expect", "not syncing"]));
    expect(&mut command, 0, &["The guest printed \"not syncing\""], &[]).map(drop)
}

fn fault() -> Outcome {
    let mut command = boot(with("--kernel", &guests::faults(), &[]));
    expect(&mut command, 1, &[], &["the guest crashed: processor 0: a triple fault", "at rip 0x100000 "]).map(drop)
}

fn timeout() -> Outcome {
    let mut command = boot(with("--firmware", &guests::spins(), &["--timeout", "1"]));
    expect(&mut command, 1, &["ready\r\n"], &["the guest did not end in time; it is at rip 0x"]).map(drop)
}

fn expected() -> Outcome {
    let mut command = boot(with("--firmware", &guests::spins(), &["--expect", "ready"]));
    expect(&mut command, 0, &["The guest printed \"ready\" after "], &[]).map(drop)
}

fn not_expected() -> Outcome {
    for (image, options, ended) in [
        (guests::greets(), &["--expect", "goodbye"][..], "the guest switched the machine off after "),
        (guests::spins(), &["--expect", "goodbye", "--timeout", "1"], "the guest did not end in time"),
        (guests::resets_always(), &["--expect", "goodbye", "--no-reboot"], "the guest reset the machine after "),
    ] {
        expect(&mut boot(with("--firmware", &image, options)), 1, &[], &[ended, "and has not printed \"goodbye\""])?;
    }
    Ok(())
}

fn processors() -> Outcome {
    let mut command = boot(with("--kernel", &guests::starts_others(3), &["--cpus", "4", "--timeout", "60"]));
    expect(&mut command, 0, &["all there"], &[]).map(drop)
}

fn files() -> Outcome {
    let guest = guests::greets();
    let (trace, picture) = (file("greets.trace", b"old"), file("greets.svg", b"old"));
    let mut command = boot(with("--firmware", &guest, &[]));
    expect(command.arg("--trace").arg(&trace).arg("--svg").arg(&picture), 0, &["hello"], &[])?;
    let (trace, picture) = (fs::read_to_string(trace)?, fs::read_to_string(picture)?);
    let first = "vcpu 0 port write 0x3f8 1 68 /isa/serial ok\n";
    let last = "vcpu 0 port write 0x604 2 0020 /isa/pm1 ok\n";
    if !trace.starts_with(first) || !trace.ends_with(last) {
        return Err(trace.into());
    }
    if !picture.starts_with("<svg") || !picture.contains("/isa/serial") || !picture.contains("Boot of greets") {
        return Err(picture.into());
    }
    for option in ["--trace", "--svg"] {
        for nowhere in [NOWHERE, env!("CARGO_TARGET_TMPDIR")] {
            let complaint = format!("`{nowhere}` cannot be written: ");
            refuses(&mut boot(with("--firmware", &guest, &[option, nowhere])), 1, &[&complaint])?;
        }
    }
    expect(
        &mut boot(with("--firmware", &guest, &["--trace", "/dev/full"])),
        1,
        &[],
        &["`/dev/full` cannot be written"],
    )?;
    Ok(())
}

fn full_output() -> Outcome {
    let mut command = boot(with("--firmware", &guests::greets(), &[]));
    let output = command.stdout(File::options().write(true).open("/dev/full")?).stderr(Stdio::piped()).output()?;
    let complaint = String::from_utf8_lossy(&output.stderr);
    match output.status.code() {
        Some(1) if complaint.contains("cannot write to the standard output: No space left on device") => Ok(()),
        code => Err(format!("{code:?}: {complaint}").into()),
    }
}

/// The user's side of a pseudo-terminal, and the program's.
fn pseudo_terminal() -> Result<(File, OwnedFd), Failed> {
    let (mut user, mut program) = (0, 0);
    // SAFETY: both numbers are written, and the other pointers may be null.
    let opened = unsafe { libc::openpty(&mut user, &mut program, ptr::null_mut(), ptr::null(), ptr::null()) };
    if opened != 0 {
        return Err(std::io::Error::last_os_error().into());
    }
    // SAFETY: nobody else has them.
    Ok(unsafe { (File::from_raw_fd(user), OwnedFd::from_raw_fd(program)) })
}

fn leaves() -> Outcome {
    let (mut user, program) = pseudo_terminal()?;
    let mut command = boot(with("--firmware", &guests::echoes(), &["--timeout", "60"]));
    command.stdin(program.try_clone()?).stdout(program.try_clone()?).stderr(program);
    let mut child = command.spawn()?;
    drop(command);
    // Both go to the guest as they are, Ctrl-C too.
    let mut seen = read_until(&mut user, "ready")?;
    user.write_all(b"key\x03\r")?;
    seen += &read_until(&mut user, "key\x03\r")?;
    user.write_all(b"\x01x")?;
    let status = child.wait()?;
    // A terminal that nobody has open gives an error at its end.
    let mut rest = Vec::new();
    let _ = user.read_to_end(&mut rest);
    seen += &String::from_utf8_lossy(&rest);
    if status.code() == Some(0) && seen.contains("the guest was stopped") {
        return Ok(());
    }
    Err(format!("{status}: {seen}").into())
}

/// What comes up to a text. The guest ends by its time-out if the text does not come.
fn read_until(user: &mut File, text: &str) -> Result<String, Failed> {
    let mut seen = Vec::new();
    let mut bytes = [0; 64];
    while !String::from_utf8_lossy(&seen).contains(text) {
        let count = user.read(&mut bytes).map_err(|error| format!("{error}: {}", String::from_utf8_lossy(&seen)))?;
        seen.extend_from_slice(&bytes[..count]);
    }
    Ok(String::from_utf8_lossy(&seen).into_owned())
}
