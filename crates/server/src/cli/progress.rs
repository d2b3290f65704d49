//! How far a long piece of work is: a bar on a terminal, a line now and then elsewhere.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::store::copy::Held;

/// The progress of something that goes partition by partition.
pub(super) struct Progress<'a> {
    partitions: u16,
    began_at: Instant,
    told_at: Instant,
    /// Only on a terminal.
    bar: Option<ProgressBar>,
    err: &'a mut dyn Write,
}

impl<'a> Progress<'a> {
    /// Begins; lines go to `err`.
    pub(super) fn new(partitions: u16, err: &'a mut dyn Write) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new(partitions.into());
            match ProgressStyle::with_template(TEMPLATE) {
                Ok(style) => bar.with_style(style),
                Err(_) => bar,
            }
        });
        let now = Instant::now();
        Self { partitions, began_at: now, told_at: now, bar, err }
    }

    /// Says how many partitions are done, and what was in them.
    pub(super) fn tell(&mut self, done: u16, held: &Held) {
        let line = line(held, self.began_at.elapsed());
        if let Some(bar) = &self.bar {
            bar.set_message(line);
            bar.set_position(done.into());
        } else if self.told_at.elapsed() >= TELL_EVERY || done == self.partitions {
            self.told_at = Instant::now();
            let left = self.began_at.elapsed() * u32::from(self.partitions - done)
                / u32::from(done.max(1));
            // Whoever doesn't listen doesn't stop it.
            let _ = writeln!(
                self.err,
                "{done} of {} partitions, {line}, {} s left",
                self.partitions,
                left.as_secs()
            );
        }
    }

    /// Takes the bar away.
    pub(super) fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn line(held: &Held, spent: Duration) -> String {
    let per_second = u128::from(held.records) * 1000 / spent.as_millis().max(1);
    format!("{} records, {} log entries, {per_second} records/s", held.records, held.entries)
}

/// What a terminal shows.
const TEMPLATE: &str = "{wide_bar} {pos} of {len} partitions, {msg}, {eta} left";
/// How often a line is written elsewhere.
const TELL_EVERY: Duration = Duration::from_secs(1);
