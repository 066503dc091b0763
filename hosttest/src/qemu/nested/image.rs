//! The initramfs of the machine: the program, its libraries, what it is to do, and the files that it needs for that.

use std::env;
use std::ffi::{CStr, OsStr, OsString, c_int, c_void};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use super::{MODULES, read_module};
use crate::cpio::Archive;
use crate::elf::loaded_part;
use crate::qemu::Error;

// Where the first process finds it all.
pub(super) const PROGRAM: &str = "/nested/hosttest";
pub(super) const MODULES_DIRECTORY: &str = "/nested/modules";
pub(super) const WORKING_DIRECTORY: &str = "/nested/working-directory";
/// Each ends with a zero byte.
pub(super) const ARGUMENTS: &str = "/nested/arguments";

/// What the loader knows of directories of libraries (ldconfig(8)).
const LIBRARY_CACHE: &str = "/etc/ld.so.cache";
/// The directories that are mounted, or written to.
const EMPTY: [&str; 4] = ["/dev", "/proc", "/sys", "/tmp"];

pub(super) fn initramfs(kernel: &Path, arguments: &[OsString]) -> Result<Vec<u8>, Error> {
    let mut archive = Archive::new();
    EMPTY.iter().for_each(|directory| archive.directory(Path::new(directory)));

    archive.executable(Path::new(PROGRAM), loaded_part(&read(Path::new("/proc/self/exe"))?));
    for library in libraries() {
        archive.executable(&library, &read(&library)?);
    }
    // Where the loader found those that are not in its own directories.
    if let Ok(cache) = fs::read(LIBRARY_CACHE) {
        archive.file(Path::new(LIBRARY_CACHE), &cache);
    }
    for (number, name) in MODULES.iter().enumerate() {
        let path = Path::new(MODULES_DIRECTORY).join(number.to_string());
        archive.file(&path, &read_module(kernel, name)?);
    }

    let here = env::current_dir().map_err(|error| Error::Io("the working directory".into(), error))?;
    archive.directory(&here);
    archive.file(Path::new(WORKING_DIRECTORY), here.as_os_str().as_bytes());
    let ended = arguments.iter().flat_map(|argument| [argument.as_bytes(), b"\0"]);
    archive.file(Path::new(ARGUMENTS), &ended.flatten().copied().collect::<Vec<_>>());
    let mut files: Vec<_> = arguments.iter().filter_map(|argument| named_file(argument)).collect();
    files.sort();
    files.dedup();
    for file in files {
        let data = read(&file)?;
        let absolute = std::path::absolute(&file).map_err(|error| Error::Io(file.display().to_string(), error))?;
        let path = add_way(&mut archive, &absolute);
        archive.file(&path, &data);
    }
    Ok(archive.finish())
}

fn read(file: &Path) -> Result<Vec<u8>, Error> {
    fs::read(file).map_err(|error| Error::Io(file.display().to_string(), error))
}

/// Adds the directories on the way to a file, and returns where the way leads in the archive, in which no directory is a link.
fn add_way(archive: &mut Archive, file: &Path) -> PathBuf {
    let mut path = PathBuf::new();
    for component in file.components() {
        if component == Component::ParentDir {
            archive.directory(&path);
            path.pop();
        } else {
            path.push(component);
        }
    }
    path
}

/// The file that an argument names, if it names one.
fn named_file(argument: &OsStr) -> Option<PathBuf> {
    let whole = argument.as_bytes();
    let value = whole.iter().position(|byte| *byte == b'=').map(|equals| &whole[equals + 1..]);
    [Some(whole), value]
        .into_iter()
        .flatten()
        .map(|name| PathBuf::from(OsStr::from_bytes(name)))
        .find(|path| path.is_file())
}

/// The libraries that this program has loaded, at the paths by which the loader found them, and the loader. A static program has
/// none.
fn libraries() -> Vec<PathBuf> {
    unsafe extern "C" fn add(object: *mut libc::dl_phdr_info, _: libc::size_t, paths: *mut c_void) -> c_int {
        // SAFETY: `dl_iterate_phdr` passes an object that is valid during this call, and passes on the pointer to the vector,
        // which nothing else refers to meanwhile.
        let (object, paths) = unsafe { (&*object, &mut *paths.cast::<Vec<PathBuf>>()) };
        if !object.dlpi_name.is_null() {
            // SAFETY: the name of an object is a string that ends in a zero, and stays while the object is loaded.
            let name = unsafe { CStr::from_ptr(object.dlpi_name) };
            paths.push(PathBuf::from(OsStr::from_bytes(name.to_bytes())));
        }
        0
    }
    let mut paths = Vec::<PathBuf>::new();
    // SAFETY: the function has the signature that is called for, does not unwind but where there is no memory, and gets the
    // pointer that it expects.
    unsafe { libc::dl_iterate_phdr(Some(add), (&raw mut paths).cast()) };
    // The program itself has an empty name, and what the kernel maps has one without a directory.
    paths.retain(|path| path.is_absolute());
    paths
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_argument_names_a_file_by_itself_or_behind_an_equals_sign() {
        let this = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
        let name = this.to_str().unwrap();
        assert_eq!(named_file(OsStr::new(name)), Some(this.clone()));
        assert_eq!(named_file(OsStr::new(&format!("--kernel={name}"))), Some(this.clone()));
        for other in ["--kernel", "--kernel=", "all", "/dev/null", env!("CARGO_MANIFEST_DIR")] {
            assert_eq!(named_file(OsStr::new(other)), None, "{other}");
        }
    }

    #[test]
    fn a_way_with_dots_leads_where_it_leads_in_the_archive() {
        let mut archive = Archive::new();
        assert_eq!(add_way(&mut archive, Path::new("/a/b/../../c/d")), Path::new("/c/d"));
        let archive = archive.finish();
        assert!(archive.windows(4).any(|name| name == b"a/b\0"), "what the way leaves again has to be there");
    }

    #[test]
    fn the_libraries_are_files() {
        for library in libraries() {
            assert!(library.is_file(), "{}", library.display());
        }
    }
}
