//! What is refused, how it is told, and what never shows.

use super::super::keys::keys;
use super::{World, key};

/// The problems as lines, without the directory.
fn told(world: &World) -> Vec<String> {
    let directory = format!("{}/", world.directory.path().display());
    world
        .problems()
        .iter()
        .map(|problem| problem.to_string().replace(&directory, ""))
        .collect()
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
    let begins: Vec<_> = told
        .iter()
        .map(|line| line.split(' ').next().unwrap_or(""))
        .collect();
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
    assert!(
        told[0].contains("`refresh.grace` has no unit: `30s`"),
        "{}",
        told[0]
    );
    assert!(
        told[2].contains("did you mean `server.base_path`?"),
        "{}",
        told[2]
    );
    assert!(
        told[4].contains("`EdDSA`, `ES256`, `RS256`, `HS256`"),
        "{}",
        told[4]
    );
}

#[test]
fn a_file_that_is_no_toml_is_told_with_its_line_and_without_its_text() {
    let world = World::new().file("[token]\nhs256_secret = \"hunter2 hunter2\n\n[server\n");
    let told = told(&world);
    assert!(
        told[0].starts_with("cloakroom.toml:2: no TOML:"),
        "{told:#?}"
    );
    assert!(!told.join("\n").contains("hunter2"), "{told:#?}");
}

#[test]
fn an_unknown_key_suggests_the_nearest() {
    for (text, suggestion) in [
        ("store.ulr = \"memory:\"", Some("store.url")),
        ("refresh.graze = \"1s\"", Some("refresh.grace")),
        (
            "[session]\nidle_rember = \"1d\"",
            Some("session.idle_remember"),
        ),
        ("master_key_fil = \"x\"", Some("master_key_file")),
        (
            "[forward_auth.policy.admin]\nacr = \"aal2\"",
            Some("forward_auth.policies"),
        ),
        ("[colours]\nred = 1", None),
    ] {
        let told = told(&World::new().file(text));
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(told[0].contains("is no key"), "{told:?}");
        match suggestion {
            Some(name) => {
                assert!(
                    told[0].contains(&format!("did you mean `{name}`?")),
                    "{told:?}"
                );
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

/// Files that are refused because of one key: the key, and a part of what is said.
fn refused(cases: &[(&str, &str, &str)]) {
    for (text, key, part) in cases {
        let problems = World::new().file(text).problems();
        let told: Vec<_> = problems.iter().map(ToString::to_string).collect();
        assert_eq!(problems.len(), 1, "{text}\n{told:#?}");
        assert_eq!(problems[0].key, *key, "{text}\n{told:#?}");
        assert!(problems[0].text.contains(part), "{text}\n{told:#?}");
    }
}

/// Files that are taken, with the keys that are warned of.
fn taken(cases: &[(&str, &[&str])]) {
    for (text, warned) in cases {
        let loaded = World::new().file(text).load();
        let outcome = loaded
            .outcome
            .map(|_| ())
            .map_err(|problems| problems.to_string());
        assert_eq!(outcome, Ok(()), "{text}");
        let keys: Vec<_> = loaded
            .warnings
            .iter()
            .map(|warning| warning.key.as_str())
            .collect();
        assert_eq!(keys, *warned, "{text}");
    }
}

const TLS: &str = "server.tls = { cert_file = \"c.pem\", key_file = \"k.pem\" }\n";

#[test]
fn a_listener_off_loopback_needs_tls_or_a_proxy_in_front() {
    refused(&[
        (
            "server.public = \"0.0.0.0:7400\"",
            "server.public",
            "server.trusted_proxies",
        ),
        (
            "server.public = \"[::]:7400\"",
            "server.public",
            "server.tls.cert_file",
        ),
        (
            "server.public = \"192.0.2.7:7400\"",
            "server.public",
            "off loopback",
        ),
        (
            "server.admin = \"0.0.0.0:7401\"",
            "server.admin",
            "server.admin_tls.cert_file",
        ),
        (
            "server.admin = \"127.0.0.1:7400\"",
            "server.admin",
            "is the public listener",
        ),
        (
            "server.public = \"unix:relative\"",
            "server.public",
            "absolute path",
        ),
        (
            "server.public = \"7400\"",
            "server.public",
            "an address and a port",
        ),
        (
            "server.tls.cert_file = \"c.pem\"",
            "server.tls.cert_file",
            "`server.tls.key_file`",
        ),
        (
            "server.admin_tls.key_file = \"k\"",
            "server.admin_tls.key_file",
            "admin_tls.cert_file",
        ),
        (
            "server.admin_tls.client_ca_file = \"c\"",
            "server.admin_tls.client_ca_file",
            "need",
        ),
    ]);
    let https = "server.origin = \"https://app.example\"\n";
    taken(&[
        (
            &format!("{TLS}{https}server.public = \"0.0.0.0:7400\""),
            &[],
        ),
        (
            &format!(
                "{https}server.public = \"0.0.0.0:7400\"\nserver.trusted_proxies = [\"10.0.0.1\"]"
            ),
            &[],
        ),
        (
            "server.public = \"unix:/run/public.sock\"\nserver.admin = \"unix:/run/admin.sock\"",
            &[],
        ),
        (
            "server.public = \"[::1]:0\"\nserver.admin = \"127.0.0.1:0\"",
            &[],
        ),
        ("server.public = \"[::ffff:127.0.0.1]:7400\"", &[]),
        (
            &format!(
                "{https}server.admin = \"10.0.0.1:7401\"\n\
            server.admin_tls = {{ cert_file = \"c\", key_file = \"k\", client_ca_file = \"a\" }}"
            ),
            &[],
        ),
    ]);
}

#[test]
fn i1_trusting_every_address_is_warned_of() {
    taken(&[
        (
            "server.trusted_proxies = [\"0.0.0.0/0\"]",
            &["server.trusted_proxies"],
        ),
        (
            "server.trusted_proxies = [\"10.0.0.0/8\", \"::/0\"]",
            &["server.trusted_proxies"],
        ),
        (
            "server.trusted_proxies = [\"10.1.2.3/8\", \"fd00::1\"]",
            &[],
        ),
    ]);
    refused(&[
        (
            "server.trusted_proxies = [\"proxy\"]",
            "server.trusted_proxies",
            "no network",
        ),
        (
            "server.trusted_proxies = [\"10.0.0.0/33\"]",
            "server.trusted_proxies",
            "no network",
        ),
    ]);
}

#[test]
fn c4_insecure_cookies_are_for_loopback_only() {
    let exposed = format!(
        "{TLS}server.origin = \"https://app.example\"\n\
         server.public = \"0.0.0.0:7400\"\n"
    );
    refused(&[
        (
            &format!("{exposed}cookie.secure = false"),
            "cookie.secure",
            "on loopback",
        ),
        (
            "cookie.same_site = \"None\"",
            "cookie.same_site",
            "with `Secure` only",
        ),
        (
            "cookie.partitioned = true",
            "cookie.partitioned",
            "with `Secure` only",
        ),
        (
            "cookie.domain = \".example.com\"",
            "cookie.domain",
            "a domain",
        ),
        ("cookie.domain = \"com\"", "cookie.domain", "a domain"),
        (
            "cookie.domain = \"Example.com\"",
            "cookie.domain",
            "in lower case",
        ),
        (
            "cookie.domain = \"a.example; Path=/\"",
            "cookie.domain",
            "a domain",
        ),
        ("cookie.domain = \"127.0.0.1\"", "cookie.domain", "a domain"),
    ]);
    assert!(World::new().file(&exposed).config().cookie.secure);
    taken(&[
        ("cookie.secure = false", &[]),
        (
            "cookie.secure = true\ncookie.same_site = \"None\"\ncookie.partitioned = true",
            &[],
        ),
        (
            "server.origin = \"https://app.example\"\ncookie.secure = false",
            &["cookie.secure"],
        ),
        (
            "server.origin = \"https://a.example.com\"\ncookie.domain = \"example.com\"",
            &[],
        ),
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
        (
            "token.algorithm = \"HS256\"",
            "token.algorithm",
            "needs `token.hs256_secret`",
        ),
        (&secret("secret"), "token.hs256_secret", "at least 32 bytes"),
        (
            &secret(&key("token.hs256_secret").example[..31]),
            "token.hs256_secret",
            "32 bytes",
        ),
        (
            &secret("your-256-bit-secret-your-256-bit-secret"),
            "token.hs256_secret",
            "",
        ),
        (&secret(""), "token.hs256_secret", "at least 32 bytes"),
        (
            "token.hs256_secret = 1234567890123456789",
            "token.hs256_secret",
            "not an integer",
        ),
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
    let problems = World::new()
        .file("store.url = \"redis://localhost\"")
        .problems();
    assert!(
        problems.iter().any(|problem| problem.key == "master_key"),
        "{problems:?}"
    );
}

#[test]
fn a_path_in_the_place_of_a_secret_is_recognised_and_said() {
    let world = World::new();
    let path = world.write("key", "x");
    for path in [
        path.to_str().expect("UTF-8"),
        "./secret",
        "../x",
        "~/x",
        "/etc/x/master.key",
    ] {
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
            &format!(
                "master_key = {0:?}\nmaster_key_file = {empty:?}",
                key("master_key").example
            ),
            "master_key_file",
            "which is empty",
        ),
        (
            "master_key_file = \"/nonexistent\"",
            "master_key_file",
            "can't be read",
        ),
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
fn j5_weak_or_ruinous_argon2_parameters_are_refused() {
    refused(&[
        (
            "password.argon2 = \"m=8,t=2,p=1\"",
            "password.argon2",
            "weaker",
        ),
        (
            "password.argon2 = \"m=19456,t=1,p=1\"",
            "password.argon2",
            "weaker",
        ),
        (
            "password.argon2 = \"m=19456,t=2,p=0\"",
            "password.argon2",
            "weaker",
        ),
        (
            "password.argon2 = \"m=4194304,t=2,p=1\"",
            "password.argon2",
            "more than",
        ),
        (
            "password.argon2 = \"m=19456,t=1000000,p=1\"",
            "password.argon2",
            "more than",
        ),
        (
            "password.argon2 = \"m=19456,t=2\"",
            "password.argon2",
            "is written",
        ),
        (
            "password.argon2 = \"m=19456,t=2,p=1,x=1\"",
            "password.argon2",
            "is written",
        ),
        (
            "password.min_length = 7",
            "password.min_length",
            "at least 8",
        ),
        (
            "password.max_length = 63",
            "password.min_length",
            "at least 64",
        ),
    ]);
    taken(&[
        ("password.argon2 = \"p=1,t=5,m=7168\"", &[]),
        ("password.min_length = 8", &["password.min_length"]),
    ]);
}

#[test]
fn i8_a_policy_that_nobody_could_mean_is_refused() {
    let policy = |members: &str| format!("forward_auth.policies.admin = {members}");
    let members = "forward_auth.policies.admin";
    refused(&[
        (
            &policy("{ requires = [\"role:admin\"] }"),
            &format!("{members}.requires"),
            "no member",
        ),
        (
            &policy("{ require = [\"role\"] }"),
            &format!("{members}.require"),
            "role:admin",
        ),
        (
            &policy("{ max_age = 300 }"),
            &format!("{members}.max_age"),
            "no unit",
        ),
        (
            &policy("{ csrf = \"off\" }"),
            &format!("{members}.csrf"),
            "one of",
        ),
        (
            &policy("{ require = { a = 1 } }"),
            &format!("{members}.require"),
            "list",
        ),
        (&policy("true"), members, "is a policy such as"),
        (
            "forward_auth.policies = 1",
            "forward_auth.policies",
            "a table",
        ),
        (
            "forward_auth.policies.\"a/b\" = {}",
            "forward_auth.policies.a/b",
            "policy name",
        ),
        (
            "forward_auth.audience = \"cloakroom\"",
            "forward_auth.audience",
            "token.audience",
        ),
        (
            "forward_auth.claim_headers = [\"a b\"]",
            "forward_auth.claim_headers",
            "refused",
        ),
        (
            "forward_auth.claim_headers = [\"a-b\", \"A_B\"]",
            "forward_auth.claim_headers",
            "same",
        ),
        (
            "forward_auth.sign_in_url = \"//evil\"",
            "forward_auth.sign_in_url",
            "is a path",
        ),
        (
            "forward_auth.sign_in_url = \"javascript:x\"",
            "forward_auth.sign_in_url",
            "is a path",
        ),
        (
            "token.extra_claims = { sub = \"x\" }",
            "token.extra_claims.sub",
            "registered",
        ),
        (
            "token.extra_claims = { a = 2020-01-01 }",
            "token.extra_claims.a",
            "quote it",
        ),
        (
            "session.aal_caps.aal2.idle = \"48h\"",
            "session.aal_caps.aal2",
            "no longer",
        ),
        (
            "session.aal_caps.aal4.idle = \"1h\"",
            "session.aal_caps.aal4",
            "`absolute`",
        ),
        (
            "session.aal_caps.aal2.both = \"1h\"",
            "session.aal_caps.aal2.both",
            "neither",
        ),
    ]);
}

#[test]
fn d5_only_bare_origins_are_taken() {
    for key in ["csrf.allowed_origins", "cors.allowed_origins"] {
        for bad in [
            "*",
            "null",
            "https://a.example/",
            "https://*.example",
            "a.example",
            "",
        ] {
            let world = World::new().file(&format!("{key} = [\"https://b.example\", {bad:?}]"));
            let problems = world.problems();
            assert_eq!(problems.len(), 1, "{key} {bad}: {problems:?}");
            assert_eq!(problems[0].key, key);
        }
        taken(&[(
            &format!("{key} = [\"https://a.example\", \"http://b.example:8080\"]"),
            &[],
        )]);
    }
    for bad in [
        "auth", "/auth/", "/", "", "/a//b", "/a b", "/a/../b", "/a?b", "/{x}",
    ] {
        refused(&[(
            &format!("server.base_path = {bad:?}"),
            "server.base_path",
            "",
        )]);
    }
}

#[test]
fn numbers_and_times_are_bounded() {
    refused(&[
        (
            "refresh.grace = \"7d\"",
            "refresh.grace",
            "shorter than `refresh.ttl`",
        ),
        (
            "session.keep_ended = \"9m\"",
            "session.keep_ended",
            "at least 10m",
        ),
        ("session.idle = \"0\"", "session.idle", "at least 1s"),
        (
            "session.idle = \"8d\"",
            "session.idle",
            "`session.absolute`",
        ),
        (
            "session.idle_remember = \"31d\"",
            "session.idle_remember",
            "absolute_remember",
        ),
        (
            "session.absolute_remember = \"401d\"",
            "session.absolute_remember",
            "at most 400d",
        ),
        (
            "token.access_ttl = \"999ms\"",
            "token.access_ttl",
            "at least 1s",
        ),
        (
            "token.key_rotation = \"5m\"",
            "token.key_rotation",
            "at least 10m",
        ),
        ("store.timeout = \"0\"", "store.timeout", "at least"),
        ("store.partitions = 0", "store.partitions", "from 1 to 1024"),
        (
            "store.partitions = 1025",
            "store.partitions",
            "from 1 to 1024",
        ),
        (
            "store.partitions = -1",
            "store.partitions",
            "a whole number",
        ),
        ("store.pool = \"16\"", "store.pool", "without quotes"),
        ("store.migrate = \"yes\"", "store.migrate", "without quotes"),
        ("store.namespace = \"Shop\"", "store.namespace", "a-z"),
        (
            "session.max_data = \"1MiB\"",
            "session.max_data",
            "from 2 to",
        ),
        (
            "session.max_claims = \"8KiB\"",
            "session.max_claims",
            "from 2 to 5120",
        ),
        (
            "session.max_data = \"16 KB\"",
            "session.max_data",
            "is a size",
        ),
        (
            "verify.max_staleness = \"500ms\"",
            "verify.max_staleness",
            "at least 600ms",
        ),
        (
            "outage.grace = \"99999999999999999999d\"",
            "outage.grace",
            "is a duration",
        ),
        (
            "events.keep = \"18446744073709551615d\"",
            "events.keep",
            "too long",
        ),
        ("limit.session = \"0/15m\"", "limit.session", "is no quota"),
        ("limit.session = \"100\"", "limit.session", "100/15m"),
        (
            "token.audience = []",
            "token.audience",
            "must name an audience",
        ),
        (
            "token.issuer = 5",
            "token.issuer",
            "is text, not an integer",
        ),
        ("server = 5", "server", "is a section"),
    ]);
    taken(&[
        // A short lifetime alone is no contradiction: it ends the session before idleness does.
        (
            "session.absolute = \"10s\"\nsession.absolute_remember = \"10s\"",
            &[],
        ),
        (
            "outage.grace = 0\nsession.max_data = 4096\ntoken.audience = \"shop\"",
            &[],
        ),
    ]);
}

#[test]
fn what_this_release_does_not_serve_is_refused_when_set() {
    refused(&[
        (
            "telemetry.otlp_endpoint = \"http://o\"",
            "telemetry.otlp_endpoint",
            "not served",
        ),
        (
            "store.replica_wait = \"1s\"",
            "store.replica_wait",
            "not served",
        ),
        (
            "store.tls.ca_file = \"x\"",
            "store.tls.ca_file",
            "not served",
        ),
    ]);
    let key = format!("master_key = {:?}\n", key("master_key").example);
    for url in [
        "redis://h",
        "rediss://h",
        "redis+cluster://h,i",
        "redis+sentinel://h/m",
        "postgres://h/d",
    ] {
        refused(&[(
            &format!("{key}store.url = {url:?}"),
            "store.url",
            "not served",
        )]);
    }
    refused(&[(
        "store.url = \"mysql://u:hunter2@h\"",
        "store.url",
        "is `file:DIR`",
    )]);
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
                let told = format!(
                    "{printed} {:?}",
                    loaded.outcome.map_err(|all| all.to_string())
                );
                assert!(!told.contains(MARK), "{}: {told}", tested.name);
            }
        }
    }
}
