//! Follows a server's revocations for as long as somebody needs them.

use std::sync::{Arc, Weak};
use std::time::Duration;

use cloakroom_core::guard::Fault;
use reqwest::Method;
use serde_json::Value;

use crate::asking::{Asker, fault};
use crate::feed::Events;
use crate::remote::Inner;
use crate::verifier::Told;

/// How long to wait before the first new try, and at most.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// A stream that says nothing for so long is dead: heartbeats come every half second.
const SILENCE_MAX: Duration = Duration::from_secs(5);

/// Rounds that have to fail one after the other before that is told.
const ROUNDS_TOLD: u32 = 2;

const STREAM: [&str; 4] = ["admin", "v1", "revocations", "stream"];

/// Follows until nobody holds the other end.
pub(crate) async fn follow(inner: Weak<Inner>) {
    let (mut pause, longest) = PAUSES;
    let mut cursor = None;
    let mut loss = Loss::default();
    let mut told_of_clock = false;
    loop {
        let Some(strong) = inner.upgrade() else { return };
        let heard = || {
            pause = PAUSES.0;
            loss.is_over(strong.asker.url());
        };
        let outcome = round(&strong, &inner, &mut cursor, heard, &mut told_of_clock).await;
        strong.verifier().lose_stream();
        if let Err(error) = outcome {
            loss.note(&error, &strong.asker);
        }
        drop(strong);
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(longest);
    }
}

/// What was told of a stream that can't be followed.
#[derive(Debug, Default)]
struct Loss {
    /// Rounds that failed one after the other.
    rounds: u32,
    told: bool,
}

impl Loss {
    /// Notes that a round failed: told loudly once, from the second on, since one is a restart. An
    /// authority that can't be asked at all has been told of by whoever asked it.
    fn note(&mut self, error: &Fault, asker: &Asker) {
        self.rounds = self.rounds.saturating_add(1);
        let url = asker.url();
        if self.told || self.rounds < ROUNDS_TOLD || asker.is_failing() {
            tracing::debug!(url, %error, "no revocations");
        } else {
            self.told = true;
            tracing::warn!(url, %error, "no revocations; every request is asked about");
        }
    }

    /// Notes that something was heard.
    fn is_over(&mut self, url: &str) {
        if self.told {
            tracing::info!(url, "revocations are heard of again");
        }
        *self = Self::default();
    }
}

/// One stream, from its opening to its end.
async fn round(
    inner: &Arc<Inner>,
    weak: &Weak<Inner>,
    cursor: &mut Option<String>,
    mut heard: impl FnMut(),
    told_of_clock: &mut bool,
) -> Result<(), Fault> {
    let from = match cursor.clone() {
        Some(cursor) => cursor,
        None => take_snapshot(inner).await?,
    };
    // After the snapshot, which forgets them: a key that was removed meanwhile isn't in them.
    if inner.verifier().wants_keys(inner.moment()) {
        inner.fetch_keys().await?;
    }
    let mut response = inner.asker.stream(&STREAM, &from).await?;
    let mut events = Events::default();
    loop {
        let chunk = tokio::time::timeout(SILENCE_MAX, response.chunk()).await;
        let chunk = match chunk {
            Ok(Ok(Some(chunk))) => chunk,
            // It ended, by the server's doing: perhaps it restarts.
            Ok(Ok(None)) => return Ok(()),
            Ok(Err(error)) => return Err(fault(error.without_url().to_string())),
            Err(_) => return Err(fault("the stream fell silent".to_owned())),
        };
        let messages = events.feed(&chunk).map_err(|malformed| fault(malformed.to_string()))?;
        for message in messages {
            let told = inner.verifier().take_event(&message, inner.moment());
            if let Some(id) = message.id {
                *cursor = Some(id);
            }
            match told {
                Told::Nothing => heard(),
                Told::Keys => inner.fetch_keys().await?,
                Told::Reset => {
                    *cursor = None;
                    return Ok(());
                }
            }
        }
        tell_of_clock(inner, told_of_clock);
        if inner.verifier().wants_keys(inner.moment()) {
            inner.fetch_keys().await?;
        }
        if weak.strong_count() <= 1 {
            return Ok(());
        }
    }
}

/// A clock that is wrong is told once, until it is right again.
fn tell_of_clock(inner: &Inner, told: &mut bool) {
    let apart = inner.verifier().clock_difference(inner.moment());
    match apart {
        Some(apart) if !*told => tracing::error!(
            url = inner.asker.url(),
            seconds = apart.as_secs_f64(),
            "our clock and the session authority's differ; every request is asked about"
        ),
        Some(_) | None => {}
    }
    *told = apart.is_some();
}

async fn take_snapshot(inner: &Inner) -> Result<String, Fault> {
    let reply = inner.asker.ask(Method::GET, &["admin", "v1", "revocations"], None).await?;
    let cursor = reply.status.is_success().then(|| inner.verifier().take_snapshot(&reply.body));
    cursor.flatten().ok_or_else(|| fault(format!("no snapshot: it answered {}", reply.status)))
}

impl Inner {
    /// Fetches the key set; a failure counts as a try.
    pub(crate) async fn fetch_keys(&self) -> Result<(), Fault> {
        let reply = self.asker.ask(Method::GET, &[".well-known", "jwks.json"], None).await;
        let moment = self.moment();
        let mut verifier = self.verifier();
        let reply = reply.inspect_err(|_| verifier.keys_failed(moment))?;
        let taken = verifier.take_keys(&Value::Object(reply.body), moment);
        drop(verifier);
        taken.map_err(|malformed| fault(format!("its key set: {malformed}")))
    }
}
