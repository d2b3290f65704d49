//! Users with passwords, for the stories about them.

use std::net::IpAddr;
use std::sync::Arc;

use cloakroom::core::event::Actor;
use cloakroom::core::session::{Client, Delivery, Object};
use cloakroom::core::store_key::MasterKey;
use cloakroom::core::types::{Partition, Secret, Subject};
use cloakroom::store::{Key, Kind, Record, Store};
use cloakroom::{
    Authority, Clock, Context, Login, NewPassword, NewUser, Opened, Settings, StoreSecret,
    SystemEntropy, UserView,
};

use crate::world::*;

pub(crate) const NAME: &str = "ada@example.com";
pub(crate) const PASSWORD: &str = "walnut orbit nine umbrellas";
pub(crate) const OTHER_PASSWORD: &str = "seven lanterns over the river";

pub(crate) fn secret(text: &str) -> Secret<String> {
    Secret::new(text.to_owned())
}

pub(crate) fn login(identifier: &str, password: &str) -> Login {
    Login {
        identifier: identifier.to_owned(),
        password: secret(password),
        delivery: Delivery::Cookie,
        remember: false,
        label: None,
        carried: Vec::new(),
    }
}

pub(crate) fn new_user(identifier: &str, password: Option<&str>) -> NewUser {
    NewUser {
        identifier: identifier.to_owned(),
        password: password.map(|text| NewPassword::Chosen(secret(text))),
        ..NewUser::default()
    }
}

pub(crate) fn object(value: serde_json::Value) -> Object {
    value.as_object().cloned().unwrap_or_default()
}

/// A request from an address.
pub(crate) fn from(ip: &str) -> Context {
    let ip: IpAddr = ip.parse().expect("an address");
    let client = Client { ip: Some(ip), user_agent: None, label: None };
    Context { actor: Actor::User(None), client, request_id: None }
}

impl World {
    pub(crate) async fn user(&self, identifier: &str) -> UserView {
        let new = new_user(identifier, Some(PASSWORD));
        self.authority.create_user(new, &ctx()).await.expect("a user")
    }

    pub(crate) async fn sign_in(&self) -> Opened {
        self.sign_in_for(Delivery::Cookie).await
    }

    pub(crate) async fn sign_in_for(&self, delivery: Delivery) -> Opened {
        let login = Login { delivery, ..login(NAME, PASSWORD) };
        self.authority.sign_in(login, &ctx()).await.expect("a sign-in")
    }
}

/// An authority of its own over a store that others may use too.
pub(crate) async fn node<S: Store>(store: S, world: &World, settings: Settings) -> Authority<S> {
    let secret = StoreSecret { master: MasterKey::from_bytes([7; 32]), previous: None };
    let clock = Arc::clone(&world.clock) as Arc<dyn Clock>;
    let entropy = Arc::new(SystemEntropy::new());
    Authority::open(store, settings, secret, clock, entropy).await.expect("an authority")
}

/// All records of a kind.
pub(crate) async fn records<S: Store>(authority: &Authority<S>, kind: Kind) -> Vec<(Key, Record)> {
    let mut found = Vec::new();
    for number in 0..authority.store().partitions() {
        let page = authority.store().page(Partition(number), kind, None, 1000);
        let page = page.await.expect("a page");
        found.extend(page.into_iter().map(|(key, versioned)| (key, versioned.record)));
    }
    found
}

/// The stored password hash of a user.
pub(crate) async fn stored_hash<S: Store>(authority: &Authority<S>, id: &Subject) -> String {
    let users = records(authority, Kind::User).await;
    let hash = users.into_iter().find_map(|(key, record)| match record {
        Record::User(user) if key == Key::User(id.clone()) => user.password,
        _ => None,
    });
    hash.expect("a hash")
}
