//! A run that somebody ends early leaves nothing behind.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::skips;

/// Waits for what must come within half a minute.
fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < Duration::from_secs(30), "in vain: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// The processes whose working files, directory or program are in a directory.
fn processes_of(dir: &Path) -> usize {
    let dir = dir.canonicalize().expect("a directory");
    let all = fs::read_dir("/proc").expect("processes").flatten();
    let is_of = |process: &fs::DirEntry| {
        let arguments = fs::read(process.path().join("cmdline")).unwrap_or_default();
        let names = String::from_utf8_lossy(&arguments).into_owned();
        let open = fs::read_dir(process.path().join("fd")).into_iter().flatten().flatten();
        let mut open = open.filter_map(|file| fs::read_link(file.path()).ok());
        names.contains(&*dir.to_string_lossy()) || open.any(|file| file.starts_with(&dir))
    };
    let number = |process: &fs::DirEntry| process.file_name().to_string_lossy().parse::<u32>();
    all.filter(|process| number(process).is_ok() && is_of(process)).count()
}

#[test]
fn a_run_that_is_ended_early_leaves_no_process_and_no_file() {
    let dir = tempfile::tempdir().expect("a directory");
    let temporary = dir.path().join("tmp");
    fs::create_dir(&temporary).expect("a directory");
    // A node that never gets ready, so that the run is caught with all its servers up.
    let node = dir.path().join("node");
    fs::write(&node, "#!/bin/sh\nexec sleep 600\n").expect("a program");
    fs::set_permissions(&node, fs::Permissions::from_mode(0o755)).expect("a program");
    for signal in ["INT", "TERM"] {
        let mut run = Command::new(env!("CARGO_BIN_EXE_cloakroom-live"));
        run.args(["--store", "redis-sentinel"]).env("BENCH_PROGRAM", &node);
        run.env("TMPDIR", &temporary).stdin(Stdio::null()).stdout(Stdio::null());
        let mut run = run.spawn().expect("a run");
        // Three servers, three sentinels, one node.
        let mut ended = None;
        wait_until("all are there", || {
            ended = run.try_wait().expect("a run");
            ended.is_some() || processes_of(&temporary) >= 7
        });
        if ended.is_some_and(|status| status.success()) {
            skips::tell("there is no redis-server on this machine");
            return;
        }
        assert_eq!(ended, None);
        let pid = run.id().to_string();
        let sent = Command::new("kill").arg(format!("-{signal}")).arg(&pid).status();
        assert!(sent.expect("a signal").success());
        let status = run.wait().expect("its end");
        assert_eq!(status.code(), Some(if signal == "INT" { 130 } else { 143 }), "{status}");
        assert_eq!(processes_of(&temporary), 0);
        assert_eq!(fs::read_dir(&temporary).expect("a directory").count(), 0);
    }
}
