//! What the program says to command lines, right and wrong.

use std::process::{Command, Output};

fn hosttest(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_hosttest")).args(arguments).output().unwrap()
}

#[test]
fn a_wrong_word_is_named_and_the_exit_code_is_64() {
    for (arguments, word) in [
        (&["bogus"][..], "`bogus`"),
        (&["--bogus"], "'--bogus'"),
        (&["run", "nobody"], "`nobody`"),
        (&["run"], "`run`"),
        (&["run", "--bogus"], "'--bogus'"),
        (&["list", "extra"], "\"extra\""),
    ] {
        let output = hosttest(arguments);
        let message = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(64), "{arguments:?}: {message}");
        assert!(message.contains(word), "{arguments:?}: {message}");
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn help_and_list_need_no_kvm() {
    let help = String::from_utf8(hosttest(&["--help"]).stdout).unwrap();
    assert!(help.contains("run NAME") && help.contains("Exit code"), "{help}");
    let list = hosttest(&["list"]);
    assert_eq!(list.status.code(), Some(0));
    let list = String::from_utf8(list.stdout).unwrap();
    for scenario in hosttest::scenarios::all() {
        assert!(list.contains(scenario.name), "{list}");
    }
}
