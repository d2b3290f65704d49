//! One process a directory.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read as _, Seek as _, Write as _};
use std::path::Path;

use crate::error::OpenError;

/// A directory that is ours until this is dropped or the process ends, however it ends.
///
/// The file `lock` in it is locked and holds our process id. The file itself stays: removing it
/// would let two processes lock two files of that name.
#[derive(Debug)]
pub struct DirLock {
    file: File,
}

impl DirLock {
    /// Takes the directory, which must exist.
    pub fn acquire(dir: &Path) -> Result<Self, OpenError> {
        let path = dir.join(LOCK);
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(|error| OpenError::io("open", &path, error))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let pid = holder(&mut file);
                return Err(OpenError::Locked { dir: dir.to_owned(), pid });
            }
            Err(TryLockError::Error(error)) => return Err(OpenError::io("lock", &path, error)),
        }
        sign(&mut file).map_err(|error| OpenError::io("write", &path, error))?;
        Ok(Self { file })
    }
}

impl Drop for DirLock {
    fn drop(&mut self) {
        // Closing alone would leave the lock to a child that was forked and hasn't begun its own
        // program yet. An error changes nothing: the file is closed next.
        let _ = self.file.unlock();
    }
}

/// Writes our process id in place of whatever stands there.
fn sign(file: &mut File) -> std::io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "{}", std::process::id())
}

/// Whose process id stands there; none between its locking and its writing.
fn holder(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.take(PID_BYTES_MAX).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

const LOCK: &str = "lock";

/// More than any process id has, in bytes.
const PID_BYTES_MAX: u64 = 32;
