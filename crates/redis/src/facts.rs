//! What a server says of itself: who it is, and what it promises about what it was given.

use cloakroom_store::Durability;
use redis::{Pipeline, Value};

use crate::error::RedisError;
use crate::fault::Fault;
use crate::link::answer;
use crate::value;

/// What is known of a server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Facts {
    /// `major.minor.patch`, of Redis or of the Redis that it is like.
    pub(crate) version: String,
    /// `standalone`, `sentinel` or `cluster`.
    pub(crate) mode: String,
    /// Whether it is a master.
    pub(crate) is_master: bool,
    /// How many replicas are connected to it.
    pub(crate) replicas: u32,
    /// What it does when it is full.
    pub(crate) eviction: String,
    /// Whether it answers a write only when it is on its disk.
    pub(crate) is_flushing: bool,
}

impl Facts {
    /// What to ask.
    pub(crate) fn questions() -> Pipeline {
        let mut questions = redis::pipe();
        for section in ["server", "replication", "memory"] {
            questions.cmd("INFO").arg(section);
        }
        questions.cmd("CONFIG").arg("GET").arg("append*");
        questions
    }

    /// Reads the answers.
    pub(crate) fn read(replies: Vec<Value>) -> Result<Self, Fault> {
        let mut replies = replies.into_iter();
        let mut info = || {
            let reply = replies.next().unwrap_or_default();
            answer(reply).map(|reply| value::text(&reply).unwrap_or_default().to_owned())
        };
        let (server, replication, memory) = (info()?, info()?, info()?);
        // Who may not ask for the configuration is told nothing, and promised nothing.
        let config = answer(replies.next().unwrap_or_default()).unwrap_or_default();
        let is = |name: &str, wanted: &str| {
            value::pairs(&config).iter().any(|(key, value)| *key == name && *value == wanted)
        };
        let field = |text: &str, name: &str| find(text, name).unwrap_or_default().to_owned();
        Ok(Self {
            version: field(&server, "redis_version"),
            mode: field(&server, "redis_mode"),
            is_master: find(&replication, "role") == Some("master"),
            replicas: replicas(&replication),
            eviction: field(&memory, "maxmemory_policy"),
            is_flushing: is("appendonly", "yes") && is("appendfsync", "always"),
        })
    }

    /// Whether a store may be kept on it; says why not.
    pub(crate) fn check(&self, address: &str) -> Result<(), RedisError> {
        let address = address.to_owned();
        let mut numbers = self.version.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
        let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
        if version < VERSION_MIN {
            return Err(RedisError::OldVersion { address, found: self.version.clone() });
        }
        if !self.is_master {
            return Err(RedisError::Replica(address));
        }
        if self.eviction != "noeviction" {
            return Err(RedisError::Evicts { address, policy: self.eviction.clone() });
        }
        Ok(())
    }

    /// What is promised about a commit that no replica has acknowledged.
    ///
    /// With replicas it may be lost when one takes over, whatever this server's disk has.
    pub(crate) fn durability(&self) -> Durability {
        if self.is_flushing && self.replicas == 0 { Durability::Durable } else { Durability::Local }
    }
}

/// How many replicas `INFO replication` tells of.
pub(crate) fn replicas(info: &str) -> u32 {
    find(info, "connected_slaves").and_then(|count| count.parse().ok()).unwrap_or(0)
}

fn find<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}

/// What our commands and options need.
const VERSION_MIN: (u32, u32) = (6, 2);

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Facts {
        Facts {
            version: "7.0.15".to_owned(),
            mode: "standalone".to_owned(),
            is_master: true,
            replicas: 0,
            eviction: "noeviction".to_owned(),
            is_flushing: true,
        }
    }

    #[test]
    fn a_server_that_may_lose_sessions_is_refused() {
        assert!(good().check("h:1").is_ok());
        for version in ["6.0.16", "5.0.0", "", "x"] {
            let facts = Facts { version: version.to_owned(), ..good() };
            assert!(matches!(facts.check("h:1"), Err(RedisError::OldVersion { .. })));
        }
        let facts = Facts { eviction: "allkeys-lru".to_owned(), ..good() };
        assert!(matches!(facts.check("h:1"), Err(RedisError::Evicts { .. })));
        let facts = Facts { is_master: false, ..good() };
        assert!(matches!(facts.check("h:1"), Err(RedisError::Replica(_))));
        assert!(Facts { version: "10.0.1".to_owned(), ..good() }.check("h:1").is_ok());
    }

    #[test]
    fn only_what_no_takeover_can_lose_is_durable() {
        assert_eq!(good().durability(), Durability::Durable);
        assert_eq!(Facts { replicas: 1, ..good() }.durability(), Durability::Local);
        assert_eq!(Facts { is_flushing: false, ..good() }.durability(), Durability::Local);
    }

    #[test]
    fn answers_are_read_whatever_else_they_say() {
        let info = |text: &str| Value::BulkString(text.as_bytes().to_vec());
        let config = ["appendonly", "yes", "appendfsync", "always"].map(info).to_vec();
        let facts = Facts::read(vec![
            info("# Server\r\nredis_version:7.0.15\r\nredis_mode:standalone\r\n"),
            info("role:master\r\nconnected_slaves:0\r\n"),
            info("maxmemory:0\r\nmaxmemory_policy:noeviction\r\n"),
            Value::Array(config),
        ]);
        assert_eq!(facts.ok(), Some(good()));
    }
}
