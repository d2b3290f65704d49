//! The files of a node's own directory: its keys, made once, for their owner alone.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use cloakroom::RootKey;
use cloakroom_core::store_key::MasterKey;
use cloakroom_core::types::Secret;
use zeroize::Zeroizing;

use crate::config::{Config, StoreUrl};

/// The file of the master key of an embedded store.
const MASTER_KEY: &str = "master.key";
/// The embedded store's own directory.
const STORE: &str = "store";
/// A key's file, in bytes: far more than any key has, far less than a mistake might.
const KEY_FILE_BYTES_MAX: u64 = 4096;

/// Why a node can't use its directory.
#[derive(Debug, thiserror::Error)]
pub enum NodeFilesError {
    /// A file or directory can't be read or made.
    #[error("{}: {cause}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// Others than the owner may read or change a key.
    #[error(
        "{}: others than its owner have access (mode {mode:03o}); run: chmod 600 {}",
        path.display(),
        path.display()
    )]
    TooOpen {
        /// Which file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The file holds no key.
    #[error("{}: {why}", path.display())]
    NoKey {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The store is there and the key that opens it isn't.
    #[error(
        "{}: missing, while {} holds a store that only this key opens; put it back",
        key.display(),
        store.display()
    )]
    MasterKeyLost {
        /// Where the key belongs.
        key: PathBuf,
        /// The store.
        store: PathBuf,
    },
}

/// The master key: the configured one, else the data directory's, made there with a new store.
///
/// `fresh` is 32 random bytes; they are used where a key must be made.
pub fn master_key(config: &Config, fresh: [u8; 32]) -> Result<MasterKey, NodeFilesError> {
    if let Some(key) = &config.master_key {
        return Ok(key.clone());
    }
    if matches!(config.store.url, StoreUrl::Memory) {
        // What it wraps is gone with the process.
        return Ok(MasterKey::from_bytes(fresh));
    }
    let path = config.data_dir.join(MASTER_KEY);
    if let Some(text) = read_key(&path, true)? {
        let why =
            |malformed| NodeFilesError::NoKey { path: path.clone(), why: format!("{malformed}") };
        return MasterKey::parse(text.expose()).map_err(why);
    }
    let store = config.data_dir.join(STORE);
    if fs::read_dir(&store).is_ok_and(|mut entries| entries.next().is_some()) {
        // A new key would lock the operator out and hide what happened.
        return Err(NodeFilesError::MasterKeyLost { key: path, store });
    }
    let key = MasterKey::from_bytes(fresh);
    write_key(&path, key.encode().expose())?;
    Ok(key)
}

/// The node's root API key, if its file is there.
pub fn root_key(config: &Config) -> Result<Option<RootKey>, NodeFilesError> {
    let path = &config.root_api_key_file;
    let Some(text) = read_key(path, path.starts_with(&config.data_dir))? else { return Ok(None) };
    if !text.expose().starts_with("cka_") {
        let why = "holds no API key (those begin with `cka_`)".to_owned();
        return Err(NodeFilesError::NoKey { path: path.clone(), why });
    }
    Ok(Some(RootKey::from_text(text.expose())))
}

/// Keeps a new root API key for this node's operator.
pub fn keep_root_key(config: &Config, key: &RootKey) -> Result<(), NodeFilesError> {
    write_key(&config.root_api_key_file, key.expose_text())
}

/// Makes a directory and its parents, for their owner alone.
pub fn make_dir(path: &Path) -> Result<(), NodeFilesError> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path).map_err(|cause| NodeFilesError::Io { path: path.to_owned(), cause })
}

/// A key's text without its last newline; `None` where there is no file.
///
/// `own` is a file that we made: it must be its owner's alone. One that the operator provides may
/// be readable as their secret store makes it, but nobody else may write it.
fn read_key(path: &Path, own: bool) -> Result<Option<Secret<String>>, NodeFilesError> {
    let io_error = |cause| NodeFilesError::Io { path: path.to_owned(), cause };
    let mut file = match fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io_error(error)),
    };
    check_mode(path, &file.metadata().map_err(io_error)?, own)?;
    let mut text = Zeroizing::new(String::new());
    let mut bounded = io::Read::take(&mut file, KEY_FILE_BYTES_MAX);
    io::Read::read_to_string(&mut bounded, &mut text).map_err(io_error)?;
    Ok(Some(Secret::new(text.trim_end_matches(['\r', '\n']).to_owned())))
}

/// A file's permission bits, where there are any.
#[cfg(unix)]
pub(crate) fn mode(path: &Path) -> Option<u32> {
    fs::metadata(path).ok().map(|found| mode_of(&found))
}

/// A file's permission bits, where there are any.
#[cfg(not(unix))]
pub(crate) fn mode(_: &Path) -> Option<u32> {
    None
}

#[cfg(unix)]
fn mode_of(found: &fs::Metadata) -> u32 {
    std::os::unix::fs::PermissionsExt::mode(&found.permissions()) & 0o777
}

#[cfg(unix)]
fn check_mode(path: &Path, found: &fs::Metadata, own: bool) -> Result<(), NodeFilesError> {
    let mode = mode_of(found);
    let refused = if own { 0o077 } else { 0o022 };
    if mode & refused == 0 {
        Ok(())
    } else {
        Err(NodeFilesError::TooOpen { path: path.to_owned(), mode })
    }
}

#[cfg(not(unix))]
fn check_mode(_: &Path, _: &fs::Metadata, _: bool) -> Result<(), NodeFilesError> {
    Ok(())
}

/// Writes a key once: whole or not at all, 0600, on disk before anything depends on it.
fn write_key(path: &Path, text: &str) -> Result<(), NodeFilesError> {
    let io_error = |cause| NodeFilesError::Io { path: path.to_owned(), cause };
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    make_dir(dir)?;
    let mut file = tempfile::NamedTempFile::new_in(dir).map_err(io_error)?;
    file.write_all(text.as_bytes()).map_err(io_error)?;
    file.write_all(b"\n").map_err(io_error)?;
    file.as_file().sync_all().map_err(io_error)?;
    file.persist_noclobber(path).map_err(|error| io_error(error.error))?;
    fs::File::open(dir).and_then(|dir| dir.sync_all()).map_err(io_error)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn mode_of(path: &Path) -> u32 {
        mode(path).expect("a file")
    }

    #[test]
    fn a_key_is_written_once_for_its_owner_alone() {
        let dir = tempfile::TempDir::new().expect("a directory");
        let path = dir.path().join("new/root.key");
        write_key(&path, "cka_first").expect("written");
        assert_eq!(mode_of(&path), 0o600);
        assert_eq!(mode_of(&dir.path().join("new")), 0o700);
        assert!(write_key(&path, "cka_second").is_err());
        let text = read_key(&path, true).expect("readable").expect("there");
        assert_eq!(text.expose(), "cka_first");
    }

    #[test]
    fn a_key_that_others_can_read_is_refused() {
        let dir = tempfile::TempDir::new().expect("a directory");
        let path = dir.path().join("root.key");
        write_key(&path, "cka_x").expect("written");
        for (mode, own, taken) in [
            (0o600, true, true),
            (0o400, true, true),
            (0o640, true, false),
            (0o604, true, false),
            (0o444, false, true),
            (0o462, false, false),
        ] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("own file");
            assert_eq!(read_key(&path, own).is_ok(), taken, "{mode:o}");
        }
        let error = {
            fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("own file");
            read_key(&path, true).expect_err("too open").to_string()
        };
        assert!(error.contains("chmod 600") && !error.contains("cka_x"), "{error}");
    }
}
