//! Files for results: whether they can be written is known before anything is run, and one that is there already stays as it is
//! until the new one is whole.

use std::error;
use std::ffi::OsString;
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process;

/// A file cannot be written.
#[derive(Debug)]
pub struct Unwritable {
    /// As the user named it.
    named: PathBuf,
    error: io::Error,
}

impl Unwritable {
    /// Why `named` cannot be written.
    pub fn new(named: &Path, error: io::Error) -> Self {
        Self { named: named.into(), error }
    }
}

impl fmt::Display for Unwritable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` cannot be written: {}", self.named.display(), self.error)
    }
}

impl error::Error for Unwritable {}

/// Opens a file that is written little by little. What is in it is gone then.
///
/// # Errors
/// It cannot be written.
pub fn create(named: &Path) -> Result<File, Unwritable> {
    File::create(named).map_err(|error| Unwritable::new(named, error))
}

/// A file that results go to.
pub struct Output {
    /// As the user named it.
    named: PathBuf,
    to: Destination,
}

enum Destination {
    /// What cannot be replaced, as a pipe or a terminal.
    Stream(File),
    /// A file that another one, whole, takes the place of.
    File { path: PathBuf, temporary: PathBuf },
}

impl Output {
    /// Sees that the file can be written.
    ///
    /// # Errors
    /// It cannot.
    pub fn new(named: &Path) -> Result<Self, Unwritable> {
        let to = Destination::of(named).map_err(|error| Unwritable::new(named, error))?;
        Ok(Self { named: named.into(), to })
    }

    /// Writes all of it. A file that was there is replaced.
    ///
    /// # Errors
    /// It cannot be written after all; a file that was there stays.
    pub fn write(self, contents: &str) -> Result<(), Unwritable> {
        self.to.write(contents).map_err(|error| Unwritable { named: self.named, error })
    }
}

impl Destination {
    fn of(named: &Path) -> io::Result<Self> {
        let path = match fs::canonicalize(named) {
            Ok(path) => {
                // A directory, and a file that may not be written, say so here.
                let there = OpenOptions::new().write(true).open(&path)?;
                if !there.metadata()?.is_file() {
                    return Ok(Self::Stream(there));
                }
                path
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => named.into(),
            Err(error) => return Err(error),
        };
        let Some(name) = path.file_name() else { return Err(io::ErrorKind::IsADirectory.into()) };
        let mut hidden = OsString::from(".");
        hidden.push(name);
        hidden.push(format!(".{}", process::id()));
        let temporary = path.with_file_name(hidden);
        OpenOptions::new().write(true).create_new(true).open(&temporary)?;
        fs::remove_file(&temporary)?;
        Ok(Self::File { path, temporary })
    }

    fn write(self, contents: &str) -> io::Result<()> {
        match self {
            Self::Stream(mut stream) => stream.write_all(contents.as_bytes()),
            Self::File { path, temporary } => {
                let written = replace(&path, &temporary, contents);
                if written.is_err() {
                    // What matters is why it was not written; a rest that stays is hidden and small.
                    let _ = fs::remove_file(&temporary);
                }
                written
            }
        }
    }
}

fn replace(path: &Path, temporary: &Path, contents: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).open(temporary)?;
    if let Ok(metadata) = fs::metadata(path) {
        file.set_permissions(metadata.permissions())?;
    }
    file.write_all(contents.as_bytes())?;
    file.sync_all()?;
    fs::rename(temporary, path)
}

#[cfg(test)]
mod tests {
    use std::env;

    use super::*;

    /// An empty directory of a test's own.
    fn directory(test: &str) -> PathBuf {
        let directory = env::temp_dir().join(format!("hosttest-output-{test}-{}", process::id()));
        fs::create_dir_all(&directory).unwrap();
        directory
    }

    fn entries(directory: &Path) -> usize {
        fs::read_dir(directory).unwrap().count()
    }

    #[test]
    fn a_file_stays_as_it_is_until_the_new_one_is_whole() {
        let directory = directory("whole");
        let file = directory.join("old");
        fs::write(&file, "old").unwrap();
        let output = Output::new(&file).unwrap();
        assert_eq!((fs::read_to_string(&file).unwrap().as_str(), entries(&directory)), ("old", 1));
        output.write("new").unwrap();
        assert_eq!((fs::read_to_string(&file).unwrap().as_str(), entries(&directory)), ("new", 1));

        let output = Output::new(&directory.join("other")).unwrap();
        assert_eq!(entries(&directory), 1, "nothing is there before there are results");
        output.write("new").unwrap();
        assert_eq!(entries(&directory), 2);
        fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn a_file_that_became_unwritable_is_left_as_it_is() {
        let directory = directory("left");
        let file = directory.join("old");
        fs::write(&file, "old").unwrap();
        let output = Output::new(&file).unwrap();
        let Destination::File { temporary, .. } = &output.to else { panic!("it is a file") };
        // In the way of the new one.
        fs::create_dir(temporary).unwrap();
        let error = output.write("new").unwrap_err().to_string();
        assert!(error.contains(&*file.to_string_lossy()), "{error}");
        assert_eq!(fs::read_to_string(&file).unwrap(), "old");
        fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn a_link_leads_to_the_file_that_is_replaced() {
        let directory = directory("link");
        let (file, link) = (directory.join("file"), directory.join("link"));
        fs::write(&file, "old").unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        Output::new(&link).unwrap().write("new").unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "new");
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn what_is_no_file_is_written_and_not_replaced() {
        let null = Path::new("/dev/null");
        Output::new(null).unwrap().write("new").unwrap();
        assert!(!fs::metadata(null).unwrap().is_file());
    }

    #[test]
    fn what_cannot_be_written_is_named_at_once() {
        let directory = directory("named");
        for path in [directory.clone(), directory.join("missing/file"), directory.join("missing/..")] {
            let Err(error) = Output::new(&path).map(drop) else { panic!("{path:?} can be written") };
            assert!(error.to_string().contains(&*path.to_string_lossy()), "{error}");
        }
        fs::remove_dir_all(directory).unwrap();
    }
}
