//! The first start on a store that was put back: nothing of it lives that ended since.

use cloakroom::{Context, Error};
use cloakroom_core::keys::KeyState;
use cloakroom_store::Durability;

use crate::site::Site;

/// Ends every session, and makes every signing key verify nothing any more.
///
/// Whatever fails leaves the node unstarted; all of it can be done again.
pub(super) async fn begin_anew(site: &Site) -> Result<(), Error> {
    let ctx = Context::system();
    let before = site.authority.end_everything(&ctx).await?;
    let records = site.authority.key_records();
    for key in records.iter().filter(|key| key.state != KeyState::Revoked) {
        site.authority.revoke_key(key.kid.as_str(), &ctx).await?;
    }
    if site.store_watch.promise() == Durability::Local {
        tracing::warn!("the store may lose this with a failure of its own");
    }
    tracing::info!(
        ended_before = %crate::view::rfc3339(before),
        keys = records.len(),
        "restored: every session has ended, every signing key is new"
    );
    Ok(())
}
