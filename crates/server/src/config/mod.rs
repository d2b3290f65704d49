//! The configuration: parsed once, checked as a whole, typed from then on.
//!
//! One table of keys gives the parser, the names of the environment, the defaults, the
//! reference, the commented file and the schema. Nothing here starts anything.

mod assemble;
mod check;
mod keys;
mod kinds;
mod load;
mod report;
mod source;
mod suggest;
mod tables;
#[cfg(test)]
mod tests;
mod value;

use std::path::PathBuf;

use cloakroom_core::store_key::MasterKey;

pub use keys::{
    Cookie, Cors, Csrf, Events, ForwardAuth, Limit, Log, Outage, Password, Refresh, Registration,
    Server, Session, Store, Sweep, Telemetry, Token, Verify,
};
pub use kinds::{
    Argon2Params, BasePath, ByteSize, HostName, Listener, LogFormat, LogLevel, Namespace, OnLimit,
    RedisTopology, SignInUrl, StoreUrl,
};
pub use load::{Flags, Surroundings};
pub use report::{commented_file, reference, reference_json, schema};
pub use source::{Problem, Problems, Source};
pub use tables::{AalCap, AalCaps, ClaimHeaders, Policies};

/// Everything that the operator decides, checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// The listeners and what browsers see of them.
    pub server: Server,
    /// The public listener's TLS, if it speaks TLS itself.
    pub public_tls: Option<TlsFiles>,
    /// The admin listener's TLS.
    pub admin_tls: Option<AdminTls>,
    /// Where everything is stored.
    pub store: Store,
    /// This node's own directory: lock, root API key, and for an embedded store all the rest.
    pub data_dir: PathBuf,
    /// What wraps the store's own key; absent: generated into the data directory.
    pub master_key: Option<MasterKey>,
    /// The master key before the current one.
    pub master_key_previous: Option<MasterKey>,
    /// File of the operator's own API key.
    pub root_api_key_file: PathBuf,
    /// Access tokens.
    pub token: Token,
    /// Refresh tokens.
    pub refresh: Refresh,
    /// How long sessions live and how large they grow.
    pub session: Session,
    /// The attributes of cookies.
    pub cookie: Cookie,
    /// Protection from cross-site request forgery.
    pub csrf: Csrf,
    /// Cross-origin reading.
    pub cors: Cors,
    /// How sessions are verified.
    pub verify: Verify,
    /// While the store can't be reached.
    pub outage: Outage,
    /// How many requests are taken.
    pub limit: Limit,
    /// Forward authentication for gateways.
    pub forward_auth: ForwardAuth,
    /// Passwords of the user directory.
    pub password: Password,
    /// Whether visitors make their own users.
    pub registration: Registration,
    /// The audit log.
    pub events: Events,
    /// The removal of what has expired.
    pub sweep: Sweep,
    /// Log lines.
    pub log: Log,
    /// Where traces and metrics go besides `/metrics`.
    pub telemetry: Telemetry,
}

/// A certificate chain and its private key, in PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The chain, the listener's own certificate first.
    pub cert_file: PathBuf,
    /// The private key.
    pub key_file: PathBuf,
}

/// The admin listener's TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdminTls {
    /// Its certificate.
    pub files: TlsFiles,
    /// Authorities of the clients' certificates; absent: clients need none.
    pub client_ca_file: Option<PathBuf>,
}

/// What a configuration is read for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// To run a node, which needs all of it.
    Node,
    /// To find a node or its store.
    Command,
}

/// A configuration that was read, good or bad.
#[derive(Debug)]
pub struct Loaded {
    /// The file that was read; absent: there was none.
    pub file: Option<PathBuf>,
    /// What deserves a look and stops nothing.
    pub warnings: Vec<Problem>,
    /// The configuration, or all that is wrong with it.
    pub outcome: Result<Box<Config>, Problems>,
    entries: load::Entries,
}

impl Loaded {
    /// Reads the configuration of a process: file, then environment, then flags.
    pub fn read(flags: &Flags, surroundings: &Surroundings) -> Self {
        assemble::read(flags, surroundings, Purpose::Node)
    }

    /// The same for a command that looks or asks: a secret that only a node uses, and that is
    /// perhaps only handed to a node, is warned of and not asked for.
    pub fn for_command(flags: &Flags, surroundings: &Surroundings) -> Self {
        assemble::read(flags, surroundings, Purpose::Command)
    }

    /// Where a key's value was written.
    pub(crate) fn source_of(&self, key: &'static str) -> Source {
        self.entries.source(key, &[])
    }

    /// Every key with its effective value and where that comes from, secrets masked.
    pub fn show(&self) -> Vec<Shown> {
        report::show(&self.entries)
    }
}

/// A key as `config show` prints it.
#[derive(Clone, Debug)]
pub struct Shown {
    /// The key.
    pub key: String,
    /// Its value in TOML's notation, masked where it is a secret; absent: unset.
    pub value: Option<String>,
    /// Where the value comes from.
    pub source: Source,
    /// The file that a secret was read from.
    pub file: Option<PathBuf>,
}
