//! What the system says of this process, as far as it says it (Linux's `/proc`).

use std::fs;

use super::family::{Family, Kind, Measure, Value, level_of};

/// Ticks of `/proc/self/stat` in a second: the same on every Linux that programs see.
const TICKS_A_SECOND: f64 = 100.0;

/// The metrics of this process; each is left out where the system doesn't tell.
pub(super) fn families(started_at_secs: f64) -> Vec<Family> {
    let mut cpu = Family::new(
        "process_cpu",
        "Processor time used, in user and in kernel mode",
        Kind::Counter,
        Measure::Seconds,
        &[],
    );
    let mut memory = Family::new(
        "process_resident_memory",
        "Memory that this process has in use",
        Kind::Gauge,
        Measure::Bytes,
        &[],
    );
    let mut open = Family::gauge("process_open_fds", "File descriptors open", &[]);
    let mut most = Family::gauge("process_max_fds", "File descriptors that may be open", &[]);
    let start = Family::seconds("process_start_time", "When this process began to serve", &[]);
    if let Some(used) = cpu_seconds() {
        cpu = cpu.with(&[], Value::Sum(used));
    }
    if let Some(kib) = field("/proc/self/status", "VmRSS:") {
        memory = memory.level(&[], level_of(kib.saturating_mul(1024)));
    }
    if let Ok(entries) = fs::read_dir("/proc/self/fd") {
        open = open.level(&[], level_of(entries.count()));
    }
    if let Some(limit) = field("/proc/self/limits", "Max open files") {
        most = most.level(&[], level_of(limit));
    }
    vec![start.level(&[], started_at_secs), cpu, memory, open, most]
}

/// The first number of the line that begins with `name`.
fn field(path: &str, name: &str) -> Option<u64> {
    let text = fs::read_to_string(path).ok()?;
    let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
    rest.split_whitespace().next()?.parse().ok()
}

/// The 14th and 15th fields of proc(5)'s `stat`; the second may hold anything within parentheses.
fn cpu_seconds() -> Option<f64> {
    let text = fs::read_to_string("/proc/self/stat").ok()?;
    let (_, rest) = text.rsplit_once(')')?;
    let mut fields = rest.split_whitespace().skip(11);
    let user: f64 = fields.next()?.parse().ok()?;
    let kernel: f64 = fields.next()?.parse().ok()?;
    Some((user + kernel) / TICKS_A_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_tells_of_this_process() {
        let families = families(1.0);
        assert!(families.iter().all(|family| family.points.len() == 1), "{families:?}");
    }
}
