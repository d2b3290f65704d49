//! Reading the log page by page, and where to go on so that nothing is missed.

use serde_json::Value;

use super::Filter;
use crate::cli::client::{Client, encoded};
use crate::cli::failure::Failure;

/// The order over all partitions is by time to about a second: whoever reads on begins this much
/// earlier, and meets some events twice, in milliseconds.
const LAG_MS: i64 = 10_000;

/// A walk through the log, oldest first.
pub(super) struct Walk<'a> {
    client: &'a Client,
    filter: &'a Filter,
    after: Option<String>,
    /// The latest cursors, oldest first, each with its event's instant.
    recent: Vec<(i64, String)>,
    over: bool,
}

impl<'a> Walk<'a> {
    /// Begins after a cursor, or at the oldest event that is kept.
    pub(super) const fn new(client: &'a Client, filter: &'a Filter, after: Option<String>) -> Self {
        Self { client, filter, after, recent: Vec::new(), over: false }
    }

    /// The next page; none: these were all for now.
    pub(super) fn next_page(&mut self) -> Result<Option<Vec<Value>>, Failure> {
        if self.over {
            return Ok(None);
        }
        let mut path = format!("/admin/v1/events?limit=200{}", self.filter.query());
        if let Some(after) = &self.after {
            path.push_str(&format!("&after={}", encoded(after)));
        }
        let mut answer = self.client.get(&path)?;
        let events = answer["events"].as_array_mut().map(std::mem::take).unwrap_or_default();
        for event in &events {
            if let (Some(at), Some(cursor)) = (logged_at(event), event["cursor"].as_str()) {
                self.recent.push((at, cursor.to_owned()));
            }
        }
        self.forget();
        match answer["next"].as_str() {
            Some(next) => self.after = Some(next.to_owned()),
            None => self.over = true,
        }
        Ok(Some(events))
    }

    /// From where a later walk misses nothing; it meets the last ten seconds again.
    pub(super) fn resume_at(&self, from: Option<&str>) -> Option<String> {
        let newest = self.recent.last().map(|(at, _)| *at);
        let old = self
            .recent
            .iter()
            .rev()
            .find(|(at, _)| newest.is_some_and(|newest| *at <= newest - LAG_MS));
        old.map(|(_, cursor)| cursor.clone()).or_else(|| from.map(str::to_owned))
    }

    /// Keeps the last ten seconds, and one before them.
    fn forget(&mut self) {
        let Some((newest, _)) = self.recent.last() else { return };
        let limit = newest - LAG_MS;
        let old = self.recent.iter().rposition(|(at, _)| *at <= limit).unwrap_or(0);
        self.recent.drain(..old);
    }
}

/// When an event was logged, in milliseconds since the epoch: its id begins with its tick.
pub(super) fn logged_at(event: &Value) -> Option<i64> {
    let digits = event["id"].as_str()?.strip_prefix("evt_")?.get(..16)?;
    let tick = cloakroom_store::Tick(u64::from_str_radix(digits, 16).ok()?);
    Some(tick.instant().as_millis())
}
