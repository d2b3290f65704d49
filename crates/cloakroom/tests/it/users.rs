//! The directory, and what is kept of subjects.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use cloakroom::core::event::EventKind;
use cloakroom::core::refusal::Refusal;
use cloakroom::core::session::{Delivery, EndReason, Grant};
use cloakroom::core::types::{Secret, Subject};
use cloakroom::store::record::IdentifierPointer;
use cloakroom::store::{Batch, Key, Kind, Record, Review, Store, Version};
use cloakroom::{Authority, NewPassword, NewUser, SubjectPatch, UserPatch};
use serde_json::json;

use crate::directory::*;
use crate::world::*;

const TAKEN: Refusal = Refusal::Conflict("the identifier is taken");

fn renamed(identifier: &str) -> UserPatch {
    UserPatch { identifier: Some(identifier.into()), ..UserPatch::default() }
}

fn disabled(disabled: bool) -> UserPatch {
    UserPatch { disabled: Some(disabled), ..UserPatch::default() }
}

#[tokio::test]
async fn a_user_is_found_by_id_and_by_any_spelling_of_its_identifier() {
    let world = World::new().await;
    let claims = object(json!({"role": "user"}));
    let new = NewUser { claims, ..new_user("Ada@Example.com", None) };
    let user = world.authority.create_user(new, &ctx()).await.expect("a user");
    assert!(user.id.as_str().starts_with("usr_"));
    assert_eq!((user.identifier.as_str(), user.disabled), ("Ada@Example.com", false));
    assert_eq!(user.password_changed_at, None);
    let found = world.authority.user(&user.id).await.expect("found");
    assert_eq!(found.claims, object(json!({"role": "user"})));
    let found = world.authority.user_by_identifier(" ada@EXAMPLE.com").await.expect("an answer");
    assert_eq!(found.expect("found").id, user.id);
    for unknown in ["bob@example.com", "", "a\0b"] {
        let found = world.authority.user_by_identifier(unknown).await.expect("an answer");
        assert!(found.is_none());
    }
    assert_eq!(refusal(world.authority.user(&ada()).await), Refusal::NotFound);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_many_who_take_one_identifier_at_once_exactly_one_has_it() {
    let world = World::new().await;
    for round in 0..10 {
        let name = format!("user{round}@example.com");
        let created = together(50, |_| {
            let (authority, name) = (Arc::clone(&world.authority), name.clone());
            async move { authority.create_user(new_user(&name, None), &ctx()).await }
        });
        let (ok, refused): (Vec<_>, Vec<_>) = created.await.into_iter().partition(Result::is_ok);
        assert_eq!((ok.len(), refused.len()), (1, 49));
        assert!(refused.into_iter().all(|refused| refusal(refused) == TAKEN));
        let owner = world.authority.user_by_identifier(&name).await.expect("an answer");
        assert_eq!(owner.map(|user| user.id), ok[0].as_ref().ok().map(|user| user.id.clone()));
    }
    let users = world.authority.users(None, 200).await.expect("a page");
    assert_eq!(users.users.len(), 10, "no loser leaves a user behind");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn users_who_swap_identifiers_at_once_never_share_one() {
    let world = World::new().await;
    for round in 0..50 {
        let names = [format!("a{round}@example.com"), format!("b{round}@example.com")];
        let wanted = format!("c{round}@example.com");
        let users = [world.user(&names[0]).await, world.user(&names[1]).await];
        let taken = together(2, |n| {
            let (authority, id) = (Arc::clone(&world.authority), users[n].id.clone());
            let wanted = wanted.clone();
            async move { authority.patch_user(&id, renamed(&wanted), &ctx()).await }
        });
        let taken = taken.await.into_iter().filter(Result::is_ok).count();
        assert_eq!(taken, 1);
        let mut found = BTreeSet::new();
        for name in names.iter().chain([&wanted]) {
            let user = world.authority.user_by_identifier(name).await.expect("an answer");
            found.extend(user.map(|user| user.id));
        }
        assert_eq!(found.len(), 2, "both users are found by one name each");
    }
}

#[tokio::test]
async fn a_renamed_user_keeps_its_sessions_and_frees_the_former_name() {
    let world = World::new().await;
    let user = world.user(NAME).await;
    let opened = world.sign_in().await;
    world.advance(SECOND);
    let changed = world.authority.patch_user(&user.id, renamed("ada@example.org"), &ctx()).await;
    assert_eq!(changed.expect("a change").identifier, "ada@example.org");
    assert!(world.verify(&opened).await.is_ok());
    let refused = world.authority.sign_in(login(NAME, PASSWORD), &ctx()).await;
    assert_eq!(refusal(refused), Refusal::CredentialsInvalid);
    let by_new = world.authority.sign_in(login("ada@example.org", PASSWORD), &ctx()).await;
    assert!(by_new.is_ok());
    let other = world.user(NAME).await;
    let refused = world.authority.patch_user(&user.id, renamed(NAME), &ctx()).await;
    assert_eq!(refusal(refused), TAKEN);
    assert_ne!(other.id, user.id);
}

#[tokio::test]
async fn a_user_may_change_a_name_and_change_it_back() {
    let world = World::new().await;
    let user = world.user(NAME).await;
    for name in ["ada@example.org", NAME, "Ada@Example.com", "ada@example.org"] {
        let changed = world.authority.patch_user(&user.id, renamed(name), &ctx()).await;
        assert_eq!(changed.expect("a change").identifier, name);
        let found = world.authority.user_by_identifier(name).await.expect("an answer");
        assert_eq!(found.map(|user| user.id), Some(user.id.clone()));
    }
    world.advance(SECOND);
    world.authority.patch_user(&user.id, renamed(NAME), &ctx()).await.expect("a change");
    let former = world.authority.user_by_identifier("ada@example.org").await;
    assert!(former.expect("an answer").is_none());
}

/// Leaves a name claimed for a user that was never made, as a crash would.
async fn abandon<S: Store>(authority: &Authority<S>, name: &str) {
    let hash = authority.keys().identifier_hash(name);
    let partition = authority.keys().partition_of_bytes(&hash, authority.store().partitions());
    let pointer = IdentifierPointer {
        user: Subject::parse("usr_never_made").expect("a subject"),
        at: authority.now(),
    };
    let mut batch = Batch::default();
    let record = Record::Identifier(pointer);
    batch.put(Key::Identifier(hash), Version::ZERO, record, Review::Never);
    authority.store().commit(partition, batch).await.expect("a commit");
}

#[tokio::test]
async fn an_unfinished_claim_of_a_name_lapses_after_a_minute() {
    let world = World::new().await;
    abandon(&world.authority, NAME).await;
    let found = world.authority.user_by_identifier(NAME).await.expect("an answer");
    assert!(found.is_none());
    let refused = world.authority.sign_in(login(NAME, PASSWORD), &ctx()).await;
    assert_eq!(refusal(refused), Refusal::CredentialsInvalid);
    world.advance(Duration::from_secs(59));
    let refused = world.authority.create_user(new_user(NAME, None), &ctx()).await;
    assert_eq!(refusal(refused), TAKEN);
    world.advance(SECOND);
    let user = world.user(NAME).await;
    assert_eq!(world.sign_in().await.session.subject, Some(user.id));
}

#[tokio::test]
async fn registering_tells_that_a_name_is_taken_and_opens_no_session() {
    let world = World::new().await;
    let user = world.authority.register(NAME, secret(PASSWORD), &ctx()).await.expect("a user");
    assert!(world.authority.sessions_of(&user.id).await.expect("a list").is_empty());
    let hashed = world.authority.password_load().hashed;
    let refused = world.authority.register("ADA@example.com", secret(PASSWORD), &ctx()).await;
    assert_eq!(refusal(refused), TAKEN);
    assert_eq!(world.authority.password_load().hashed, hashed, "looked at before hashing");
    let refused = world.authority.register("b@example.com", secret("short"), &ctx()).await;
    assert!(matches!(refusal(refused), Refusal::PasswordRejected(_)));
    let refused = world.authority.register("a\nb", secret(PASSWORD), &ctx()).await;
    let Refusal::InvalidMember { member, .. } = refusal(refused) else { panic!("another refusal") };
    assert_eq!(member, "identifier");
}

#[tokio::test]
async fn e8_k9_claims_with_registered_names_or_too_many_are_refused_everywhere() {
    let world = World::new().await;
    let user = world.user(NAME).await;
    let bad = |claims: serde_json::Value| UserPatch {
        claims: Some(object(claims)),
        ..UserPatch::default()
    };
    for name in ["iss", "sub", "aud", "exp", "sid", "epoch", "acr", "cnf", "__proto__"] {
        let claims = json!({name: "x"});
        let new = NewUser { claims: object(claims.clone()), ..new_user("b@example.com", None) };
        let refused = world.authority.create_user(new, &ctx()).await;
        assert!(matches!(refusal(refused), Refusal::InvalidMember { .. }), "{name}");
        let refused = world.authority.patch_user(&user.id, bad(claims.clone()), &ctx()).await;
        assert!(matches!(refusal(refused), Refusal::InvalidMember { .. }), "{name}");
        let patch = SubjectPatch { claims: Some(object(claims)), disabled: None };
        let refused = world.authority.patch_subject(&user.id, patch, &ctx()).await;
        assert!(matches!(refusal(refused), Refusal::InvalidMember { .. }), "{name}");
    }
    let half = "x".repeat(3000);
    let first = world.authority.patch_user(&user.id, bad(json!({"a": half})), &ctx()).await;
    assert!(first.is_ok());
    let refused = world.authority.patch_user(&user.id, bad(json!({"b": half})), &ctx()).await;
    assert!(matches!(refusal(refused), Refusal::TooLarge { .. }), "checked after the merge");
    let known = world.authority.user(&user.id).await.expect("a user");
    assert_eq!(known.claims.keys().collect::<Vec<_>>(), ["a"]);
}

#[tokio::test]
async fn a_users_claims_are_its_subjects_and_reach_live_sessions_at_once() {
    let world = World::new().await;
    let user = world.user(NAME).await;
    let opened = world.sign_in().await;
    let claims = Some(object(json!({"role": "admin", "team": "red"})));
    let patch = UserPatch { claims, ..UserPatch::default() };
    world.authority.patch_user(&user.id, patch, &ctx()).await.expect("a change");
    let seen = world.verify(&opened).await.expect("live").claims();
    assert_eq!(seen, object(json!({"role": "admin", "team": "red"})));
    let patch = SubjectPatch { claims: Some(object(json!({"role": null}))), disabled: None };
    let view = world.authority.patch_subject(&user.id, patch, &ctx()).await.expect("a change");
    assert_eq!((view.live_sessions, view.ended), (1, None));
    let seen = world.verify(&opened).await.expect("live").claims();
    assert_eq!(seen, object(json!({"team": "red"})));
    let user = world.authority.user(&user.id).await.expect("a user");
    assert_eq!(user.claims, object(json!({"team": "red"})));
}

#[tokio::test]
async fn a7_disabling_ends_all_and_enabling_revives_none() {
    let world = World::new().await;
    let user = world.user(NAME).await;
    let mut opened = Vec::new();
    for delivery in [Delivery::Cookie, Delivery::Bearer, Delivery::Split] {
        opened.push(world.sign_in_for(delivery).await);
    }
    opened.push(world.refresh(opened[1].token.expose()).await.expect("rotated"));
    let view = world.authority.patch_user(&user.id, disabled(true), &ctx()).await;
    let view = view.expect("disabled");
    assert!(view.disabled && view.ended.is_some());
    let refused = world.authority.sign_in(login(NAME, PASSWORD), &ctx()).await;
    assert_eq!(refusal(refused), Refusal::CredentialsInvalid);
    for round in [true, false] {
        for opened in &opened {
            assert_eq!(ended(world.verify(opened).await), EndReason::UserDisabled, "{round}");
        }
        let view = world.authority.patch_user(&user.id, disabled(false), &ctx()).await;
        assert!(!view.expect("enabled").disabled);
    }
    assert!(world.authority.sign_in(login(NAME, PASSWORD), &ctx()).await.is_ok());
    assert_eq!(world.count_events(EventKind::UserDisabled).await, 1);
    assert_eq!(world.count_events(EventKind::UserEnabled).await, 1);
}

#[tokio::test]
async fn a7_a_password_set_by_the_operator_ends_all_sessions() {
    let world = World::new().await;
    let user = world.user(NAME).await;
    let opened = world.sign_in().await;
    world.advance(SECOND);
    let patch = UserPatch { password: Some(secret(OTHER_PASSWORD)), ..UserPatch::default() };
    let view = world.authority.patch_user(&user.id, patch, &ctx()).await.expect("a change");
    assert_eq!(view.password_changed_at, Some(world.authority.now()));
    assert_eq!(ended(world.verify(&opened).await), EndReason::PasswordChanged);
    let refused = world.authority.sign_in(login(NAME, PASSWORD), &ctx()).await;
    assert_eq!(refusal(refused), Refusal::CredentialsInvalid);
    assert!(world.authority.sign_in(login(NAME, OTHER_PASSWORD), &ctx()).await.is_ok());
}

#[tokio::test]
async fn a7_a_deleted_user_leaves_a_subject_that_revives_nothing() {
    let world = World::new().await;
    let user = world.user(NAME).await;
    let opened = [world.sign_in().await, world.sign_in_for(Delivery::Bearer).await];
    world.advance(SECOND);
    let deleted = world.authority.delete_user(&user.id, &ctx()).await.expect("a deletion");
    assert_eq!(deleted.revoked, 2);
    for opened in &opened {
        assert_eq!(ended(world.verify(opened).await), EndReason::UserDisabled);
    }
    assert_eq!(refusal(world.authority.user(&user.id).await), Refusal::NotFound);
    assert_eq!(refusal(world.authority.delete_user(&user.id, &ctx()).await), Refusal::NotFound);
    let subject = world.authority.subject(&user.id).await.expect("it stays");
    assert_eq!((subject.state.epoch, subject.live_sessions), (1, 0));
    let grant = Grant { subject: Some(user.id.clone()), ..grant(Delivery::Cookie) };
    let refused = world.authority.open_session(request(grant), &ctx()).await;
    assert!(matches!(refusal(refused), Refusal::Conflict(_)));
    let again = world.user(NAME).await;
    assert_ne!(again.id, user.id, "the name is free, the id is not");
    assert_eq!(records(&world.authority, Kind::Identifier).await.len(), 1);
}

#[tokio::test]
async fn a_patch_that_changes_nothing_leaves_no_trace() {
    let world = World::new().await;
    let user = world.user(NAME).await;
    let opened = world.sign_in().await;
    let before = world.events().await.len();
    let claims = Some(object(json!({"absent": null})));
    let identifier = Some(NAME.to_owned());
    let patch = UserPatch { claims, identifier, disabled: Some(false), password: None };
    world.authority.patch_user(&user.id, patch, &ctx()).await.expect("an answer");
    world.authority.patch_user(&user.id, UserPatch::default(), &ctx()).await.expect("an answer");
    assert_eq!(world.events().await.len(), before);
    assert!(world.verify(&opened).await.is_ok());
}

#[tokio::test]
async fn paging_shows_every_user_once() {
    let world = World::new().await;
    let mut made = BTreeSet::new();
    for n in 0..25 {
        made.insert(world.user(&format!("user{n}@example.com")).await.id);
    }
    for limit in [1, 4, 25, 200] {
        let mut seen = Vec::new();
        let mut after: Option<String> = None;
        loop {
            let page = world.authority.users(after.as_deref(), limit).await.expect("a page");
            assert!(page.users.len() <= limit);
            seen.extend(page.users.into_iter().map(|user| user.id));
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        assert_eq!(seen.len(), made.len(), "limit {limit}");
        assert_eq!(seen.into_iter().collect::<BTreeSet<_>>(), made);
    }
    assert!(world.authority.users(Some(""), 10).await.is_err());
}

#[tokio::test]
async fn a_subject_may_be_disabled_before_its_first_session() {
    let world = World::new().await;
    assert_eq!(refusal(world.authority.subject(&ada()).await), Refusal::NotFound);
    let patch = SubjectPatch { disabled: Some(true), claims: None };
    let view = world.authority.patch_subject(&ada(), patch, &ctx()).await.expect("a change");
    assert!(view.state.disabled_at.is_some() && view.ended.is_some());
    let refused = world.authority.open_session(request(grant(Delivery::Cookie)), &ctx()).await;
    assert!(matches!(refusal(refused), Refusal::Conflict(_)));
    let patch = SubjectPatch { disabled: Some(false), claims: None };
    world.authority.patch_subject(&ada(), patch, &ctx()).await.expect("a change");
    assert!(world.verify(&world.open(Delivery::Cookie).await).await.is_ok());
}

#[tokio::test]
async fn an_erased_subject_keeps_nothing_but_its_epoch() {
    let world = World::new().await;
    let user = world.user(NAME).await;
    let claims = Some(object(json!({"email": NAME})));
    let patch = SubjectPatch { claims, disabled: None };
    world.authority.patch_subject(&user.id, patch, &ctx()).await.expect("a change");
    let opened = world.sign_in().await;
    let sid = opened.session.sid;
    let own = object(json!({"nick": "ada"}));
    world.authority.change_claims(sid, &own, &ctx()).await.expect("a change");
    let data = object(json!({"cart": [1]}));
    world.authority.put_data(sid, data, cloakroom::IfMatch::Any, &ctx()).await.expect("stored");
    world.advance(SECOND);
    let erased = world.authority.erase_subject(&user.id, &ctx()).await.expect("erased");
    assert_eq!(erased.revoked, 1);
    assert_eq!(ended(world.verify(&opened).await), EndReason::UserDisabled);
    let listed = world.authority.session(sid).await.expect("kept for its reason");
    assert!(listed.claims.is_empty() && listed.session.client.ip.is_none());
    assert!(records(&world.authority, Kind::Data).await.is_empty());
    assert!(records(&world.authority, Kind::User).await.is_empty());
    assert!(records(&world.authority, Kind::Identifier).await.is_empty());
    let left = world.authority.subject(&user.id).await.expect("its epoch stays").state;
    assert!(left.claims.is_empty() && left.epoch == 1);
    let unknown = Subject::parse("usr_unknown").expect("a subject");
    assert_eq!(refusal(world.authority.erase_subject(&unknown, &ctx()).await), Refusal::NotFound);
}

#[tokio::test]
async fn a_backends_own_subject_may_come_back_after_it_was_erased() {
    let world = World::new().await;
    let opened = world.open(Delivery::Cookie).await;
    world.authority.erase_subject(&ada(), &ctx()).await.expect("erased");
    assert_eq!(ended(world.verify(&opened).await), EndReason::UserDisabled);
    let again = world.open(Delivery::Cookie).await;
    assert!(world.verify(&again).await.is_ok());
    assert_eq!(ended(world.verify(&opened).await), EndReason::UserDisabled);
}

#[tokio::test]
async fn j5_an_imported_hash_works_and_an_absurd_one_is_refused() {
    let world = World::new().await;
    let user = world.user("grace@example.com").await;
    let hash = stored_hash(&world.authority, &user.id).await;
    let imported = |name: &str, hash: &str| NewUser {
        identifier: name.to_owned(),
        password: Some(NewPassword::Hash(Secret::new(hash.to_owned()))),
        ..NewUser::default()
    };
    let made = world.authority.create_user(imported(NAME, &hash), &ctx()).await;
    assert!(made.is_ok());
    assert!(world.authority.sign_in(login(NAME, PASSWORD), &ctx()).await.is_ok());
    for absurd in [hash.replace("m=8,", "m=4194304,"), hash.replace("t=1,", "t=1000000,")] {
        let refused = world.authority.create_user(imported("b@example.com", &absurd), &ctx()).await;
        assert!(matches!(refusal(refused), Refusal::InvalidMember { .. }));
    }
}

#[tokio::test]
async fn j5_a_hash_of_another_library_signs_in_and_is_replaced_by_our_own() {
    let world = World::new().await;
    // Made by werkzeug of "correct horse": shorter than a password chosen here may be.
    let foreign = "pbkdf2:sha256:1000$sO6Fk3g3Yn0RQU0U$\
                   85bf4c9bf5217006c1061841d4aa69512ad7bd0fb8e1f30a947a6580602ad48f";
    let new = NewUser {
        identifier: NAME.to_owned(),
        password: Some(NewPassword::Hash(Secret::new(foreign.to_owned()))),
        ..NewUser::default()
    };
    let user = world.authority.create_user(new, &ctx()).await.expect("a user");
    let wrong = world.authority.sign_in(login(NAME, "correct house"), &ctx()).await;
    assert_eq!(refusal(wrong), Refusal::CredentialsInvalid);
    assert_eq!(stored_hash(&world.authority, &user.id).await, foreign);
    for _ in 0..2 {
        assert!(world.authority.sign_in(login(NAME, "correct horse"), &ctx()).await.is_ok());
    }
    let renewed = stored_hash(&world.authority, &user.id).await;
    assert!(renewed.starts_with("$argon2id$"), "{renewed}");
}

#[tokio::test]
async fn a_user_may_be_checked_without_being_created_and_created_disabled() {
    let world = World::new().await;
    let new = || NewUser { disabled: true, ..new_user("bob@example.com", Some(PASSWORD)) };
    assert!(world.authority.check_user(new()).await.is_ok());
    let found = world.authority.user_by_identifier("bob@example.com").await.expect("an answer");
    assert!(found.is_none());
    let user = world.authority.create_user(new(), &ctx()).await.expect("a user");
    assert!(user.disabled);
    let refused = world.authority.sign_in(login("bob@example.com", PASSWORD), &ctx()).await;
    assert_eq!(refusal(refused), Refusal::CredentialsInvalid);
    let taken = world.authority.check_user(new()).await;
    assert!(matches!(refusal(taken), Refusal::Conflict(_)));
}
