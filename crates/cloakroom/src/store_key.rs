//! The store's own key: made with the store, unwrapped when it is opened, wrapped anew when the
//! operator's master key changes.

use cloakroom_core::event::EventKind;
use cloakroom_core::store_key::{MasterKey, StoreKey};
use cloakroom_core::subject::PartitionState;
use cloakroom_core::types::Partition;
use cloakroom_store::record::StoreSettings;
use cloakroom_store::{Batch, Commit, Key, Record, Review, Store, Version};

use crate::authority::{Authority, OpenError};
use crate::clock::{Clock, Entropy, draw};
use crate::context::{Context, Error, Unavailable};
use crate::place::StoreId;
use crate::transact::{Decision, Loaded};

/// The master key, and the one before it while it is being changed.
#[derive(Debug)]
pub struct StoreSecret {
    /// The key that wraps the store's own.
    pub master: MasterKey,
    /// The key before, still taken.
    pub previous: Option<MasterKey>,
}

/// What a node knows of the store's own key once it is open.
pub(crate) struct Unwrapped {
    pub(crate) key: StoreKey,
    pub(crate) store_id: StoreId,
    /// Wraps it from the next rewrapping on.
    pub(crate) master: MasterKey,
}

impl<S: Store> Authority<S> {
    /// Wraps the store's own key by this node's master key, where another still does; whether it
    /// did. From then on no node starts with the key before, and no session or token notices.
    pub async fn rewrap_store_key(&self, ctx: &Context) -> Result<bool, Error> {
        let nonce = draw(&*self.entropy);
        let decide = |loaded: &Loaded| {
            let Some(Record::StoreKey(wrapped)) = loaded.get(&Key::StoreKey) else {
                return Err(Unavailable::Missing("its own key".into()).into());
            };
            if StoreKey::unwrap(wrapped, &self.unwrapped.master).is_ok() {
                return Ok(Decision::Done(false));
            }
            let anew = self.unwrapped.key.wrap(&self.unwrapped.master, nonce);
            let anew = anew.map_err(|fault| Unavailable::Key(fault.to_string()))?;
            let mut batch = Batch::default();
            let version = loaded.version(&Key::StoreKey);
            batch.put(Key::StoreKey, version, Record::StoreKey(anew), Review::Never);
            batch.audit(ctx.event(EventKind::KeyRewrapped, loaded.now, None, None));
            Ok(Decision::Commit(batch, true))
        };
        Ok(self.transact(Partition::ZERO, vec![Key::StoreKey], decide).await?.0)
    }
}

/// The store's own key, unwrapped, and its id; made with its records where there are none yet.
pub(crate) async fn unwrapped<S: Store>(
    store: &S,
    secret: &StoreSecret,
    clock: &dyn Clock,
    entropy: &dyn Entropy,
) -> Result<Unwrapped, OpenError> {
    loop {
        let keys = [Key::StoreKey, Key::Settings];
        let found = store.load(Partition::ZERO, &keys).await?;
        let mut found = found.into_iter().flatten().map(|versioned| versioned.record);
        match (found.next(), found.next()) {
            (Some(Record::StoreKey(wrapped)), Some(Record::Settings(made))) => {
                if made.partitions != store.partitions() {
                    return Err(OpenError::Unusable(format!(
                        "the store was made with {} partitions, not {}",
                        made.partitions,
                        store.partitions()
                    )));
                }
                let unwrapped = StoreKey::unwrap(&wrapped, &secret.master);
                let key = match (unwrapped, &secret.previous) {
                    (Err(_), Some(previous)) => StoreKey::unwrap(&wrapped, previous)?,
                    (unwrapped, _) => unwrapped?,
                };
                let (store_id, master) = (made.store_id, secret.master.clone());
                return Ok(Unwrapped { key, store_id, master });
            }
            (None, None) => set_up(store, secret, clock, entropy).await?,
            _ => return Err(OpenError::Unusable("the store's own records are incomplete".into())),
        }
    }
}

/// Makes a new store's records. The store's key and settings come last: while they are missing, the
/// store is being set up, by this node or by another.
async fn set_up<S: Store>(
    store: &S,
    secret: &StoreSecret,
    clock: &dyn Clock,
    entropy: &dyn Entropy,
) -> Result<(), OpenError> {
    let epoch = || Record::Partition(PartitionState::default());
    for number in 1..store.partitions() {
        let mut batch = Batch::default();
        batch.put(Key::Partition, Version::ZERO, epoch(), Review::Never);
        // A conflict: it is there already.
        store.commit(Partition(number), batch).await?;
    }
    let wrapped = StoreKey::from_bytes(draw(entropy))
        .wrap(&secret.master, draw(entropy))
        .map_err(|fault| OpenError::Unusable(fault.to_string()))?;
    let settings = StoreSettings {
        partitions: store.partitions(),
        store_id: draw(entropy),
        created_at: clock.now(),
    };
    let mut batch = Batch::default();
    batch
        .put(Key::Partition, Version::ZERO, epoch(), Review::Never)
        .put(Key::StoreKey, Version::ZERO, Record::StoreKey(wrapped), Review::Never)
        .put(Key::Settings, Version::ZERO, Record::Settings(settings), Review::Never);
    match store.commit(Partition::ZERO, batch).await? {
        Commit::Done(_) | Commit::Conflict(_) => Ok(()),
    }
}
