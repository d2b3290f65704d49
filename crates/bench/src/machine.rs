//! What the machine gives: programs, cores, the time and memory of a process.

use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

/// Whether a program of this name is in the path; `cargo xtask` installs what is missing.
pub fn has(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

/// The cores that this process may use.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// What to put before a program so that it runs on one core only; nothing where that can't be.
pub fn pinned_to(core: usize) -> Vec<String> {
    if cores() < 2 || !has("taskset") {
        return Vec::new();
    }
    ["taskset", "-c", &core.to_string()].map(str::to_owned).to_vec()
}

/// The processor time that all threads of a process have used so far.
pub fn cpu_time(pid: u32) -> io::Result<Duration> {
    let mut sum = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        // The first number is the time on a processor, in nanoseconds.
        let text = fs::read_to_string(task?.path().join("schedstat"))?;
        sum += text.split(' ').next().and_then(|time| time.parse::<u64>().ok()).unwrap_or(0);
    }
    Ok(Duration::from_nanos(sum))
}

/// The memory of a process that is its own, not a mapped file's, in bytes.
pub fn memory(pid: u32) -> io::Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kib.map(|kib| kib * 1024).ok_or_else(|| io::Error::other("the memory can't be read"))
}

/// The bytes of all files below a folder.
pub fn size_of(folder: &Path) -> io::Result<u64> {
    let mut sum = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let data = entry.metadata()?;
        sum += if data.is_dir() { size_of(&entry.path())? } else { data.len() };
    }
    Ok(sum)
}
