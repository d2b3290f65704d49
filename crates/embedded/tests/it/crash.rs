//! A process that is killed at any moment loses nothing that it acknowledged.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use cloakroom_store::Tick;

use crate::world::{Writer, block_on, open, options};

const WRITERS: u16 = 6;

/// More of them: `CLOAKROOM_CRASH_TRIALS=1000 cargo test -p cloakroom-embedded crash`.
fn trials() -> u64 {
    let asked = std::env::var("CLOAKROOM_CRASH_TRIALS").ok();
    asked.and_then(|text| text.parse().ok()).unwrap_or(20)
}

#[test]
fn killed_at_any_moment_it_keeps_all_it_acknowledged() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut acknowledged = BTreeMap::new();
    let mut total = 0;
    for trial in 0..trials() {
        let mut child = child(dir.path(), "crash::writes_until_killed");
        let output = child.stdout.take().expect("its output");
        let reading = std::thread::spawn(move || read_acknowledged(BufReader::new(output)));
        // From before it has made the store to well into its writing.
        std::thread::sleep(Duration::from_millis(20 + trial * 97 % 400));
        child.kill().expect("it is killed");
        child.wait().expect("it is gone");
        for (writer, seen) in reading.join().expect("its output") {
            total += 1;
            acknowledged.insert(writer, seen);
        }
        check(dir.path(), &acknowledged);
    }
    assert!(total > 0, "nothing was ever acknowledged: the trials prove nothing");
}

/// The last number and tick that each writer printed, by partition.
type Acknowledged = BTreeMap<u16, (u64, Tick)>;

fn read_acknowledged(output: impl std::io::BufRead) -> Acknowledged {
    let mut acknowledged = BTreeMap::new();
    for line in output.lines().map_while(Result::ok) {
        // What the test harness prints doesn't begin so; a line that was cut off doesn't end so.
        let words: Vec<&str> = line.split(' ').collect();
        if let ["ack", writer, number, tick, "."] = words[..] {
            let seen = (number.parse().expect("a number"), Tick(tick.parse().expect("a tick")));
            acknowledged.insert(writer.parse().expect("a writer"), seen);
        }
    }
    acknowledged
}

fn check(dir: &Path, acknowledged: &Acknowledged) {
    let store = open(dir);
    for partition in 0..WRITERS {
        let (least, tick) = acknowledged.get(&partition).copied().unwrap_or((0, Tick::ZERO));
        let found = block_on(Writer::resume(&store, partition));
        assert!(found.number >= least, "{found:?} lost {least}");
        let ticks = block_on(found.check(&store));
        assert!(least == 0 || ticks.contains(&tick), "the tick that was acknowledged");
    }
}

/// This test binary, doing only one of its tests, in a directory.
fn child(dir: &Path, test: &str) -> Child {
    command(dir, test).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("a child")
}

fn command(dir: &Path, test: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("this binary"));
    command.args(["--exact", test, "--nocapture"]).env("CLOAKROOM_TEST_CHILD_DIR", dir);
    command
}

fn child_dir() -> Option<std::ffi::OsString> {
    std::env::var_os("CLOAKROOM_TEST_CHILD_DIR")
}

/// The child; nothing by itself.
#[test]
fn writes_until_killed() {
    let Some(dir) = child_dir() else { return };
    let store = Arc::new(open(Path::new(&dir)));
    let runtime = tokio::runtime::Builder::new_multi_thread().build().expect("a runtime");
    let write = async |store: Arc<_>, partition| {
        let mut writer = Writer::resume(&store, partition).await;
        loop {
            let tick = writer.commit(&store, 1 + 4000 * usize::from(partition)).await;
            let line = format!("ack {partition} {} {} .\n", writer.number, tick.0);
            if std::io::stdout().lock().write_all(line.as_bytes()).is_err() {
                return;
            }
        }
    };
    let tasks: Vec<_> = (0..WRITERS)
        .map(|partition| {
            let store = Arc::clone(&store);
            runtime.spawn(async move { write(store, partition).await })
        })
        .collect();
    for task in tasks {
        let _ = runtime.block_on(task);
    }
}

/// A full disk, as a limit on the size of files: the write behind an answer fails.
#[cfg(unix)]
#[test]
fn a_write_that_fails_ends_the_process_and_loses_nothing() {
    use std::os::unix::process::ExitStatusExt as _;

    let dir = tempfile::tempdir().expect("a directory");
    drop(open(dir.path()));
    drop(open(dir.path()));
    let exe = std::env::current_exe().expect("this binary");
    // 512 blocks of 512 or 1024 bytes; ignoring the signal turns it into an error of the write.
    let output = Command::new("sh")
        .args(["-c", "trap '' XFSZ; ulimit -c 0; ulimit -f 512; exec \"$0\" \"$@\""])
        .arg(exe)
        .args(["--exact", "crash::writes_until_killed", "--nocapture"])
        .env("CLOAKROOM_TEST_CHILD_DIR", dir.path())
        .stderr(Stdio::null())
        .output()
        .expect("a child");
    assert_eq!(output.status.signal(), Some(6), "it aborts: {:?}", output.status);
    let acknowledged = read_acknowledged(&output.stdout[..]);
    assert!(!acknowledged.is_empty());
    check(dir.path(), &acknowledged);
}

#[test]
fn another_process_that_has_the_directory_is_named() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut child = child(dir.path(), "crash::writes_until_killed");
    let mut lines = BufReader::new(child.stdout.take().expect("its output")).lines();
    assert!(lines.any(|line| line.is_ok_and(|line| line.starts_with("ack "))));
    let error = cloakroom_embedded::Embedded::open(dir.path(), options()).err();
    let pid = child.id();
    child.kill().expect("it is killed");
    child.wait().expect("it is gone");
    let error = error.expect("it was in use");
    assert!(error.to_string().ends_with(&format!("in use by process {pid}")), "{error}");
    open(dir.path());
}
