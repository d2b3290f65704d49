//! Damaged files: an error that names them or what stood before the damage; never a panic, never
//! acknowledged commits that vanish without a word.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use cloakroom_embedded::{Embedded, OpenError};
use cloakroom_store::{Store as _, Tick};

use crate::world::{Writer, block_on, copy, files, open, options};

/// A closed store with some commits, and a place to damage copies of it.
struct Sound {
    dir: tempfile::TempDir,
    files: BTreeMap<PathBuf, Vec<u8>>,
    /// Where each commit ends in the journal, and the tick it has.
    ends: Vec<(usize, Tick)>,
}

const JOURNAL: &str = "store/data/0.jnl";
const MARK: &str = "store/mark";

impl Sound {
    fn new(commits: u64) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        drop(open(&dir.path().join("sound")));
        let mut ends = Vec::new();
        let store = open(&dir.path().join("sound"));
        let mut writer = block_on(Writer::resume(&store, 0));
        let journal = dir.path().join("sound").join(JOURNAL);
        for _ in 0..commits {
            let tick = block_on(writer.commit(&store, 100));
            // Reopened, the journal has no room reserved: it ends where it was written to.
            ends.push((fs::read(&journal).expect("a journal").len(), tick));
        }
        drop(store);
        let files = files(&dir.path().join("sound"));
        Self { dir, files, ends }
    }

    /// A copy with one file changed.
    fn with(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) -> PathBuf {
        let (from, to) = (self.dir.path().join("sound"), self.dir.path().join("copy"));
        let mut files = self.files.clone();
        change(files.get_mut(&from.join(name)).expect("a file of the store"));
        copy(&files, &from, &to);
        to
    }

    /// How many commits stand whole before a byte of the journal.
    fn whole_before(&self, at: usize) -> usize {
        self.ends.iter().filter(|(end, _)| *end <= at).count()
    }
}

fn set_mark(dir: &Path, tick: Tick) {
    let bytes = [tick.0.to_be_bytes(), (!tick.0).to_be_bytes()].concat();
    fs::write(dir.join(MARK), bytes).expect("a file");
}

fn error(dir: &Path) -> OpenError {
    Embedded::open(dir, options()).expect_err("it is damaged")
}

fn commits_in(dir: &Path) -> u64 {
    let store = open(dir);
    let writer = block_on(Writer::resume(&store, 0));
    block_on(writer.check(&store));
    writer.number
}

#[test]
fn acknowledged_commits_that_were_cut_off_are_missed() {
    let sound = Sound::new(12);
    let length = sound.ends[11].0;
    for at in (0..length).step_by(53) {
        let dir = sound.with(JOURNAL, |journal| journal.truncate(at));
        let before = files(&dir);
        let error = error(&dir);
        let known = matches!(error, OpenError::Lost { .. } | OpenError::Damaged { .. });
        assert!(known, "cut at {at}: {error}");
        if matches!(error, OpenError::Damaged { .. }) {
            assert_eq!(files(&dir).get(&dir.join(JOURNAL)), before.get(&dir.join(JOURNAL)));
        }
        // And no second try takes it for sound.
        assert!(Embedded::open(&dir, options()).is_err(), "cut at {at}");
    }
}

#[test]
fn a_changed_byte_amid_acknowledged_commits_is_found() {
    let sound = Sound::new(12);
    let mut refused = 0;
    for at in (0..sound.ends[11].0).step_by(29) {
        let dir = sound.with(JOURNAL, |journal| journal[at] ^= 0x41);
        let before = files(&dir);
        match Embedded::open(&dir, options()) {
            Err(error) => {
                refused += 1;
                assert!(matches!(error, OpenError::Damaged { .. }), "changed at {at}: {error}");
                let journal = dir.join(JOURNAL);
                assert_eq!(files(&dir).get(&journal), before.get(&journal), "changed at {at}");
            }
            // The number of a batch may be another as long as their order is the same.
            Ok(store) => {
                drop(store);
                assert_eq!(commits_in(&dir), 12, "changed at {at}");
            }
        }
    }
    assert!(refused > 200, "only {refused} changes were found");
}

/// As a kill leaves it between the cut and the verdict.
#[test]
fn a_journal_that_an_interrupted_opening_kept_goes_back_first() {
    let sound = Sound::new(6);
    let whole = sound.files[&sound.dir.path().join("sound").join(JOURNAL)].clone();
    let (third, _) = sound.ends[2];
    let mut damaged = whole.clone();
    damaged[third + 40] ^= 0xff;
    for (kept, is_whole) in [(&whole, true), (&damaged, false)] {
        let dir = sound.with(JOURNAL, |bytes| bytes.truncate(third));
        fs::write(dir.join("store/0.jnl.torn"), kept).expect("a file");
        // Half a copy that was never cut for.
        fs::write(dir.join("store/draft"), &kept[..third / 2]).expect("a file");
        if is_whole {
            assert_eq!(commits_in(&dir), 6);
        } else {
            assert!(matches!(error(&dir), OpenError::Damaged { .. }));
            assert_eq!(&fs::read(dir.join(JOURNAL)).expect("a journal"), kept);
        }
        assert!(!dir.join("store/0.jnl.torn").exists());
    }
}

/// The mark is behind after a power loss; the last commit is cut, its pages are zero or garbage.
#[test]
fn a_torn_tail_that_nobody_was_promised_is_cut_off() {
    let sound = Sound::new(12);
    let (begin, end) = (sound.ends[10].0, sound.ends[11].0);
    let torn = |change: &dyn Fn(&mut Vec<u8>)| {
        let dir = sound.with(JOURNAL, change);
        set_mark(&dir, sound.ends[10].1);
        assert_eq!(commits_in(&dir), 11);
        assert_eq!(commits_in(&dir), 11);
        let store = open(&dir);
        let mut writer = block_on(Writer::resume(&store, 0));
        assert!(block_on(writer.commit(&store, 100)) > sound.ends[10].1);
        drop(store);
        assert_eq!(commits_in(&dir), 12);
    };
    for at in (begin + 1..end).step_by(41) {
        torn(&|journal| journal.truncate(at));
        torn(&|journal| journal[at..].fill(0));
        torn(&|journal| journal[at] ^= 0xff);
        torn(&|journal| journal[begin..at].fill(0));
    }
    torn(&|journal| journal[begin..].fill(0xaa));
}

#[test]
fn without_a_mark_the_whole_prefix_is_there() {
    let sound = Sound::new(12);
    for at in (sound.ends[0].0..sound.ends[11].0).step_by(97) {
        let dir = sound.with(JOURNAL, |journal| journal.truncate(at));
        fs::remove_file(dir.join(MARK)).expect("a file");
        assert_eq!(commits_in(&dir), sound.whole_before(at) as u64, "cut at {at}");
    }
}

#[test]
fn a_damaged_mark_is_said() {
    let sound = Sound::new(2);
    let dir = sound.with(MARK, |mark| mark[3] ^= 1);
    let error = error(&dir).to_string();
    assert!(error.contains("mark is damaged"), "{error}");
    fs::remove_file(dir.join(MARK)).expect("a file");
    assert_eq!(commits_in(&dir), 2);
}

#[test]
fn older_files_put_back_are_noticed() {
    let sound = Sound::new(5);
    let dir = sound.with(MARK, |_| {});
    let tick = sound.ends[4].1;
    set_mark(&dir, tick.successor());
    let error = error(&dir);
    assert!(matches!(error, OpenError::Lost { found, .. } if found == tick), "{error}");
    assert!(error.to_string().contains("restore a backup"), "{error}");
}

/// What was acknowledged may stand in the tables alone: then no journal needs to hold it.
#[test]
fn a_journal_is_not_missed_where_the_tables_hold_it() {
    let dir = tempfile::tempdir().expect("a directory");
    let sound = dir.path().join("sound");
    store_with_tables(&sound);
    let mut files = files(&sound);
    files.remove(&sound.join(MARK));
    let torn = files.get_mut(&sound.join(JOURNAL)).expect("the journal");
    torn.truncate(30);
    let torn = torn.clone();
    let copied = dir.path().join("copy");

    copy(&files, &sound, &copied);
    let store = open(&copied);
    let held = block_on(Writer::resume(&store, 0));
    let last = block_on(held.check(&store)).last().copied().expect("some are in the tables");
    drop(store);

    copy(&files, &sound, &copied);
    set_mark(&copied, last);
    assert_eq!(commits_in(&copied), held.number);
    assert!(!copied.join("store/torn.jnl").exists());

    copy(&files, &sound, &copied);
    set_mark(&copied, last.successor());
    for _ in 0..2 {
        let error = error(&copied);
        assert!(matches!(error, OpenError::Damaged { .. }), "{error}");
        assert_eq!(fs::read(copied.join(JOURNAL)).ok().as_ref(), Some(&torn));
        assert!(!copied.join("store/torn.jnl").exists());
    }
}

/// Any byte of any file: the store says so, at opening or at reading, or it holds everything.
#[test]
fn no_damage_of_a_table_passes_for_other_records() {
    let dir = tempfile::tempdir().expect("a directory");
    let sound = dir.path().join("sound");
    let writer = store_with_tables(&sound);
    let sound_files = files(&sound);
    let tables = sound_files.iter().filter(|(path, _)| is_table(path));
    let mut refused = 0;
    for (path, bytes) in tables {
        for at in (0..bytes.len()).step_by(bytes.len() / 40 + 1) {
            let mut damaged = sound_files.clone();
            damaged.get_mut(path).expect("the file")[at] ^= 0x10;
            let copied = dir.path().join("copy");
            copy(&damaged, &sound, &copied);
            let Ok(store) = Embedded::open(&copied, options()) else {
                refused += 1;
                continue;
            };
            match block_on(Writer::find(&store, 0)) {
                Ok(found) => assert_eq!(found.number, writer.number, "{path:?} at {at}"),
                Err(_) => refused += 1,
            }
            assert_eq!(store.partitions(), 8);
        }
    }
    assert!(refused > 0, "no damage was ever met: the test proves nothing");
}

fn store_with_tables(dir: &Path) -> Writer {
    let store = open(dir);
    let mut writer = block_on(Writer::resume(&store, 0));
    while !has_tables(dir) {
        for _ in 0..50 {
            block_on(writer.commit(&store, 3000));
        }
    }
    writer
}

/// A table of ours or of the library's own.
fn is_table(path: &Path) -> bool {
    path.parent().is_some_and(|folder| folder.ends_with("tables"))
}

fn has_tables(dir: &Path) -> bool {
    let tables = dir.join("store/data/keyspaces/1/tables");
    tables.read_dir().is_ok_and(|mut tables| tables.next().is_some())
}
