//! What tests need beyond the toolchain, and what is said where a machine lacks it.

use std::fmt::Display;

use libtest_mimic::{Completion, Failed, Trial};

/// Something that tests need and a machine may lack.
pub(crate) struct Need {
    what: &'static str,
    is_missing: bool,
}

impl Need {
    /// `found` is an error where it is missing: what to say then, with the command that brings it.
    pub(crate) fn new<T, E: Display>(what: &'static str, found: Result<T, E>) -> Self {
        if let Err(missing) = &found {
            eprintln!("tests that need {what} are not run: {missing}");
        }
        Self { what, is_missing: found.is_err() }
    }
}

/// A test that counts as ignored, and names what it needs, where that is missing. Where `CI` is set it runs all the same,
/// and fails.
pub(crate) fn test(name: &str, needs: &[&Need], run: impl FnOnce() -> Result<(), Failed> + Send + 'static) -> Trial {
    let missing = needs.iter().find(|need| need.is_missing && std::env::var_os("CI").is_none());
    let missing = missing.map(|need| need.what);
    Trial::ignorable_test(name, move || match missing {
        Some(what) => Ok(Completion::ignored_with(format!("it needs {what}: see above"))),
        None => run().map(|()| Completion::Completed),
    })
}
