//! Loads that bring along what the found records name.

use cloakroom_core::types::Partition;
use cloakroom_store::owners::confirmed;
use cloakroom_store::{Follow, Found, Key, Kind, StoreError};
use tokio::time::Instant;

use crate::RedisStore;
use crate::keys::Keys;
use crate::link::Expects;
use crate::read;
use crate::script::{Call, FOLLOW};
use crate::server::Effect;

impl RedisStore {
    /// In one trip, where the server has all of it.
    pub(crate) async fn load_and_follow(
        &self,
        partition: Partition,
        keys: &[Key],
        follow: Follow,
    ) -> Result<Found, StoreError> {
        let deadline = Instant::now() + self.server.timeout;
        if let Some(names) = self.owners.guess(keys, follow) {
            // Mostly a good guess, and then it takes no script.
            let found = self.load_guessed(deadline, partition, keys, names, follow).await?;
            if let Some(found) = found {
                return Ok(found);
            }
        }
        let call = call(&self.keys(partition)?, keys, follow);
        let answer = self.server.call_by(deadline, partition, &call, Effect::None).await?;
        let found = match read::followed(&answer.value, partition, keys, follow)? {
            Some(found) if self.is_certain(&found) => found,
            Some(_) | None => self.load_in_steps(deadline, partition, keys, follow).await?,
        };
        self.owners.learn(keys, &found.asked);
        Ok(found)
    }

    /// By plain reads, of one state; none where the records name others than was guessed.
    async fn load_guessed(
        &self,
        deadline: Instant,
        partition: Partition,
        keys: &[Key],
        names: Vec<Key>,
        follow: Follow,
    ) -> Result<Option<Found>, StoreError> {
        let all = [keys, &names].concat();
        let asked = self.load_plainly(deadline, partition, &all, expected(&all)).await?;
        Ok(asked.and_then(|asked| confirmed(keys, names, follow, asked)))
    }

    /// While a slot moves, a key that the server wasn't told of may have gone ahead.
    fn is_certain(&self, found: &Found) -> bool {
        !self.server.routes.is_cluster() || found.followed.iter().all(|(_, found)| found.is_some())
    }

    /// Asks again with what the last answer named, until an answer names no more.
    async fn load_in_steps(
        &self,
        deadline: Instant,
        partition: Partition,
        keys: &[Key],
        follow: Follow,
    ) -> Result<Found, StoreError> {
        let mut names: Vec<Key> = Vec::new();
        for _ in 0..STEPS_MAX {
            let all = [keys, &names].concat();
            let mut asked = self.load_by(deadline, partition, &all).await?;
            let beside = asked.split_off(keys.len());
            let named = follow.keys(keys, &asked);
            if named == names {
                let followed = names.into_iter().zip(beside).collect();
                return Ok(Found { asked, followed });
            }
            names = named;
        }
        let why = "records change faster than they can be read";
        Err(StoreError::Unavailable(why.to_owned()))
    }
}

/// What a session that is looked at names is there with it; whether a token is denied is open.
fn expected(keys: &[Key]) -> Expects {
    let is_there = |kind| match kind {
        Kind::Session | Kind::Subject | Kind::Index | Kind::Partition => true,
        Kind::Data
        | Kind::User
        | Kind::Identifier
        | Kind::Handle
        | Kind::DeniedToken
        | Kind::Throttle
        | Kind::SigningKey
        | Kind::ApiKey
        | Kind::StoreKey
        | Kind::Settings => false,
    };
    if keys.iter().all(|key| is_there(key.kind())) { Expects::Values } else { Expects::Gaps }
}

fn call(named: &Keys, keys: &[Key], follow: Follow) -> Call {
    let spelled: Vec<_> = keys.iter().map(|key| named.record(key)).collect();
    let (what, at_least, from) = match follow {
        Follow::Nothing | Follow::Subject => ("subject", 0, Kind::Session),
        Follow::SubjectAndIndex => ("both", 0, Kind::Session),
        Follow::Sessions { at_least } => ("sessions", at_least, Kind::Index),
    };
    let mut call = Call::script(&FOLLOW, &spelled);
    call.arg(named.prefix()).arg(what).arg(at_least);
    // Scripts count from 1.
    for (place, _) in (1..).zip(keys).filter(|(_, key)| key.kind() == from) {
        let place: usize = place;
        call.arg(place);
    }
    call
}

/// How often the names may change while they are read.
const STEPS_MAX: usize = 8;
