//! What lies in the directory, and how it is made and opened.
//!
//! ```text
//! lock              held by the process that has it open, with its process id
//! store/format      which format, how many partitions; written once
//! store/mark        up to which tick commits were acknowledged
//! store/data/       the library's files
//! store/N.jnl.torn  a damaged journal, while the store is being opened
//! ```
//!
//! `store/` is made under another name and moved into place when it is whole, so a crash while it
//! is made leaves nothing that looks like a store.

use std::fs::{self, File};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use cloakroom_store::Tick;
use fjall::{CompressionType, Database, Keyspace, KeyspaceCreateOptions, PersistMode};

use crate::error::OpenError;
use crate::lock::DirLock;
use crate::mark::Mark;
use crate::{Options, journal, keys};

/// A store that is open.
pub(crate) struct Disk {
    /// The library's database.
    pub(crate) database: Database,
    /// All tables: one ordered key space, so that they are flushed, recovered and seen as one.
    pub(crate) space: Keyspace,
    /// Up to where commits were acknowledged.
    pub(crate) mark: Mark,
    /// The last tick that was drawn.
    pub(crate) last_tick: Tick,
    /// How many partitions there are.
    pub(crate) partitions: u16,
    /// Held as long as anything here is used; dropped last.
    pub(crate) lock: DirLock,
}

impl Disk {
    /// Opens the store in `dir`; makes it where there is none.
    pub(crate) fn open(dir: &Path, options: &Options) -> Result<Self, OpenError> {
        fs::create_dir_all(dir).map_err(|error| OpenError::io("make", dir, error))?;
        let lock = DirLock::acquire(dir)?;
        let store = dir.join("store");
        if !store.try_exists().map_err(|error| OpenError::io("look for", &store, error))? {
            make(dir, &store, options)?;
        }
        let partitions = read_format(&store.join(FORMAT_FILE))?;
        let (mark, acknowledged) = Mark::open(&store.join(MARK_FILE))?;
        let (database, space, last_tick) = recover(&store, options, acknowledged)?;
        if last_tick < acknowledged {
            let dir = dir.to_owned();
            return Err(OpenError::Lost { dir, acknowledged, found: last_tick });
        }
        Ok(Self { database, space, mark, last_tick, partitions, lock })
    }
}

/// Opens the library's files and says what the last tick is in them.
fn recover(
    store: &Path,
    options: &Options,
    acknowledged: Tick,
) -> Result<(Database, Keyspace, Tick), OpenError> {
    let data = store.join(DATA_FOLDER);
    put_back(store, &data)?;
    let torn = journal::check(&data)?;
    // What was acknowledged may be in the tables already and no more in a journal. Only the library
    // can tell, and it wants the end cut off: so the journal is kept until that is clear.
    let suspect = torn.as_ref().filter(|torn| torn.last_tick < acknowledged);
    let kept = suspect.map(|torn| keep(store, &torn.path)).transpose()?;
    if let Some(torn) = &torn {
        torn.cut()?;
    }
    let opened = open_data(&data, options).and_then(|(database, space)| {
        let last_tick = read_last_tick(&data, &space)?;
        Ok((database, space, last_tick))
    });
    if let (Some(torn), Some(kept)) = (suspect, kept) {
        if !matches!(&opened, Ok((.., last_tick)) if *last_tick >= acknowledged) {
            drop(opened);
            restore(&kept, &torn.path)?;
            return Err(torn.damaged());
        }
        fs::remove_file(&kept).map_err(|error| OpenError::io("remove", &kept, error))?;
        // Before anything is added to the journal: the copy must not come back over it.
        sync_dir(store)?;
    }
    if let Some(torn) = &torn {
        torn.tell();
    }
    opened
}

/// Keeps a journal as it is beside the library's folder; durably, before anything is cut off it.
fn keep(store: &Path, journal: &Path) -> Result<PathBuf, OpenError> {
    let name = journal.file_name().unwrap_or_default().to_string_lossy();
    let kept = store.join(format!("{name}{KEPT_SUFFIX}"));
    // Under its name only when it is whole: what has that name is put back.
    let draft = store.join("draft");
    let copy = || {
        fs::copy(journal, &draft)?;
        File::options().write(true).open(&draft)?.sync_all()?;
        fs::rename(&draft, &kept)
    };
    copy().map_err(|error| OpenError::io("copy", journal, error))?;
    sync_dir(store)?;
    Ok(kept)
}

/// Puts back what an opening kept that was interrupted before it knew.
fn put_back(store: &Path, data: &Path) -> Result<(), OpenError> {
    let failed = |error| OpenError::io("list", store, error);
    for entry in store.read_dir().map_err(failed)? {
        let kept = entry.map_err(failed)?.path();
        let name = kept.file_name().and_then(|name| name.to_str());
        if let Some(journal) = name.and_then(|name| name.strip_suffix(KEPT_SUFFIX)) {
            restore(&kept, &data.join(journal))?;
        }
    }
    Ok(())
}

fn restore(kept: &Path, journal: &Path) -> Result<(), OpenError> {
    fs::rename(kept, journal).map_err(|error| OpenError::io("restore", journal, error))?;
    journal.parent().map_or(Ok(()), sync_dir)?;
    kept.parent().map_or(Ok(()), sync_dir)
}

/// Makes an empty store beside its place and moves it there.
fn make(dir: &Path, store: &Path, options: &Options) -> Result<(), OpenError> {
    let draft = dir.join("store.new");
    match fs::remove_dir_all(&draft) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(OpenError::io("remove", &draft, error));
        }
        Ok(()) | Err(_) => {}
    }
    fs::create_dir(&draft).map_err(|error| OpenError::io("make", &draft, error))?;
    make_data(&draft.join(DATA_FOLDER), options)?;
    write_format(&draft.join(FORMAT_FILE), options.partitions.max(1))?;
    sync_dir(&draft)?;
    fs::rename(&draft, store).map_err(|error| OpenError::io("make", store, error))?;
    sync_dir(dir)
}

fn make_data(data: &Path, options: &Options) -> Result<(), OpenError> {
    let (database, space) = open_data(data, options)?;
    let mut batch = database.batch().durability(Some(PersistMode::SyncAll));
    batch.insert(&space, keys::LAST_TICK, Tick::ZERO.0.to_be_bytes());
    batch.commit().map_err(|error| unusable(data, &error))
}

fn open_data(data: &Path, options: &Options) -> Result<(Database, Keyspace), OpenError> {
    // The library asserts some of what it reads; on damaged files that is a panic. Nothing of it is
    // used any further then.
    let opened = catch_unwind(AssertUnwindSafe(|| {
        let database = Database::builder(data)
            .cache_size(options.cache_bytes)
            // Our look through the journals knows no compressed ones.
            .journal_compression(CompressionType::None)
            // With more than one, the first passes every compaction on to the others, and while
            // they are busy it takes and passes on the same one as fast as it can.
            .worker_threads(1)
            .open()?;
        let space = database.keyspace("cloakroom", || {
            KeyspaceCreateOptions::default().max_memtable_size(options.write_buffer_bytes)
        })?;
        Ok((database, space))
    }));
    opened
        .map_err(|_| OpenError::damaged(data, "the files contradict each other"))?
        .map_err(|error| unusable(data, &error))
}

fn unusable(data: &Path, error: &fjall::Error) -> OpenError {
    match error {
        fjall::Error::Io(error) => OpenError::io("open", data, copy_of(error)),
        other => OpenError::damaged(data, format!("all of the store is affected ({other})")),
    }
}

fn copy_of(error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), error.to_string())
}

fn read_last_tick(data: &Path, space: &Keyspace) -> Result<Tick, OpenError> {
    let bytes = space.get(keys::LAST_TICK).map_err(|error| unusable(data, &error))?;
    let tick = bytes.and_then(|bytes| Some(u64::from_be_bytes((*bytes).try_into().ok()?)));
    tick.map(Tick).ok_or_else(|| OpenError::damaged(data, "it has lost its clock"))
}

/// Writes what was fixed when the store was made.
fn write_format(path: &Path, partitions: u16) -> Result<(), OpenError> {
    let text = format!("{FORMAT_NAME} {FORMAT}\npartitions {partitions}\n");
    let write = || {
        let mut file = File::create_new(path)?;
        io::Write::write_all(&mut file, text.as_bytes())?;
        file.sync_all()
    };
    write().map_err(|error| OpenError::io("write", path, error))
}

/// Reads it: how many partitions there are.
fn read_format(path: &Path) -> Result<u16, OpenError> {
    let text = fs::read_to_string(path).map_err(|error| OpenError::io("read", path, error))?;
    let mut lines = text.lines();
    let strange = || OpenError::damaged(path, "it should name the store's format");
    let found: u32 = member(lines.next(), FORMAT_NAME).ok_or_else(strange)?;
    if found > FORMAT {
        let dir = path.parent().and_then(Path::parent).map_or_else(PathBuf::new, Path::to_owned);
        return Err(OpenError::NewerFormat { dir, found, known: FORMAT });
    }
    let partitions = member(lines.next(), "partitions").ok_or_else(strange)?;
    if partitions == 0 || found == 0 { Err(strange()) } else { Ok(partitions) }
}

fn member<T: std::str::FromStr>(line: Option<&str>, name: &str) -> Option<T> {
    line?.strip_prefix(name)?.strip_prefix(' ')?.parse().ok()
}

/// Makes the names in a directory durable; where directories can't be flushed they are already.
fn sync_dir(dir: &Path) -> Result<(), OpenError> {
    if cfg!(windows) {
        return Ok(());
    }
    let sync = || File::open(dir)?.sync_all();
    sync().map_err(|error| OpenError::io("flush", dir, error))
}

const FORMAT_FILE: &str = "format";
const MARK_FILE: &str = "mark";
const DATA_FOLDER: &str = "data";
/// A damaged journal, while it is found out whether anything is lost by it.
const KEPT_SUFFIX: &str = ".torn";
const FORMAT_NAME: &str = "cloakroom-embedded";

/// The newest format that this release reads and the one it writes.
const FORMAT: u32 = 1;
