//! `bench`: speed beside the peers.

use hosttest::bench::{self, Error};
use lexopt::Parser;

use super::CommandError;

pub(super) fn execute(arguments: &mut Parser) -> Result<bool, CommandError> {
    match bench::run(arguments) {
        Ok(()) => Ok(true),
        Err(Error::Output(error)) => Err(CommandError::Output(error)),
        Err(Error::Kvm(unavailable)) => Err(CommandError::Kvm(unavailable)),
        Err(Error::Usage(error)) => Err(CommandError::Usage(error)),
        Err(error) => {
            eprintln!("hosttest: {error}");
            Ok(false)
        }
    }
}
