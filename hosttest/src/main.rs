//! The program `hosttest`: runs guests under KVM against `vm-device`. `hosttest --help` says how.

mod command;

use std::process::ExitCode;

fn main() -> ExitCode {
    match command::execute(std::env::args_os()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            hosttest::complain(&error);
            ExitCode::from(error.exit_code())
        }
    }
}
