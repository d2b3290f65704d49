//! What was asked and answered, and when.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Instant;

/// Microseconds since the run began.
pub type At = u64;

/// One second.
pub const SECOND: At = 1_000_000;

/// From when something was sent until its answer was there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Before it was sent.
    pub begun: At,
    /// After it was answered, or given up.
    pub done: At,
}

/// What an ending survives, as its answer said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// `durable`.
    Durable,
    /// `replicated`.
    Replicated,
    /// `local`.
    Local,
}

/// What a verification came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Saw {
    /// 200.
    Live,
    /// 401 `session_ended`, with this reason.
    Over(String),
    /// 401 with another code.
    Refused(String),
}

/// What a refresh came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Turn {
    /// 200 with this refresh token.
    Next(String),
    /// 401 `session_ended`, with this reason.
    Over(String),
    /// 401 `refresh_token_reused`: the session is ended now.
    Reused,
    /// 401 with another code.
    Refused(String),
}

/// What a request without an answer may have done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Intent {
    /// Open a session of this subject.
    Open(String),
    /// End this session.
    End(String),
    /// End all sessions of this subject.
    EndAll(String),
    /// Rotate this refresh token of a session.
    Rotate {
        /// Of which session.
        sid: String,
        /// The presented token.
        presented: String,
    },
    /// Write this session's data.
    Write(String),
    /// Nothing that matters.
    Look,
}

/// What a request was and what it came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// A session was opened.
    Opened {
        /// Its id.
        sid: String,
        /// Whose it is.
        subject: String,
        /// When the subject's epoch was read that the opening expects; the opening itself where
        /// none was named.
        credentials_checked: Span,
        /// How long it lives, where that is short enough to be seen.
        lifetime: Option<At>,
    },
    /// An opening was refused: the subject was signed out everywhere meanwhile.
    OpenTooLate,
    /// A session was looked up.
    Verified {
        /// Which.
        sid: String,
        /// What was said.
        saw: Saw,
    },
    /// A refresh token was presented.
    Refreshed {
        /// Of which session.
        sid: String,
        /// The presented token.
        presented: String,
        /// What was said.
        turn: Turn,
    },
    /// A session was ended: by its holder or by the operator.
    Ended {
        /// Which.
        sid: String,
        /// What that survives.
        kept: Kept,
    },
    /// A subject was signed out everywhere.
    EndedAll {
        /// Which.
        subject: String,
        /// But for this session.
        but: Option<String>,
        /// What that survives.
        kept: Kept,
    },
    /// A session's data was written on the condition that it hadn't changed.
    Wrote {
        /// Which session's.
        sid: String,
        /// The version that was expected.
        expected: String,
        /// The number that was written: one more than was read.
        number: u64,
    },
    /// A write met another one.
    WroteTooLate,
    /// A session's data was read.
    Read {
        /// Which session's.
        sid: String,
        /// The number in it.
        number: u64,
    },
    /// No answer, or one that says that nothing is known.
    Unknown(Intent),
    /// An answer that is never right: what was asked, and what was said.
    Wrong(String),
}

/// A request, its times and what it came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its times.
    pub span: Span,
    /// Which node was asked.
    pub node: usize,
    /// What it was.
    pub what: What,
}

/// A fault that was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A node was killed and came back.
    NodeKilled(usize),
    /// The store's master was killed and another took over.
    FailedOver,
    /// The store's master hung until another had taken over, and then went on.
    CutOff,
    /// The store was killed and came back with what was on its disk.
    StoreKilled,
}

/// A fault and its times: until the node, or the store, was used again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disturbance {
    /// Its times.
    pub span: Span,
    /// What it was.
    pub fault: Fault,
}

/// An event of the audit log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Audited {
    /// Its type.
    pub kind: String,
    /// The session that it names.
    pub sid: String,
}

/// What was promised on this store, by these settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Promises {
    /// Whether a failover may lose what was acknowledged last.
    pub may_lose: bool,
    /// For each node how old what it decides on may be: nothing where it reads the store.
    pub staleness: Vec<At>,
}

/// All of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct History {
    /// What was promised.
    pub promises: Promises,
    /// Requests, in any order.
    pub entries: Vec<Entry>,
    /// Faults.
    pub disturbances: Vec<Disturbance>,
    /// Sessions of which a thief holds a copy.
    pub stolen: BTreeSet<String>,
    /// The audit log at the end.
    pub audit: Vec<Audited>,
    /// What `cloakroom store check` found wrong at the end, by its name and with what.
    pub faults: Vec<String>,
}

/// The run's own clock.
#[derive(Clone, Copy, Debug)]
pub struct Stopwatch(Instant);

impl Stopwatch {
    /// Begins at zero.
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// What it shows.
    pub fn at(&self) -> At {
        u64::try_from(self.0.elapsed().as_micros()).unwrap_or(u64::MAX)
    }
}

impl What {
    /// The session that it is about.
    pub fn sid(&self) -> Option<&str> {
        match self {
            Self::Opened { sid, .. }
            | Self::Verified { sid, .. }
            | Self::Refreshed { sid, .. }
            | Self::Ended { sid, .. }
            | Self::Wrote { sid, .. }
            | Self::Read { sid, .. }
            | Self::Unknown(Intent::End(sid) | Intent::Rotate { sid, .. } | Intent::Write(sid)) => {
                Some(sid)
            }
            Self::OpenTooLate
            | Self::EndedAll { .. }
            | Self::WroteTooLate
            | Self::Unknown(Intent::Open(_) | Intent::EndAll(_) | Intent::Look)
            | Self::Wrong(_) => None,
        }
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = |at: At| at as f64 / SECOND as f64;
        let (begun, done) = (seconds(self.span.begun), seconds(self.span.done));
        write!(f, "{begun:10.4} to {done:10.4} node {} {:?}", self.node, self.what)
    }
}
