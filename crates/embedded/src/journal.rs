//! Looks through the library's journals before the library does.
//!
//! The library reads a journal up to the first entry that makes no sense, cuts off the rest and
//! says nothing. That is right for the torn tail of a crash and wrong for damage in the middle, by
//! which commits would vanish that were acknowledged. So we look first: what follows the last whole
//! batch may only be the unfinished end of the last journal, and everything acknowledged must
//! stand before it. Otherwise nothing is touched and the damage is named.
//!
//! Its checksums don't cover the numbers of the batches either, by which it orders what it reads;
//! so we look whether they grow.
//!
//! Format 3 of a journal, as fjall 3 writes it: batches of `start (1) · u32 count · u64 number`,
//! then that many of `item (2) · u8 type · u8 compression · u64 space · u16, u32, u32 lengths ·
//! key · value`, then `end (3) · u64 XXH3 of the items · "FJL" 3`, little-endian; zeros behind.

use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, Read, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use cloakroom_store::Tick;
use xxhash_rust::xxh3::Xxh3;

use crate::error::OpenError;
use crate::keys;

/// The unfinished end of the last journal.
#[derive(Debug)]
pub(crate) struct Torn {
    /// Of which file.
    pub(crate) path: PathBuf,
    /// Where it begins, in bytes.
    whole_bytes: u64,
    /// The last tick that stands before it in any journal.
    pub(crate) last_tick: Tick,
}

impl Torn {
    /// Cuts it off.
    pub(crate) fn cut(&self) -> Result<(), OpenError> {
        let cut = || {
            let file = OpenOptions::new().write(true).open(&self.path)?;
            file.set_len(self.whole_bytes)?;
            file.sync_all()
        };
        cut().map_err(|error| OpenError::io("shorten", &self.path, error))
    }

    /// Says that it was cut off, once it is clear that nothing acknowledged stood there.
    pub(crate) fn tell(&self) {
        tracing::warn!(
            journal = %self.path.display(),
            from = self.whole_bytes,
            "cut off a commit that was being written when the process or the machine went down; \
             nobody was told that it took effect"
        );
    }

    /// That it isn't just unfinished: something acknowledged stood there.
    pub(crate) fn damaged(&self) -> OpenError {
        damaged(&self.path, self.whole_bytes, self.last_tick)
    }
}

/// Looks through all journals in `dir`. Changes nothing.
pub(crate) fn check(dir: &Path) -> Result<Option<Torn>, OpenError> {
    let mut journals = list(dir)?;
    let Some(path) = journals.pop() else { return Ok(None) };
    let mut last = Last { tick: Tick::ZERO, number: None };
    for sealed in &journals {
        let found = read(sealed, &mut last)?;
        if !found.rest_is_empty {
            return Err(damaged(sealed, found.whole_bytes, last.tick));
        }
    }
    let found = read(&path, &mut last)?;
    let torn = Torn { path, whole_bytes: found.whole_bytes, last_tick: last.tick };
    Ok((!found.rest_is_empty).then_some(torn))
}

/// What the last whole batch so far said.
struct Last {
    tick: Tick,
    number: Option<u64>,
}

impl Last {
    /// Whether a batch can come next: numbers grow, by not much more than one.
    fn may_precede(&self, batch: &Batch) -> bool {
        self.number
            .is_none_or(|last| (1..NUMBERS_SKIPPED_MAX).contains(&batch.number.wrapping_sub(last)))
    }
}

/// What a journal holds.
struct Found {
    /// How many bytes its whole batches take, from the beginning.
    whole_bytes: u64,
    /// Whether there are only zeros behind them.
    rest_is_empty: bool,
}

/// The journals in the order of their numbers.
fn list(dir: &Path) -> Result<Vec<PathBuf>, OpenError> {
    let failed = |error| OpenError::io("list", dir, error);
    let mut journals = Vec::new();
    for entry in dir.read_dir().map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.extension().is_some_and(|extension| extension == "jnl") {
            let number = path.file_stem().and_then(|stem| stem.to_str()?.parse::<u64>().ok());
            let number =
                number.ok_or_else(|| OpenError::damaged(&path, "it has a strange name"))?;
            journals.push((number, path));
        }
    }
    journals.sort();
    Ok(journals.into_iter().map(|(_, path)| path).collect())
}

fn read(path: &Path, last: &mut Last) -> Result<Found, OpenError> {
    let failed = |error| OpenError::io("read", path, error);
    let file = File::open(path).map_err(failed)?;
    let length = file.metadata().map_err(failed)?.len();
    let mut reader = BufReader::with_capacity(BUFFER_BYTES, file);
    let mut found = Found { whole_bytes: 0, rest_is_empty: false };
    while let Some(batch) = read_batch(&mut reader, length - found.whole_bytes).map_err(failed)? {
        if !last.may_precede(&batch) {
            break;
        }
        found.whole_bytes += batch.bytes;
        *last = Last { tick: last.tick.max(batch.tick), number: Some(batch.number) };
    }
    let mut file = reader.into_inner();
    file.seek(SeekFrom::Start(found.whole_bytes)).map_err(failed)?;
    found.rest_is_empty = only_zeros(&mut file).map_err(failed)?;
    Ok(found)
}

/// A whole batch.
struct Batch {
    bytes: u64,
    number: u64,
    tick: Tick,
}

/// Reads a batch of at most `left` bytes; none where there is no whole one.
fn read_batch(reader: &mut impl Read, left: u64) -> io::Result<Option<Batch>> {
    let mut source = Source { reader, left, taken: 0 };
    match source.batch() {
        Ok(batch) => Ok(Some(batch)),
        Err(Stop::NotWhole) => Ok(None),
        Err(Stop::Failed(error)) => Err(error),
    }
}

/// Why reading stopped within a batch.
enum Stop {
    /// What stands there is no whole batch.
    NotWhole,
    /// The file can't be read.
    Failed(io::Error),
}

struct Source<'a, R> {
    reader: &'a mut R,
    left: u64,
    taken: u64,
}

impl<R: Read> Source<'_, R> {
    fn batch(&mut self) -> Result<Batch, Stop> {
        let [tag] = self.take()?;
        if tag != TAG_START {
            return Err(Stop::NotWhole);
        }
        let count = u32::from_le_bytes(self.take()?);
        let number = u64::from_le_bytes(self.take()?);
        let mut sum = Xxh3::new();
        let mut tick = Tick::ZERO;
        for _ in 0..count {
            tick = tick.max(self.item(&mut sum)?);
        }
        let [tag] = self.take()?;
        let expected = u64::from_le_bytes(self.take()?);
        let magic: [u8; 4] = self.take()?;
        if tag != TAG_END || magic != *MAGIC || expected != sum.digest() {
            return Err(Stop::NotWhole);
        }
        Ok(Batch { bytes: self.taken, number, tick })
    }

    /// Reads an item, and the tick where it is the one that bears it.
    fn item(&mut self, sum: &mut Xxh3) -> Result<Tick, Stop> {
        let head: [u8; ITEM_HEAD_BYTES] = self.take()?;
        let [tag, _, _, _, _, _, _, _, _, _, _, k0, k1, _, _, _, _, v0, v1, v2, v3] = head;
        if tag != TAG_ITEM {
            return Err(Stop::NotWhole);
        }
        let key = self.take_many(u64::from(u16::from_le_bytes([k0, k1])))?;
        let value = self.take_many(u64::from(u32::from_le_bytes([v0, v1, v2, v3])))?;
        sum.update(&head);
        sum.update(&key);
        sum.update(&value);
        let tick = (key == keys::LAST_TICK).then(|| value.try_into().map(u64::from_be_bytes));
        Ok(tick.and_then(Result::ok).map_or(Tick::ZERO, Tick))
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], Stop> {
        let mut bytes = [0; N];
        self.count(N as u64)?;
        self.reader.read_exact(&mut bytes).map_err(Stop::Failed)?;
        Ok(bytes)
    }

    fn take_many(&mut self, length: u64) -> Result<Vec<u8>, Stop> {
        // A length that makes no sense mustn't make us reserve for it: the file bounds it.
        self.count(length)?;
        let mut bytes = vec![0; usize::try_from(length).map_err(|_| Stop::NotWhole)?];
        self.reader.read_exact(&mut bytes).map_err(Stop::Failed)?;
        Ok(bytes)
    }

    fn count(&mut self, length: u64) -> Result<(), Stop> {
        self.left = self.left.checked_sub(length).ok_or(Stop::NotWhole)?;
        self.taken += length;
        Ok(())
    }
}

fn only_zeros(file: &mut File) -> io::Result<bool> {
    let zeros = vec![0; BUFFER_BYTES];
    let mut chunk = vec![0; BUFFER_BYTES];
    loop {
        let length = file.read(&mut chunk)?;
        if length == 0 {
            return Ok(true);
        }
        if chunk.get(..length) != zeros.get(..length) {
            return Ok(false);
        }
    }
}

fn damaged(path: &Path, whole_bytes: u64, last_tick: Tick) -> OpenError {
    let problem = format!(
        "what follows byte {whole_bytes} makes no sense, and commits after tick {} stood there \
         that were acknowledged; restore a backup",
        last_tick.0
    );
    OpenError::damaged(path, problem)
}

const TAG_START: u8 = 1;
const TAG_ITEM: u8 = 2;
const TAG_END: u8 = 3;
const MAGIC: &[u8; 4] = b"FJL\x03";

/// Tag, type, compression, space, and the lengths of the key, of the value and of it as stored.
const ITEM_HEAD_BYTES: usize = 1 + 1 + 1 + 8 + 2 + 4 + 4;

/// The library draws numbers for its own ends too, one now and then.
const NUMBERS_SKIPPED_MAX: u64 = 1 << 32;
const BUFFER_BYTES: usize = 256 * 1024;
