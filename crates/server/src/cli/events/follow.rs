//! `cloakroom events tail --follow`: what happens, as it happens.
//!
//! The authority's stream is followed, and resumed where it breaks off. Whoever resumes is told the
//! seconds before its cursor again, since the order over all partitions is by time to about a
//! second only; so what was shown lately is remembered, and shown once.

use std::collections::BTreeSet;
use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::sync::mpsc::{self, Receiver};

use super::walk::logged_at;
use super::{Filter, cells, encoded};
use crate::cli::client::{Client, EventStream, Message};
use crate::cli::failure::Failure;
use crate::cli::output::{Style, inert};
use crate::cli::serve::watch_signals;
use crate::serve::{Signals, Told};

const STREAM: &str = "/admin/v1/events/stream";
/// A stream begins and resumes ten seconds before its cursor; clocks of nodes differ by some more.
const LAG: Duration = Duration::from_secs(15);
/// How long what was shown is remembered, in the log's own time.
const REMEMBERED: Duration = Duration::from_secs(60);
/// The first wait before trying again, and the longest; each next one is twice as long.
const WAITS: [Duration; 2] = [Duration::from_millis(250), Duration::from_secs(5)];
/// Messages read ahead of what is printed.
const AHEAD_MAX: usize = 256;

const _: () = assert!(LAG.as_secs() < REMEMBERED.as_secs());

/// Prints the latest events and goes on until it is interrupted or nobody reads any more.
pub(super) fn run(
    client: Client,
    filter: &Filter,
    limit: u32,
    style: Style,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::Failed(format!("can't start threads: {error}")))?;
    let shown = BTreeSet::new();
    let client = Arc::new(client);
    let mut tail = Tail { client, filter, style, shown, cursor: None, out, err };
    let outcome = runtime.block_on(async {
        let signals = watch_signals()?;
        tokio::select! {
            outcome = tail.follow(limit) => outcome,
            () = interrupted(signals) => Ok(()),
        }
    });
    // A reader of the stream may be in the middle of waiting.
    runtime.shutdown_background();
    outcome
}

async fn interrupted(mut signals: Signals) {
    match signals.next().await {
        // A closed terminal has nobody left to read.
        Told::Stop | Told::Hangup => {}
    }
}

struct Tail<'a> {
    client: Arc<Client>,
    filter: &'a Filter,
    style: Style,
    /// The ids of what was shown lately, which begin with their tick.
    shown: BTreeSet<String>,
    /// Where to resume.
    cursor: Option<String>,
    out: &'a mut dyn Write,
    err: &'a mut dyn Write,
}

/// What becomes of the stream after a message.
enum Next {
    /// It goes on.
    On,
    /// It left something out: what comes next is told after resuming.
    Resume,
}

impl Tail<'_> {
    async fn follow(&mut self, limit: u32) -> Result<(), Failure> {
        // Opened before anything is listed: nothing is logged between the two.
        let began = Instant::now();
        let mut heard = self.listen().await?;
        self.list(limit, began).await?;
        let (mut resumed, mut wait) = (false, WAITS[0]);
        loop {
            let mut first = true;
            while let Some(message) = heard.recv().await {
                match self.take(&message, resumed && first)? {
                    // It works again: where it stands was told.
                    Next::On if message.id.is_some() => wait = WAITS[0],
                    Next::On => {}
                    Next::Resume => break,
                }
                // What a stream begins with tells nothing.
                first &= message.event.is_empty();
                if heard.is_empty() {
                    self.out.flush()?;
                }
            }
            self.out.flush()?;
            heard = self.resume(&mut wait).await?;
            resumed = self.cursor.is_some();
        }
    }

    /// Opens the stream where this is, and reads it from a thread.
    async fn listen(&self) -> Result<Receiver<Message>, Failure> {
        let after = self.cursor.clone();
        let stream = self.ask(move |client| client.listen(STREAM, after.as_deref())).await?;
        let (told, heard) = mpsc::channel(AHEAD_MAX);
        std::thread::spawn(move || read(stream, |message| told.blocking_send(message).is_ok()));
        Ok(heard)
    }

    /// Opens it again, with patience: the authority may be restarting, and what happens meanwhile
    /// is logged all the same.
    async fn resume(&mut self, wait: &mut Duration) -> Result<Receiver<Message>, Failure> {
        let mut told = false;
        loop {
            tokio::time::sleep(*wait).await;
            *wait = (*wait * 2).clamp(WAITS[0], WAITS[1]);
            match self.listen().await {
                Ok(heard) => return Ok(heard),
                Err(failure) if may_pass(&failure) => {
                    if !told {
                        let _ = writeln!(self.err, "{failure}; trying again");
                    }
                    told = true;
                }
                Err(failure) => return Err(failure),
            }
        }
    }

    /// Shows the latest events. What else the stream may tell again counts as shown.
    async fn list(&mut self, limit: u32, began: Instant) -> Result<(), Failure> {
        let newest = self.page("/admin/v1/events?order=desc&limit=1".to_owned()).await?;
        self.cursor = newest.0.first().and_then(cursor_of);
        let query = self.filter.query();
        let first = format!("/admin/v1/events?order=desc&limit={limit}{query}");
        let (mut events, mut next) = self.page(first).await?;
        for event in events.iter().rev() {
            self.show(event)?;
        }
        self.out.flush()?;
        let since = events.first().and_then(logged_at).unwrap_or(i64::MAX);
        while let Some(after) = next.take() {
            let margin = i64::try_from((LAG + began.elapsed()).as_millis()).unwrap_or(i64::MAX);
            let oldest = events.last().and_then(logged_at).unwrap_or(i64::MIN);
            if oldest < since.saturating_sub(margin) {
                break;
            }
            let after = encoded(&after);
            let path = format!("/admin/v1/events?order=desc&limit=200&after={after}{query}");
            (events, next) = self.page(path).await?;
            self.shown.extend(events.iter().filter_map(id_of));
        }
        Ok(())
    }

    async fn page(&self, path: String) -> Result<(Vec<Value>, Option<String>), Failure> {
        let mut answer = self.ask(move |client| client.get(&path)).await?;
        let next = answer["next"].as_str().map(str::to_owned);
        Ok((answer["events"].as_array_mut().map(std::mem::take).unwrap_or_default(), next))
    }

    /// Asks the authority on a thread of its own, so that an interruption needn't wait for it.
    async fn ask<T: Send + 'static>(
        &self,
        ask: impl FnOnce(&Client) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Failure> {
        let client = Arc::clone(&self.client);
        match tokio::task::spawn_blocking(move || ask(&client)).await {
            Ok(answer) => answer,
            Err(error) => Err(Failure::Failed(error.to_string())),
        }
    }

    /// `is_first`: nothing was told since the stream was resumed.
    fn take(&mut self, message: &Message, is_first: bool) -> Result<Next, Failure> {
        match message.event.as_str() {
            "event" => {
                let event: Value = serde_json::from_str(&message.data).unwrap_or_default();
                if self.filter.takes(&event) {
                    self.show(&event)?;
                }
            }
            "reset" if is_first => {
                let _ = writeln!(
                    self.err,
                    "the log doesn't reach back to where this stopped: events may be missing here"
                );
            }
            "reset" => return Ok(Next::Resume),
            // A heartbeat, or what a later release may tell.
            _ => {}
        }
        if let Some(cursor) = &message.id {
            self.cursor = Some(cursor.clone());
            self.forget();
        }
        Ok(Next::On)
    }

    fn show(&mut self, event: &Value) -> Result<(), Failure> {
        if !self.shown.insert(id_of(event).unwrap_or_default()) {
            return Ok(());
        }
        if self.style.json {
            return Ok(writeln!(self.out, "{event}")?);
        }
        let line: Vec<String> = cells(event).iter().map(|cell| inert(cell)).collect();
        Ok(writeln!(self.out, "{}", line.join("  "))?)
    }

    /// Forgets what no stream tells again.
    fn forget(&mut self) {
        let tick = self.cursor.as_deref().and_then(|cursor| cursor.get(..16));
        let tick = tick.and_then(|digits| u64::from_str_radix(digits, 16).ok());
        let Some(tick) = tick.map(cloakroom_store::Tick) else { return };
        let oldest = cloakroom_store::Tick::at(tick.instant().minus(REMEMBERED));
        self.shown = self.shown.split_off(&format!("evt_{:016x}", oldest.0));
    }
}

/// Reads a stream to its end, or until nobody wants more of it.
fn read(mut stream: EventStream, mut tell: impl FnMut(Message) -> bool) {
    // A broken connection is an end like any other: where it stopped is known.
    while let Ok(Some(message)) = stream.next() {
        if !tell(message) {
            return;
        }
    }
}

/// Whether a later attempt may succeed where this failed.
fn may_pass(failure: &Failure) -> bool {
    failure.code() == 3 || failure.problem_code() == Some("rate_limited")
}

fn cursor_of(event: &Value) -> Option<String> {
    event["cursor"].as_str().map(str::to_owned)
}

fn id_of(event: &Value) -> Option<String> {
    event["id"].as_str().map(str::to_owned)
}
