//! The demonstration: an authority in a directory of its own that goes away with it, with users
//! and sessions to look at, and a tour of commands to paste.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::time::Duration;

use cloakroom::store::Store;
use cloakroom::{Authority, Context, Error, NewPassword, NewUser, OpenRequest};
use cloakroom_core::session::{Client, Delivery, Grant, Object};
use cloakroom_core::types::{Secret, Subject};

use crate::cli::output::quoted;
use crate::config::{Config, Flags, Loaded, Problems, Surroundings};

/// The password of the demonstration's users. The listeners are on loopback, and the users are
/// gone with the program.
pub const PASSWORD: &str = "violet umbrella 42";
/// The users, with the role that each has.
const USERS: [(&str, &str); 2] = [("ada@example.com", "admin"), ("grace@example.com", "user")];
/// Devices on which they are signed in already: whose, which, by which agent, from where.
const DEVICES: [(usize, &str, &str, [u8; 4]); 3] = [
    (
        0,
        "Office",
        "Mozilla/5.0 (X11; Linux x86_64; rv:141.0) Gecko/20100101 Firefox/141.0",
        [203, 0, 113, 9],
    ),
    (
        1,
        "Phone",
        "Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605.1.15 \
         (KHTML, like Gecko) Version/18.5 Mobile/15E148 Safari/604.1",
        [198, 51, 100, 7],
    ),
    (
        1,
        "Tablet",
        "Mozilla/5.0 (Linux; Android 15; Pixel Tablet) AppleWebKit/537.36 (KHTML, like Gecko) \
         Chrome/138.0.0.0 Safari/537.36",
        [198, 51, 100, 8],
    ),
];

/// Where a demonstration listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ports {
    /// The public listener's.
    pub public: u16,
    /// The admin listener's.
    pub admin: u16,
}

impl Ports {
    /// The ports asked for; where none is, the usual one if it is free, else any.
    pub fn choose(public: Option<u16>, admin: Option<u16>) -> Self {
        let free = |port: u16| {
            TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
                .and_then(|listener| listener.local_addr())
                .map(|address| address.port())
                .ok()
        };
        // Zero means any, and the port has to be known: browsers must see the same origin.
        let choose = |asked: Option<u16>, usual: u16| match asked {
            Some(0) => free(0).unwrap_or(usual),
            Some(port) => port,
            None => free(usual).or_else(|| free(0)).unwrap_or(usual),
        };
        Self { public: choose(public, PUBLIC_PORT), admin: choose(admin, ADMIN_PORT) }
    }
}

/// The public listener's usual port.
const PUBLIC_PORT: u16 = 7400;
/// The admin listener's usual port.
const ADMIN_PORT: u16 = 7401;

/// The configuration of a demonstration in `dir`: the defaults, whatever this machine's own
/// configuration says.
///
/// # Errors
///
/// What is wrong with the defaults, which is a defect.
pub fn config(dir: &Path, ports: Ports) -> Result<Box<Config>, Problems> {
    let set = |name: &str, value: String| (format!("CLOAKROOM_{name}"), value);
    let variables = BTreeMap::from([
        set("SERVER__PUBLIC", format!("127.0.0.1:{}", ports.public)),
        set("SERVER__ADMIN", format!("127.0.0.1:{}", ports.admin)),
        set("SERVER__ORIGIN", format!("http://localhost:{}", ports.public)),
        // So few sessions need no more, and the directory is made and gone faster.
        set("STORE__PARTITIONS", "16".to_owned()),
        // The tour plays a gateway on this machine.
        set("SERVER__TRUSTED_PROXIES", "127.0.0.0/8".to_owned()),
        set("LOG__LEVEL", "warn".to_owned()),
    ]);
    let surroundings = Surroundings {
        variables,
        unreadable: Vec::new(),
        search: Vec::new(),
        ..Surroundings::of_process()
    };
    let flags = Flags { config: None, data: Some(dir.to_owned()) };
    Loaded::read(&flags, &surroundings).outcome
}

/// Makes the users and signs them in on their devices.
///
/// # Errors
///
/// Why the authority can't.
pub async fn populate<S: Store>(authority: &Authority<S>) -> Result<(), Error> {
    let ctx = Context::system();
    let mut users = Vec::new();
    for (identifier, role) in USERS {
        let claims = Object::from_iter([
            ("email".to_owned(), identifier.into()),
            ("role".to_owned(), role.into()),
        ]);
        let password = Some(NewPassword::Chosen(Secret::new(PASSWORD.to_owned())));
        let user = NewUser { identifier: identifier.to_owned(), password, claims, disabled: false };
        users.push(authority.create_user(user, &ctx).await?.id);
    }
    for (owner, label, agent, ip) in DEVICES {
        let Some(user) = users.get(owner) else { continue };
        authority.open_session(sign_in(user, label, agent, ip), &ctx).await?;
    }
    Ok(())
}

fn sign_in(user: &Subject, label: &str, agent: &str, ip: [u8; 4]) -> OpenRequest {
    let client = Client {
        ip: Some(ip.into()),
        user_agent: Some(agent.to_owned()),
        label: Some(label.to_owned()),
    };
    let grant = Grant {
        subject: Some(user.clone()),
        delivery: Delivery::Cookie,
        remember: true,
        claims: Object::new(),
        amr: vec!["pwd".to_owned()],
        acr: "aal1".to_owned(),
        actor: None,
        idle_timeout: None,
        lifetime: Some(Duration::from_secs(24 * 3600)),
        client,
    };
    OpenRequest::new(grant)
}

/// The tour: prose, and commands indented by four, to be pasted in order into one shell.
pub fn tour(dir: &Path, ports: Ports, program: &Path) -> String {
    let public = format!("http://localhost:{}", ports.public);
    let admin = format!("http://127.0.0.1:{}", ports.admin);
    let (dir, program) = (quoted(dir), quoted(program));
    let user = USERS[0].0;
    let mut text = String::new();
    // Writing to a string can't fail.
    let _ = write!(
        text,
        r#"Cloakroom is running, with example users and sessions. Ctrl-C ends it and leaves nothing.

  public   {public}   for browsers, apps and gateways
  admin    {admin}   for you and your backends
  users    ada@example.com, grace@example.com   password: {PASSWORD}
  API key  {dir}/root-api.key

Paste these into another terminal, in order.

1. Ada signs in as in a browser: the jar keeps the cookie, the answer has her CSRF token.

    cd {dir}
    json='Content-Type: application/json'
    curl -sS -c jar -H "$json" {public}/auth/login \
      -d '{{"identifier":"{user}","password":"{PASSWORD}"}}' > ada.json
    csrf=$(sed -n 's/.*"csrf_token":"\([^"]*\)".*/\1/p' ada.json)
    cat ada.json; echo

2. A gateway asks, for each request, whether she may pass: 200, and who she is. The application
   behind it gets these headers, and a signed token of its own.

    curl -sS -i -b jar -H 'X-Forwarded-Method: GET' -H 'X-Forwarded-Uri: /reports' \
      {public}/auth/verify; echo

3. She signs in on her phone too, by tokens instead of a cookie.

    curl -sS -H "$json" {public}/auth/login \
      -d '{{"identifier":"{user}","password":"{PASSWORD}","delivery":"bearer","label":"My phone"}}' \
      > phone.json
    phone=$(sed -n 's/.*"session":{{"id":"\([^"]*\)".*/\1/p' phone.json)
    refresh=$(sed -n 's/.*"refresh_token":"\([^"]*\)".*/\1/p' phone.json)
    cat phone.json; echo

4. The phone refreshes: a new access token and a new refresh token.

    curl -sS -H "$json" {public}/auth/refresh -d "{{\"refresh_token\":\"$refresh\"}}" > fresh.json
    access=$(sed -n 's/.*"access_token":"\([^"]*\)".*/\1/p' fresh.json)
    curl -sS -i -H "Authorization: Bearer $access" {public}/auth/session; echo

5. In the browser she sees where she is signed in.

    curl -sS -b jar {public}/auth/sessions; echo

6. She signs the phone out from there: 204. It is refused at once: 401, session_ended.

    curl -sS -i -b jar -X DELETE -H "X-CSRF-Token: $csrf" {public}/auth/sessions/$phone
    curl -sS -i -H "Authorization: Bearer $access" {public}/auth/session; echo

7. You, the operator, see what happened, by HTTP or by this program.

    curl -sS -H "Authorization: Bearer $(cat root-api.key)" \
      '{admin}/admin/v1/events?order=desc&limit=1'; echo
    {program} sessions list --admin-url {admin} --api-key-file root-api.key

"#
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_demonstration_has_defaults_only() {
        let dir = tempfile::TempDir::new().expect("a directory");
        let config = config(dir.path(), Ports { public: 1, admin: 2 }).expect("good");
        assert_eq!(config.data_dir, dir.path());
        assert!(config.server.public.is_local() && config.server.admin.is_local());
        assert_eq!(config.server.origin.to_string(), "http://localhost:1");
    }

    #[test]
    fn the_tour_can_be_pasted_from_any_directory() {
        let ports = Ports { public: 1, admin: 2 };
        let text = tour(Path::new("/tmp/it's here"), ports, Path::new("/bin/cloakroom"));
        assert!(text.contains(r"    cd '/tmp/it'\''s here'"), "{text}");
        assert!(text.lines().all(|line| !line.ends_with(' ')), "{text}");
    }
}
