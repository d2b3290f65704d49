//! Passwords that are set by a one-time token.

use cloakroom::core::event::EventKind;
use cloakroom::core::refusal::Refusal;
use cloakroom::core::session::Delivery;
use cloakroom::core::types::Secret;
use cloakroom::{Login, NewPassword, NewUser, UserPatch, UserView, is_reset_token};

use crate::world::{HOUR, SECOND, World, ctx, refusal};

const OLD: &str = "a plain old umbrella";
const NEW: &str = "quite another umbrella";

fn secret(text: &str) -> Secret<String> {
    Secret::new(text.to_owned())
}

async fn user(world: &World) -> UserView {
    let new = NewUser {
        identifier: "ada@example.com".into(),
        password: Some(NewPassword::Chosen(secret(OLD))),
        ..NewUser::default()
    };
    world.authority.create_user(new, &ctx()).await.expect("a user")
}

async fn sign_in(world: &World, password: &str) -> Result<cloakroom::Opened, cloakroom::Error> {
    let login = Login {
        identifier: "ada@example.com".into(),
        password: secret(password),
        delivery: Delivery::Cookie,
        remember: false,
        label: None,
        carried: Vec::new(),
    };
    world.authority.sign_in(login, &ctx()).await
}

#[tokio::test]
async fn a7_a_reset_sets_the_password_once_and_ends_all_sessions() {
    let world = World::new().await;
    let ada = user(&world).await;
    let session = sign_in(&world, OLD).await.expect("signed in");
    let (token, until) = world.authority.issue_reset(&ada.id, &ctx()).await.expect("a token");
    assert!(is_reset_token(token.expose()));
    assert_eq!(until, world.authority.now().plus(HOUR));
    world.verify(&session).await.expect("the token alone changes nothing");
    let (id, ended) =
        world.authority.reset_password(token.expose(), secret(NEW), &ctx()).await.expect("set");
    assert_eq!((id, ended.revoked), (ada.id.clone(), 1));
    assert!(world.verify(&session).await.is_err());
    assert_eq!(refusal(sign_in(&world, OLD).await), Refusal::CredentialsInvalid);
    sign_in(&world, NEW).await.expect("signed in");
    let again = world.authority.reset_password(token.expose(), secret(OLD), &ctx()).await;
    assert_eq!(refusal(again), Refusal::CredentialsInvalid);
    assert_eq!(world.count_events(EventKind::UserResetIssued).await, 1);
    assert_eq!(world.count_events(EventKind::UserPasswordChanged).await, 1);
}

#[tokio::test]
async fn a_reset_counts_for_an_hour_and_the_last_one_only() {
    let world = World::new().await;
    let ada = user(&world).await;
    let (first, _) = world.authority.issue_reset(&ada.id, &ctx()).await.expect("a token");
    let (second, _) = world.authority.issue_reset(&ada.id, &ctx()).await.expect("a token");
    let former = world.authority.reset_password(first.expose(), secret(NEW), &ctx()).await;
    assert_eq!(refusal(former), Refusal::CredentialsInvalid);
    // A password that can't be taken doesn't use the token up.
    let weak = world.authority.reset_password(second.expose(), secret("short"), &ctx()).await;
    assert!(matches!(refusal(weak), Refusal::PasswordRejected(_)));
    world.advance(HOUR - SECOND);
    let set = world.authority.reset_password(second.expose(), secret(NEW), &ctx()).await;
    set.expect("within the hour");
    let (third, _) = world.authority.issue_reset(&ada.id, &ctx()).await.expect("a token");
    world.advance(HOUR);
    let late = world.authority.reset_password(third.expose(), secret(OLD), &ctx()).await;
    assert_eq!(refusal(late), Refusal::CredentialsInvalid);
}

#[tokio::test]
async fn a_reset_dies_with_another_change_and_with_its_user() {
    let world = World::new().await;
    let ada = user(&world).await;
    let (token, _) = world.authority.issue_reset(&ada.id, &ctx()).await.expect("a token");
    let patch = UserPatch { password: Some(secret(NEW)), ..UserPatch::default() };
    world.authority.patch_user(&ada.id, patch, &ctx()).await.expect("changed");
    let late = world.authority.reset_password(token.expose(), secret(OLD), &ctx()).await;
    assert_eq!(refusal(late), Refusal::CredentialsInvalid);
    let (token, _) = world.authority.issue_reset(&ada.id, &ctx()).await.expect("a token");
    let patch = UserPatch { disabled: Some(true), ..UserPatch::default() };
    world.authority.patch_user(&ada.id, patch, &ctx()).await.expect("disabled");
    let late = world.authority.reset_password(token.expose(), secret(OLD), &ctx()).await;
    assert_eq!(refusal(late), Refusal::CredentialsInvalid);
    let refused = world.authority.issue_reset(&ada.id, &ctx()).await;
    assert!(matches!(refusal(refused), Refusal::Conflict(_)));
    // Nor does it count again once the user is enabled again, or has another identifier.
    let patch = UserPatch { disabled: Some(false), ..UserPatch::default() };
    world.authority.patch_user(&ada.id, patch, &ctx()).await.expect("enabled");
    let late = world.authority.reset_password(token.expose(), secret(OLD), &ctx()).await;
    assert_eq!(refusal(late), Refusal::CredentialsInvalid);
    let (token, _) = world.authority.issue_reset(&ada.id, &ctx()).await.expect("a token");
    let identifier = Some("ada@elsewhere.example".to_owned());
    let patch = UserPatch { identifier, ..UserPatch::default() };
    world.authority.patch_user(&ada.id, patch, &ctx()).await.expect("renamed");
    let late = world.authority.reset_password(token.expose(), secret(OLD), &ctx()).await;
    assert_eq!(refusal(late), Refusal::CredentialsInvalid);
    world.authority.delete_user(&ada.id, &ctx()).await.expect("deleted");
    let refused = world.authority.issue_reset(&ada.id, &ctx()).await;
    assert_eq!(refusal(refused), Refusal::NotFound);
}

#[tokio::test]
async fn a_forged_reset_sets_nothing() {
    let world = World::new().await;
    let ada = user(&world).await;
    let (token, _) = world.authority.issue_reset(&ada.id, &ctx()).await.expect("a token");
    let text = token.expose().clone();
    for at in 4..text.len() {
        let mut forged = text.clone().into_bytes();
        forged[at] = if forged[at] == b'A' { b'B' } else { b'A' };
        let forged = String::from_utf8(forged).expect("text");
        let refused = world.authority.reset_password(&forged, secret(NEW), &ctx()).await;
        assert_eq!(refusal(refused), Refusal::CredentialsInvalid, "{at}");
    }
    for forged in ["ckp_", "ckp_x", "", &text[4..]] {
        let refused = world.authority.reset_password(forged, secret(NEW), &ctx()).await;
        assert_eq!(refusal(refused), Refusal::CredentialsInvalid);
    }
    world.authority.reset_password(&text, secret(NEW), &ctx()).await.expect("the control");
}
