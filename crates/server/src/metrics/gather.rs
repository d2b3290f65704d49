//! All metrics of a node at one instant: the one list of what there is.

use cloakroom::{CacheFigures, Figures};
use cloakroom_core::keys::KeyState;
use cloakroom_core::types::Timestamp;

use super::family::{Family, Kind, Measure, Value, level_of};
use super::{process, requests};
use crate::site::Site;

/// Reads all metrics of a node.
pub fn gather(site: &Site) -> Vec<Family> {
    let figures = site.authority.figures();
    let metrics = &site.metrics;
    let mut all = node(site);
    all.extend(requests::families([&metrics.public, &metrics.admin]));
    all.extend(credentials(&figures));
    all.extend(refusals(site));
    all.extend(passwords(&figures));
    all.extend(memory(site, &figures));
    all.extend(crate::store::families(site.authority.store().calls()));
    all.extend(commits(site, &figures));
    all.extend(sweeps(&figures));
    all.extend(keys(site));
    all
}

fn secs(at: Timestamp) -> f64 {
    level_of(at.as_millis()) / 1000.0
}

fn node(site: &Site) -> Vec<Family> {
    let build = Family::new(
        "cloakroom_build",
        "Which release this is, and on which store",
        Kind::Info,
        Measure::Count,
        &["version", "store"],
    );
    let draining = Family::gauge("cloakroom_draining", "1 while this node is about to stop", &[]);
    let drains = if site.is_draining() { 1.0 } else { 0.0 };
    let labels = [env!("CARGO_PKG_VERSION"), site.authority.store().name()];
    let mut all = vec![build.with(&labels, Value::Text), draining.level(&[], drains)];
    all.extend(process::families(secs(site.authority.stats().started_at)));
    all
}

fn credentials(figures: &Figures) -> Vec<Family> {
    let mut verdicts = Family::counter(
        "cloakroom_verdicts",
        "Credentials judged, by what they are and what they were found to be",
        &["kind", "outcome"],
    );
    for (kind, outcome, count) in &figures.verdicts {
        verdicts = verdicts.count(&[kind.name(), outcome.name()], *count);
    }
    let opened = Family::counter("cloakroom_sessions_opened", "Sessions opened", &[]);
    let mut ended = Family::counter(
        "cloakroom_sessions_ended",
        "Sessions ended one by one; timeouts count when the sweep comes by",
        &["reason"],
    );
    for (reason, count) in &figures.ended {
        ended = ended.count(&[reason.as_str()], *count);
    }
    let mut signed_out = Family::counter(
        "cloakroom_subjects_signed_out",
        "Subjects all of whose sessions were ended together",
        &["reason"],
    );
    for (reason, count) in &figures.signed_out {
        signed_out = signed_out.count(&[reason.as_str()], *count);
    }
    let mut refreshes = Family::counter(
        "cloakroom_refreshes",
        "Refresh tokens presented, by what they were exchanged for",
        &["outcome"],
    );
    for (outcome, count) in &figures.refreshes {
        refreshes = refreshes.count(&[outcome.name()], *count);
    }
    let mut signins = Family::counter("cloakroom_signins", "Sign-ins by password", &["outcome"]);
    for (outcome, count) in &figures.signins {
        signins = signins.count(&[outcome.name()], *count);
    }
    let mut again = Family::counter(
        "cloakroom_reauthentications",
        "Passwords given again in a session",
        &["outcome"],
    );
    for (outcome, count) in &figures.reauthentications {
        again = again.count(&[outcome.name()], *count);
    }
    vec![verdicts, opened.count(&[], figures.opened), ended, signed_out, refreshes, signins, again]
}

fn refusals(site: &Site) -> Vec<Family> {
    let metrics = &site.metrics;
    vec![
        metrics.csrf.fill(Family::counter(
            "cloakroom_csrf_refusals",
            "Requests refused as forged across sites, by the step that failed",
            &["step"],
        )),
        metrics.limited.fill(Family::counter(
            "cloakroom_rate_limited",
            "Requests refused since too many came, by the limit",
            &["limit"],
        )),
        metrics.keys.fill(Family::counter(
            "cloakroom_api_key_checks",
            "API keys presented to the admin listener",
            &["outcome"],
        )),
        metrics.failed_work.fill(Family::counter(
            "cloakroom_background_failures",
            "Rounds of background work that failed",
            &["work"],
        )),
    ]
}

fn passwords(figures: &Figures) -> Vec<Family> {
    let pool = &figures.passwords;
    let load = pool.load;
    let gauge = |name, help, level| Family::gauge(name, help, &[]).level(&[], level);
    vec![
        Family::counter("cloakroom_password_hashes", "Passwords hashed or checked", &[])
            .count(&[], load.hashed),
        gauge(
            "cloakroom_password_hashes_running",
            "Passwords being hashed",
            level_of(load.running),
        ),
        gauge(
            "cloakroom_password_hashes_running_limit",
            "Passwords that may be hashed at once (password.pool)",
            level_of(pool.running_max),
        ),
        Family::spans(
            "cloakroom_password_hash_wait",
            "How long requests waited for their password to be hashed",
            &[],
        )
        .with(&[], Value::Spans(pool.waits.clone())),
        Family::counter(
            "cloakroom_password_overloads",
            "Requests turned away since too many passwords waited to be hashed",
            &[],
        )
        .count(&[], pool.overloaded),
    ]
}

fn memory(site: &Site, figures: &Figures) -> Vec<Family> {
    let mut entries = Family::gauge("cloakroom_cache_entries", "What a cache holds", &["cache"]);
    let mut capacity = Family::gauge("cloakroom_cache_limit", "What it may hold", &["cache"]);
    let mut lookups = Family::counter(
        "cloakroom_cache_lookups",
        "Looks into a cache where that may decide",
        &["cache", "outcome"],
    );
    let mut evictions = Family::counter(
        "cloakroom_cache_evictions",
        "What a cache let go for want of room",
        &["cache"],
    );
    for CacheFigures {
        name, entries: held, capacity: most, lookups: looks, evictions: gone, ..
    } in &figures.caches
    {
        entries = entries.level(&[name], level_of(*held));
        capacity = capacity.level(&[name], level_of(*most));
        evictions = evictions.count(&[name], *gone);
        if let Some((hits, misses)) = looks {
            lookups = lookups.count(&[name, "hit"], *hits).count(&[name, "miss"], *misses);
        }
    }
    let (networks, networks_max) = site.networks.room();
    entries = entries.level(&["networks"], level_of(networks));
    capacity = capacity.level(&["networks"], level_of(networks_max));
    let mut all = vec![entries, capacity, lookups, evictions];
    all.extend(queues(site, figures));
    all
}

fn queues(site: &Site, figures: &Figures) -> Vec<Family> {
    let mut length = Family::gauge("cloakroom_queue_length", "What waits in a queue", &["queue"]);
    let mut limit = Family::gauge("cloakroom_queue_limit", "What may wait in it", &["queue"]);
    let (touches, streams) = (&figures.touches, &figures.streams);
    let passwords = &figures.passwords;
    let commits = site.authority.store().commits_waiting();
    let commits = commits.map(|(waiting, most)| ("commits", waiting, most));
    let everywhere = [
        ("touches", touches.waiting, touches.waiting_max),
        ("refusals", figures.reports.0, figures.reports.1),
        ("passwords", passwords.load.waiting, passwords.waiting_max),
        ("revocation_stream", streams.held[0], streams.held_max),
        ("event_stream", streams.held[1], streams.held_max),
    ];
    for (queue, waiting, most) in everywhere.into_iter().chain(commits) {
        length = length.level(&[queue], level_of(waiting));
        limit = limit.level(&[queue], level_of(most));
    }
    let touched = Family::counter(
        "cloakroom_touches",
        "Uses of sessions on their way into the store; void: the session had ended; turned_away: \
         too many waited",
        &["outcome"],
    );
    let touched = touched
        .count(&["queued"], touches.queued)
        .count(&["written"], touches.written)
        .count(&["void"], touches.void)
        .count(&["turned_away"], touches.turned_away);
    let subscribers =
        Family::gauge("cloakroom_stream_subscribers", "Listeners to a stream", &["stream"])
            .level(&["revocations"], level_of(streams.revocations))
            .level(&["events"], level_of(streams.events));
    let cut = Family::counter(
        "cloakroom_stream_readers_cut",
        "Listeners that fell behind and were cut; they resume",
        &[],
    );
    vec![length, limit, touched, subscribers, cut.count(&[], streams.cut)]
}

fn commits(site: &Site, figures: &Figures) -> Vec<Family> {
    let conflicts = Family::counter(
        "cloakroom_commit_conflicts",
        "Commits that met another version and were decided anew",
        &[],
    );
    let in_doubt = Family::counter(
        "cloakroom_commits_in_doubt",
        "Commits of which the store didn't say whether they took effect",
        &[],
    );
    let offset = Family::seconds(
        "cloakroom_store_clock_offset",
        "How far the store's clock is ahead of this node's",
        &[],
    );
    let mut staleness = Family::seconds(
        "cloakroom_feed_staleness",
        "Since when the store's log wasn't read to its end: of all partitions, and of the one \
         with the keys; only where others write to the store",
        &["scope"],
    );
    let feed = &figures.feed;
    for (scope, span) in [("all", feed.staleness), ("keys", feed.keys_staleness)] {
        if let Some(span) = span {
            staleness = staleness.level(&[scope], span.as_secs_f64());
        }
    }
    let lag = Family::spans(
        "cloakroom_feed_lag",
        "How old entries of the store's log were when this node heard of them",
        &[],
    );
    let rollbacks = Family::counter(
        "cloakroom_feed_rollbacks",
        "How often the store's log lacked what this node had seen of it",
        &[],
    );
    let ahead = site.store_watch.drift().as_secs_f64();
    let ahead = if site.store_watch.ahead_ms() < 0 { -ahead } else { ahead };
    vec![
        conflicts.count(&[], figures.conflicts),
        in_doubt.count(&[], figures.in_doubt),
        offset.level(&[], ahead),
        staleness,
        lag.with(&[], Value::Spans(feed.lag.clone())),
        rollbacks.count(&[], feed.went_back),
    ]
}

fn sweeps(figures: &Figures) -> Vec<Family> {
    let sweeps = &figures.sweeps;
    let removed = Family::counter(
        "cloakroom_sweep_removed",
        "What the clean-up did: sessions whose expiry was written down, records and log entries \
         removed",
        &["what"],
    )
    .count(&["sessions_ended"], sweeps.ended)
    .count(&["records"], sweeps.removed)
    .count(&["log_entries"], sweeps.trimmed);
    let spans = Family::spans("cloakroom_sweep_duration", "How long clean-ups took", &[]);
    let mut last = Family::seconds(
        "cloakroom_sweep_last_success_timestamp",
        "When the last clean-up was done",
        &[],
    );
    if let Some(at) = sweeps.last_at {
        last = last.level(&[], secs(at));
    }
    let failed = Family::counter("cloakroom_sweep_failures", "Clean-ups that broke off", &[]);
    vec![
        removed,
        spans.with(&[], Value::Spans(sweeps.spans.clone())),
        last,
        failed.count(&[], sweeps.failed),
    ]
}

fn keys(site: &Site) -> Vec<Family> {
    let mut number = Family::gauge("cloakroom_signing_keys", "Signing keys", &["state"]);
    let mut since = Family::seconds(
        "cloakroom_signing_key_since_timestamp",
        "Since when the oldest signing key of a state has been in it",
        &["state"],
    );
    let records = site.authority.key_records();
    for state in KeyState::ALL {
        let of_it = records.iter().filter(|record| record.state == state);
        let began = of_it.clone().map(|record| match state {
            KeyState::Next => record.created_at,
            KeyState::Active => record.activates_at,
            KeyState::Retired | KeyState::Revoked => record.retires_at.unwrap_or(record.created_at),
        });
        number = number.level(&[state.name()], level_of(of_it.count()));
        if let Some(began) = began.min() {
            since = since.level(&[state.name()], secs(began));
        }
    }
    vec![number, since]
}
