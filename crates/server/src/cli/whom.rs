//! Whom a command means: a user by identifier, or a subject by either.

use cloakroom_core::identifier::Identifier;

use super::client::{Client, encoded};
use super::failure::Failure;

/// The id of the user with exactly this identifier.
///
/// # Errors
///
/// [`Failure::Usage`] for what no identifier is; else why it can't be known.
pub(super) fn user_of(client: &Client, identifier: &str) -> Result<Option<String>, Failure> {
    let wanted = Identifier::parse(identifier)
        .map_err(|why| Failure::Usage(format!("{identifier:?} is no identifier: {why}")))?;
    let found = client.get(&format!("/admin/v1/users?identifier={}", encoded(identifier)))?;
    // Compared here once more: a listing that wasn't narrowed down must not choose somebody.
    let user = found["users"].as_array().into_iter().flatten().find(|user| {
        let theirs = user["identifier"].as_str().map(Identifier::parse);
        matches!(theirs, Some(Ok(theirs)) if theirs == wanted)
    });
    Ok(user.and_then(|user| user["id"].as_str()).map(str::to_owned))
}

/// The subject of this name, if there is any: one that has sessions, else the user who signs in
/// with it. A key that may not look takes the name as it is.
///
/// # Errors
///
/// Why it can't be known.
pub(super) fn subject_of(client: &Client, name: &str) -> Result<Option<String>, Failure> {
    match look_for(client, name) {
        Err(failure) if failure.is_not_allowed() => Ok(Some(name.to_owned())),
        looked => looked,
    }
}

fn look_for(client: &Client, name: &str) -> Result<Option<String>, Failure> {
    if name.starts_with("usr_") {
        return Ok(Some(name.to_owned()));
    }
    let path = format!("/admin/v1/sessions?limit=1&subject={}", encoded(name));
    let sessions = client.get(&path)?;
    let is_subject = sessions["sessions"].as_array().is_some_and(|list| !list.is_empty());
    let user = match Identifier::parse(name) {
        Ok(_) => user_of(client, name)?,
        Err(_) => None,
    };
    match (is_subject, user) {
        (true, Some(user)) => Err(Failure::Usage(format!(
            "{name:?} is a subject with sessions, and the user {user} signs in with it: name the id"
        ))),
        (true, None) => Ok(Some(name.to_owned())),
        (false, user) => Ok(user),
    }
}
