//! The key of an embedded store, in a file of its owner's alone.

use std::fs;
use std::io::Write as _;
use std::path::Path;

use cloakroom_core::store_key::MasterKey;
use cloakroom_core::types::Secret;

use super::StartError;

/// The embedded store's own directory, in the data directory.
pub(super) const STORE: &str = "store";
const MASTER_KEY: &str = "master.key";

/// The key in `dir`, made there with a new store of `fresh` bytes.
pub(super) fn master_key(dir: &Path, fresh: [u8; 32]) -> Result<MasterKey, StartError> {
    let path = dir.join(MASTER_KEY);
    let failed = |why: String| StartError::File { path: path.clone(), why };
    match fs::read_to_string(&path) {
        Ok(text) => {
            let text = Secret::new(text);
            check_mode(&path)?;
            return MasterKey::parse(text.expose().trim_end_matches(['\n', '\r']))
                .map_err(|malformed| failed(malformed.to_string()));
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed(error.to_string())),
    }
    if fs::read_dir(dir.join(STORE)).is_ok_and(|mut entries| entries.next().is_some()) {
        let why = "missing, while a store is there that only this key opens; put it back";
        return Err(failed(why.to_owned()));
    }
    let key = MasterKey::from_bytes(fresh);
    write(dir, &path, key.encode().expose()).map_err(|error| failed(error.to_string()))?;
    Ok(key)
}

#[cfg(unix)]
fn check_mode(path: &Path) -> Result<(), StartError> {
    use std::os::unix::fs::PermissionsExt as _;
    let failed = |why: String| StartError::File { path: path.to_owned(), why };
    let mode = fs::metadata(path).map_err(|error| failed(error.to_string()))?.permissions().mode();
    if mode & 0o077 == 0 {
        Ok(())
    } else {
        Err(failed(format!("others than its owner have access (mode {:03o})", mode & 0o777)))
    }
}

#[cfg(not(unix))]
fn check_mode(_: &Path) -> Result<(), StartError> {
    Ok(())
}

/// A reader never sees half a key: it is written beside its place and moved there.
fn write(dir: &Path, path: &Path, text: &str) -> std::io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(dir)?;
    let beside = path.with_extension("new");
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(&beside)?;
    file.write_all(text.as_bytes())?;
    file.write_all(b"\n")?;
    file.sync_all()?;
    fs::rename(&beside, path)?;
    fs::File::open(dir)?.sync_all()
}
