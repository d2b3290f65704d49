//! Why a store on Redis can't be used.

/// Why a store can't be used, in one plain sentence and without a credential.
#[derive(Debug, thiserror::Error)]
pub enum RedisError {
    /// The URL can't be used; says why.
    #[error("the URL of the store can't be used: {0}")]
    Url(&'static str),
    /// The namespace would confuse the slots of a cluster, or people.
    #[error(
        "the namespace `{0}` can't be used: it must be 1 to 64 letters, digits, `-`, `_`, `.` \
         or `:`"
    )]
    Namespace(String),
    /// There must be some partitions, and not too many.
    #[error("a store has 1 to 1024 partitions, not {0}")]
    Partitions(u16),
    /// A file for TLS can't be used.
    #[error("TLS can't be set up: {0}")]
    Tls(String),
    /// The server doesn't answer, or not yet.
    #[error("Redis can't be reached at {address}: {problem}")]
    Unreachable {
        /// Which server.
        address: String,
        /// What went wrong.
        problem: String,
    },
    /// No sentinel knows the master.
    #[error("no sentinel names a master called `{0}`")]
    NoMaster(String),
    /// The sentinels are replacing the master; what it may yet answer counts no more.
    #[error("the sentinels are replacing the master")]
    FailingOver,
    /// Nobody owns a part of the cluster's slots.
    #[error("the cluster has no master for slot {0}")]
    NoOwner(u16),
    /// The server refuses the user or the password.
    #[error("Redis at {0} refuses the user or the password")]
    WrongLogin(String),
    /// The user lacks a privilege.
    #[error("the user of Redis lacks a privilege: {0}")]
    MissingPrivilege(String),
    /// The server is too old.
    #[error("Redis at {address} has version {found}, at least 6.2 is needed")]
    OldVersion {
        /// Which server.
        address: String,
        /// Its version.
        found: String,
    },
    /// The server may drop what it was given.
    #[error(
        "Redis at {address} has `maxmemory-policy {policy}` and may drop sessions and \
         revocations; set it to `noeviction`"
    )]
    Evicts {
        /// Which server.
        address: String,
        /// Its policy.
        policy: String,
    },
    /// The server is a replica.
    #[error("Redis at {0} is a replica; name its master, or the sentinels that know it")]
    Replica(String),
    /// The server is part of a cluster.
    #[error("Redis at {0} is part of a cluster; write `redis+cluster://` instead of `redis://`")]
    PartOfCluster(String),
    /// The server is not part of a cluster.
    #[error("Redis at {0} is no cluster; write `redis://` instead of `redis+cluster://`")]
    NoCluster(String),
    /// The server has fewer databases than the URL names.
    #[error("Redis at {0} has no database of the number that the URL of the store names")]
    NoDatabase(String),
    /// What the URL names as a sentinel is none.
    #[error("Redis at {0} is no sentinel; write `redis://` instead of `redis+sentinel://`")]
    NoSentinel(String),
    /// Nobody has made a store of that namespace there.
    #[error("Redis has no store of the namespace `{0}`")]
    NoStore(String),
    /// The store was made by another release, or its layout can't be read.
    #[error("the store has the layout `{0}`, which this release doesn't know; use a newer one")]
    Layout(String),
    /// The server takes no writes.
    #[error("Redis takes no writes: {0}")]
    ReadOnly(String),
    /// The server said something that was not expected.
    #[error("Redis at {address} answered something unexpected: {problem}")]
    Unexpected {
        /// Which server.
        address: String,
        /// What.
        problem: String,
    },
}

impl RedisError {
    /// Whether it may pass by itself, so that trying again is worthwhile.
    pub const fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { .. }
            | Self::NoMaster(_)
            | Self::FailingOver
            | Self::NoOwner(_)
            | Self::Replica(_)
            | Self::ReadOnly(_)
            | Self::Unexpected { .. } => true,
            Self::Url(_)
            | Self::Namespace(_)
            | Self::Partitions(_)
            | Self::Tls(_)
            | Self::WrongLogin(_)
            | Self::MissingPrivilege(_)
            | Self::OldVersion { .. }
            | Self::Evicts { .. }
            | Self::PartOfCluster(_)
            | Self::NoCluster(_)
            | Self::NoDatabase(_)
            | Self::NoSentinel(_)
            | Self::NoStore(_)
            | Self::Layout(_) => false,
        }
    }
}
