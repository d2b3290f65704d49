//! What is refused, how it is told, and what never shows.

use super::super::Loaded;
use super::super::keys::keys;
use super::{TLS, World, key, refused, taken};

/// The problems as lines, without the directory.
fn told(world: &World) -> Vec<String> {
    let directory = format!("{}/", world.directory.path().display());
    world.problems().iter().map(|problem| problem.to_string().replace(&directory, "")).collect()
}

#[test]
fn all_errors_come_at_once_each_with_its_line() {
    let world = World::new()
        .file(
            "refresh.grace = 30\n\
             \n\
             [server]\n\
             public = \"0.0.0.0:7400\"\n\
             base_paht = \"/auth\"\n\
             origin = \"https://app.example/\"\n\
             [token]\n\
             algorithm = \"none\"\n\
             [limit]\n\
             session = \"100\"\n",
        )
        .variable("CLOAKROOM_SESSION__IDLE", "soon");
    let told = told(&world);
    let begins: Vec<_> = told.iter().map(|line| line.split(' ').next().unwrap_or("")).collect();
    assert_eq!(
        begins,
        [
            "cloakroom.toml:1:",
            "cloakroom.toml:4:",
            "cloakroom.toml:5:",
            "cloakroom.toml:6:",
            "cloakroom.toml:8:",
            "cloakroom.toml:10:",
            "env",
        ],
        "{told:#?}"
    );
    assert!(told[0].contains("`refresh.grace` has no unit: `30s`"), "{}", told[0]);
    assert!(told[2].contains("did you mean `server.base_path`?"), "{}", told[2]);
    assert!(told[4].contains("`EdDSA`, `ES256`, `RS256`, `HS256`"), "{}", told[4]);
}

#[test]
fn a_file_that_is_no_toml_is_told_with_its_line_and_without_its_text() {
    let world = World::new().file("[token]\nhs256_secret = \"hunter2 hunter2\n\n[server\n");
    let told = told(&world);
    assert!(told[0].starts_with("cloakroom.toml:2: no TOML:"), "{told:#?}");
    assert!(!told.join("\n").contains("hunter2"), "{told:#?}");
}

#[test]
fn an_unknown_key_suggests_the_nearest() {
    for (text, suggestion) in [
        ("store.ulr = \"memory:\"", Some("store.url")),
        ("refresh.graze = \"1s\"", Some("refresh.grace")),
        ("[session]\nidle_rember = \"1d\"", Some("session.idle_remember")),
        ("master_key_fil = \"x\"", Some("master_key_file")),
        ("[forward_auth.policy.admin]\nacr = \"aal2\"", Some("forward_auth.policies")),
        ("[colours]\nred = 1", None),
    ] {
        let told = told(&World::new().file(text));
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(told[0].contains("is no key"), "{told:?}");
        match suggestion {
            Some(name) => {
                assert!(told[0].contains(&format!("did you mean `{name}`?")), "{told:?}");
            }
            None => assert!(!told[0].contains("did you mean"), "{told:?}"),
        }
    }
    for (name, suggestion) in [
        ("CLOAKROOM_REFRESH_GRACE", "CLOAKROOM_REFRESH__GRACE"),
        ("CLOAKROOM_STORE__ULR", "CLOAKROOM_STORE__URL"),
        ("CLOAKROOM_MASTERKEY", "CLOAKROOM_MASTER_KEY"),
    ] {
        let told = told(&World::new().variable(name, "x"));
        assert_eq!(told.len(), 1, "{told:?}");
        let expected = format!(
            "env {name}: names no key of the configuration; did you mean \
             `{suggestion}`?"
        );
        assert_eq!(told[0], expected);
    }
}

#[test]
fn i1_trusting_every_address_is_warned_of() {
    taken(&[
        ("server.trusted_proxies = [\"0.0.0.0/0\"]", &["server.trusted_proxies"]),
        ("server.trusted_proxies = [\"10.0.0.0/8\", \"::/0\"]", &["server.trusted_proxies"]),
        ("server.trusted_proxies = [\"10.1.2.3/8\", \"fd00::1\"]", &[]),
    ]);
    refused(&[
        ("server.trusted_proxies = [\"proxy\"]", "server.trusted_proxies", "no network"),
        ("server.trusted_proxies = [\"10.0.0.0/33\"]", "server.trusted_proxies", "no network"),
    ]);
}

#[test]
fn c4_insecure_cookies_are_for_loopback_only() {
    let exposed = format!(
        "{TLS}server.origin = \"https://app.example\"\n\
         server.public = \"0.0.0.0:7400\"\n"
    );
    refused(&[
        (&format!("{exposed}cookie.secure = false"), "cookie.secure", "on loopback"),
        ("cookie.same_site = \"None\"", "cookie.same_site", "with `Secure` only"),
        ("cookie.partitioned = true", "cookie.partitioned", "with `Secure` only"),
        ("cookie.domain = \".example.com\"", "cookie.domain", "a domain"),
        ("cookie.domain = \"com\"", "cookie.domain", "a domain"),
        ("cookie.domain = \"Example.com\"", "cookie.domain", "in lower case"),
        ("cookie.domain = \"a.example; Path=/\"", "cookie.domain", "a domain"),
        ("cookie.domain = \"127.0.0.1\"", "cookie.domain", "a domain"),
    ]);
    assert!(World::new().file(&exposed).config().cookie.secure);
    taken(&[
        ("cookie.secure = false", &[]),
        ("cookie.secure = true\ncookie.same_site = \"None\"\ncookie.partitioned = true", &[]),
        ("server.origin = \"https://app.example\"\ncookie.secure = false", &["cookie.secure"]),
        ("server.origin = \"https://a.example.com\"\ncookie.domain = \"example.com\"", &[]),
        (
            "server.origin = \"https://a.example.com\"\ncookie.domain = \"b.example.com\"",
            &["cookie.domain"],
        ),
    ]);
}

#[test]
fn e11_weak_shared_secrets_are_refused() {
    let secret =
        |secret: &str| format!("token.algorithm = \"HS256\"\ntoken.hs256_secret = \"{secret}\"");
    refused(&[
        ("token.algorithm = \"HS256\"", "token.algorithm", "needs `token.hs256_secret`"),
        (&secret("secret"), "token.hs256_secret", "at least 32 bytes"),
        (&secret(&key("token.hs256_secret").example[..31]), "token.hs256_secret", "32 bytes"),
        (&secret("your-256-bit-secret-your-256-bit-secret"), "token.hs256_secret", ""),
        (&secret(""), "token.hs256_secret", "at least 32 bytes"),
        ("token.hs256_secret = 1234567890123456789", "token.hs256_secret", "not an integer"),
        ("token.algorithm = \"HS512\"", "token.algorithm", "one of"),
        ("token.algorithm = \"none\"", "token.algorithm", "one of"),
    ]);
    taken(&[
        (&secret(key("token.hs256_secret").example), &[]),
        (
            &secret(key("token.hs256_secret").example).replace("HS256\"", "ES256\""),
            &["token.hs256_secret"],
        ),
    ]);
}

#[test]
fn g11_a_master_key_is_32_bytes() {
    refused(&[
        ("master_key = \"short\"", "master_key", "is no master key"),
        ("master_key = \"\"", "master_key", "is no master key"),
        (
            &format!("master_key_previous = {:?}", key("master_key").example),
            "master_key_previous",
            "needs the `master_key`",
        ),
    ]);
    let problems = World::new().file("store.url = \"redis://localhost\"").problems();
    assert!(problems.iter().any(|problem| problem.key == "master_key"), "{problems:?}");
}

#[test]
fn a_path_in_the_place_of_a_secret_is_recognised_and_said() {
    let world = World::new();
    let path = world.write("key", "x");
    for path in [path.to_str().expect("UTF-8"), "./secret", "../x", "~/x", "/etc/x/master.key"] {
        for name in ["master_key", "token.hs256_secret"] {
            let problems = World::new().file(&format!("{name} = {path:?}")).problems();
            assert_eq!(problems.len(), 1, "{problems:?}");
            let expected = format!("is a path; the key that names a file is `{name}_file`");
            assert_eq!(problems[0].text, expected);
        }
    }
}

#[test]
fn a_secret_given_twice_or_in_a_missing_or_empty_file_is_refused() {
    let world = World::new();
    let empty = world.write("empty", "\n");
    let empty = empty.to_str().expect("UTF-8");
    refused(&[
        (
            &format!("master_key = {0:?}\nmaster_key_file = {empty:?}", key("master_key").example),
            "master_key_file",
            "which is empty",
        ),
        ("master_key_file = \"/nonexistent\"", "master_key_file", "can't be read"),
    ]);
    let good = world.write("good", key("master_key").example);
    let twice = format!(
        "master_key = {:?}\nmaster_key_file = {:?}",
        key("master_key").example,
        good.to_str().expect("UTF-8")
    );
    refused(&[(&twice, "master_key", "given twice")]);
}

#[test]
fn m1_no_secret_is_shown_printed_or_told() {
    const MARK: &str = "hunter2";
    for tested in keys().filter(|key| key.shape.is_secret()) {
        for value in [
            format!("{MARK}0123456789012345678901234567890123456"),
            format!("redis://user:{MARK}@host/0?password={MARK}"),
            format!("postgres://user:{MARK}@{MARK}@host/db?sslpassword={MARK}&x=y"),
            format!("./{MARK}"),
        ] {
            for world in [
                World::new().file(&format!("{} = {value:?}", tested.name)),
                World::new().variable(&tested.variable(), &value),
            ] {
                let loaded = world.load();
                let json: Vec<_> = loaded.show().iter().map(|shown| shown.to_json()).collect();
                let printed = format!("{loaded:?} {:?} {json:?}", loaded.show());
                let told = format!("{printed} {:?}", loaded.outcome.map_err(|all| all.to_string()));
                assert!(!told.contains(MARK), "{}: {told}", tested.name);
            }
        }
    }
}

#[test]
fn a_command_asks_for_no_secret_that_only_a_node_uses() {
    let store = "store.url = \"redis://127.0.0.1\"\n";
    for text in [
        store.to_owned(),
        format!("master_key_file = \"/nonexistent\"\n{store}"),
        "token.algorithm = \"HS256\"\n".to_owned(),
        "token = { algorithm = \"HS256\", hs256_secret_file = \"/nonexistent\" }\n".to_owned(),
    ] {
        let world = World::new().file(&text);
        assert!(world.load().outcome.is_err(), "{text}");
        let loaded = Loaded::for_command(&world.flags, &world.surroundings);
        assert!(loaded.outcome.is_ok(), "{text}: {:?}", loaded.outcome);
        assert!(!loaded.warnings.is_empty(), "{text}");
    }
    // What is written wrongly is wrong for everybody.
    for text in ["master_key = \"short\"\n", "store.url = \"redis:\"\n", "nonsense = 1\n"] {
        let world = World::new().file(text);
        let loaded = Loaded::for_command(&world.flags, &world.surroundings);
        assert!(loaded.outcome.is_err(), "{text}");
    }
}
