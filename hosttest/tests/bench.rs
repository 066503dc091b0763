//! The benchmark as a program: the build under test runs it, which is one without optimisation unless asked for.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::{env, fs, process};

fn bench(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_hosttest")).arg("bench").args(arguments).output().unwrap()
}

/// An empty directory of a test's own.
fn directory(test: &str) -> PathBuf {
    let directory = env::temp_dir().join(format!("hosttest-bench-{test}-{}", process::id()));
    fs::create_dir_all(&directory).unwrap();
    directory
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn assert_passed(output: &Output) {
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}: {stderr}\n{stdout}", output.status);
    assert!(stdout.contains("noise") && stdout.contains("this crate, handle, again"), "{stdout}");
}

#[test]
fn a_short_run_ends_well_and_writes_what_it_found() {
    let directory = directory("short");
    let (json, svg) = (directory.join("out.json"), directory.join("out.svg"));
    fs::write(&json, "old").unwrap();
    let asked = ["--quick", "--n", "8", "--pattern", "same", "--threads", "1"];
    let files = ["--json", text(&json), "--svg", text(&svg)];
    assert_passed(&bench(&[&asked[..], &files].concat()));
    let json = fs::read_to_string(json).unwrap();
    assert!(json.lines().count() > 20, "{json}");
    for line in json.lines() {
        assert!(
            line.starts_with("{\"bench\":") && line.contains("\"noise_percent\":") && line.ends_with('}'),
            "{line}"
        );
    }
    assert!(fs::read_to_string(svg).unwrap().contains("<circle"));
    fs::remove_dir_all(directory).unwrap();
}

#[test]
fn everything_is_measured_on_a_small_stack() {
    // A quarter of what Linux gives a program.
    let script = format!("ulimit -s 2048 && exec '{}' bench --rounds 1 --n 4", env!("CARGO_BIN_EXE_hosttest"));
    let output = Command::new("sh").args(["-c", &script]).output().unwrap();
    assert_passed(&output);
    let stdout = String::from_utf8_lossy(&output.stdout);
    for part in ["\nregister: fill", "\nrelocate: ", "\nallocate: ", "\ngoal", "\nbounds"] {
        assert!(stdout.contains(part), "{part}: {stdout}");
    }
}

#[test]
fn every_step_of_an_exit_is_measured_on_each_processor() {
    let directory = directory("exits");
    let json = directory.join("out.json");
    let output = bench(&["exit-path", "--rounds", "1", "--json", text(&json)]);
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{}: {}", output.status, String::from_utf8_lossy(&output.stderr));
    let paths =
        ["x86 pio", "x86 mmio", "arm64 mmio, valid syndrome", "riscv64 mmio, htinst", "riscv64 mmio, no htinst"];
    for path in paths {
        for step in ["numbers", "dispatch", "execute", "together"] {
            for order in ["in turn", "random order"] {
                let title = format!("\nexit path: {step}, {order}, {path}, ");
                assert!(stdout.contains(&title), "{title}: {stdout}");
            }
        }
    }
    for part in ["as it was", "iced-x86", "yaxpeax-x86", "yaxpeax-arm", "raki", "\ngoal", "times in 25 ns"] {
        assert!(stdout.contains(part), "{part}: {stdout}");
    }
    let json = fs::read_to_string(json).unwrap();
    assert!(json.lines().all(|line| line.starts_with("{\"bench\":\"exit path\",")), "{json}");
    fs::remove_dir_all(directory).unwrap();
}

#[test]
fn one_step_of_an_exit_is_repeated_and_one_that_there_is_not_is_refused() {
    let step = ["exit-loop", "x86 mmio", "decode", "this crate"];
    let output = bench(&[&step[..], &["random", "1"]].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let output = bench(&["exit-loop", "x86 mmio", "guess", "this crate", "turn", "1"]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(64), "{stderr}");
    assert!(stderr.contains("x86 mmio: decode: this crate\n"), "{stderr}");
}

#[test]
fn a_file_that_cannot_be_written_is_named_before_anything_is_measured() {
    let directory = directory("unwritable");
    let missing = directory.join("missing/out");
    for option in ["--json", "--svg"] {
        for file in [&missing, &directory] {
            let output = bench(&["--quick", "--n", "1", "--pattern", "same", option, text(file)]);
            let stderr = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(1), "{stderr}");
            assert!(stderr.contains(text(file)), "{stderr}");
            assert!(output.stdout.is_empty(), "it measured first");
        }
    }
    fs::remove_dir_all(directory).unwrap();
}

#[test]
fn what_makes_no_sense_is_refused_before_anything_is_measured() {
    for (arguments, word) in [
        (&["--pattern", "cold", "--threads", "2"][..], "cold"),
        (&["--threads", "3"], "3"),
        (&["--space", "nowhere"], "'nowhere'"),
        (&["--n", "0"], "0"),
        (&["--rounds", "0"], "0"),
        (&["--json", "x", "--svg", "x"], "same file"),
    ] {
        let output = bench(arguments);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(64), "{arguments:?}: {stderr}");
        assert!(stderr.contains(word) && output.stdout.is_empty(), "{arguments:?}: {stderr}");
    }
}
