//! What each key takes and what it refuses, as tables.

use super::{TLS, World, key, refused, taken};

#[test]
fn numbers_and_times_are_bounded() {
    refused(OUT_OF_BOUNDS);
    taken(&[
        // A short lifetime alone is no contradiction: it ends the session before idleness does.
        ("session.absolute = \"10s\"\nsession.absolute_remember = \"10s\"", &[]),
        ("outage.grace = 0\nsession.max_data = 4096\ntoken.audience = \"shop\"", &[]),
    ]);
}

/// Files, the key each is refused for, and a part of what is said.
const OUT_OF_BOUNDS: &[(&str, &str, &str)] = &[
    ("refresh.grace = \"7d\"", "refresh.grace", "shorter than `refresh.ttl`"),
    ("session.keep_ended = \"9m\"", "session.keep_ended", "at least 10m"),
    ("session.idle = \"0\"", "session.idle", "at least 1s"),
    ("session.idle = \"8d\"", "session.idle", "`session.absolute`"),
    ("session.idle_remember = \"31d\"", "session.idle_remember", "absolute_remember"),
    ("session.absolute_remember = \"401d\"", "session.absolute_remember", "at most 400d"),
    ("token.access_ttl = \"999ms\"", "token.access_ttl", "at least 1s"),
    ("token.key_rotation = \"5m\"", "token.key_rotation", "at least 10m"),
    ("store.timeout = \"0\"", "store.timeout", "at least"),
    ("store.partitions = 0", "store.partitions", "from 1 to 1024"),
    ("store.partitions = 1025", "store.partitions", "from 1 to 1024"),
    ("store.partitions = -1", "store.partitions", "a whole number"),
    ("store.pool = \"16\"", "store.pool", "without quotes"),
    ("store.migrate = \"yes\"", "store.migrate", "without quotes"),
    ("store.namespace = \"Shop\"", "store.namespace", "a-z"),
    ("session.max_data = \"1MiB\"", "session.max_data", "from 2 to"),
    ("session.max_claims = \"8KiB\"", "session.max_claims", "from 2 to 5120"),
    ("session.max_data = \"16 KB\"", "session.max_data", "is a size"),
    ("verify.max_staleness = \"500ms\"", "verify.max_staleness", "at least 600ms"),
    ("outage.grace = \"99999999999999999999d\"", "outage.grace", "is a duration"),
    ("events.keep = \"18446744073709551615d\"", "events.keep", "too long"),
    ("limit.session = \"0/15m\"", "limit.session", "is no quota"),
    ("limit.session = \"100\"", "limit.session", "100/15m"),
    ("token.audience = []", "token.audience", "must name an audience"),
    ("token.issuer = 5", "token.issuer", "is text, not an integer"),
    ("server = 5", "server", "is a section"),
];

#[test]
fn j5_weak_or_ruinous_argon2_parameters_are_refused() {
    refused(&[
        ("password.argon2 = \"m=8,t=2,p=1\"", "password.argon2", "weaker"),
        ("password.argon2 = \"m=19456,t=1,p=1\"", "password.argon2", "weaker"),
        ("password.argon2 = \"m=19456,t=2,p=0\"", "password.argon2", "weaker"),
        ("password.argon2 = \"m=4194304,t=2,p=1\"", "password.argon2", "more than"),
        ("password.argon2 = \"m=19456,t=1000000,p=1\"", "password.argon2", "more than"),
        ("password.argon2 = \"m=19456,t=2\"", "password.argon2", "is written"),
        ("password.argon2 = \"m=19456,t=2,p=1,x=1\"", "password.argon2", "is written"),
        ("password.min_length = 7", "password.min_length", "at least 8"),
        ("password.max_length = 63", "password.min_length", "at least 64"),
    ]);
    taken(&[
        ("password.argon2 = \"p=1,t=5,m=7168\"", &[]),
        ("password.min_length = 8", &["password.min_length"]),
    ]);
}

#[test]
fn an_otlp_endpoint_is_a_base_url_where_the_program_can_send_to_one() {
    const KEY: &str = "telemetry.otlp_endpoint";
    let set = |url: &str| format!("{KEY} = {url:?}");
    for (url, why) in [
        ("grpc://127.0.0.1:4317", "http://127.0.0.1:4318"),
        ("127.0.0.1:4318", "http://127.0.0.1:4318"),
        ("http://127.0.0.1:4318/?key=x", "http://127.0.0.1:4318"),
        ("https://user:secret@collector.example", "no user"),
    ] {
        refused(&[(&set(url), KEY, why)]);
    }
    if cfg!(feature = "otlp") {
        taken(&[(&set("http://127.0.0.1:4318"), &[]), (&set("https://o.example/otlp"), &[])]);
    } else {
        refused(&[(&set("http://127.0.0.1:4318"), KEY, "built without OTLP")]);
    }
}

#[test]
fn each_store_is_named_by_its_scheme() {
    let master = format!("master_key = {:?}\n", key("master_key").example);
    for url in [
        "redis://h",
        "rediss://u:p@h:6380/2",
        "redis+cluster://h,i",
        "redis+sentinel://h/m",
        "postgres://u@h/d",
        "postgresql://h/d",
    ] {
        taken(&[(&format!("{master}store.url = {url:?}"), &[])]);
    }
    refused(&[("store.url = \"mysql://u:hunter2@h\"", "store.url", "is `file:DIR`")]);
}

#[test]
fn settings_of_a_network_store_go_together() {
    let master = key("master_key").example;
    let store = format!("master_key = {master:?}\nstore.url = \"rediss://h\"\n");
    let with = |line: &str| format!("{store}{line}");
    refused(&[
        (&with("store.tls.cert_file = \"x\""), "store.tls.cert_file", "beside it"),
        (&with("store.tls.key_file = \"x\""), "store.tls.key_file", "beside it"),
        (&with("store.replica_wait = \"2s\""), "store.replica_wait", "shorter"),
    ]);
    // What a schema is called is stricter than what keys may begin with.
    let schema = |name: &str| {
        format!(
            "master_key = {master:?}\nstore.url = \"postgres://u:p@h/d\"\n\
             store.namespace = {name:?}\n"
        )
    };
    let long = "a".repeat(49);
    for name in ["shop-one", "pg_shop", &long] {
        refused(&[(&schema(name), "store.namespace", "schema on PostgreSQL")]);
        if !name.starts_with("pg_") {
            taken(&[(&with(&format!("store.namespace = {name:?}")), &[])]);
        }
    }
    taken(&[(&schema("shop_1"), &[])]);
    taken(&[
        (&with("store.tls.ca_file = \"x\"\nstore.replica_wait = \"0\""), &[]),
        (&with("verify.cache = true\nverify.max_staleness = \"1s\""), &["verify.max_staleness"]),
        ("verify.cache = true", &["verify.cache"]),
        ("store.replica_wait = \"50ms\"", &["store.replica_wait"]),
    ]);
}

#[test]
fn d5_only_bare_origins_are_taken() {
    for key in ["csrf.allowed_origins", "cors.allowed_origins"] {
        for bad in ["*", "null", "https://a.example/", "https://*.example", "a.example", ""] {
            let world = World::new().file(&format!("{key} = [\"https://b.example\", {bad:?}]"));
            let problems = world.problems();
            assert_eq!(problems.len(), 1, "{key} {bad}: {problems:?}");
            assert_eq!(problems[0].key, key);
        }
        taken(&[(&format!("{key} = [\"https://a.example\", \"http://b.example:8080\"]"), &[])]);
    }
    for bad in ["auth", "/auth/", "/", "", "/a//b", "/a b", "/a/../b", "/a?b", "/{x}"] {
        refused(&[(&format!("server.base_path = {bad:?}"), "server.base_path", "")]);
    }
}

#[test]
fn i8_a_policy_that_nobody_could_mean_is_refused() {
    for (members, member, part) in [
        ("{ requires = [\"role:admin\"] }", ".requires", "no member"),
        ("{ require = [\"role\"] }", ".require", "role:admin"),
        ("{ max_age = 300 }", ".max_age", "no unit"),
        ("{ csrf = \"off\" }", ".csrf", "one of"),
        ("{ require = { a = 1 } }", ".require", "list"),
        ("true", "", "is a policy such as"),
    ] {
        let text = format!("forward_auth.policies.admin = {members}");
        refused(&[(&text, &format!("forward_auth.policies.admin{member}"), part)]);
    }
    refused(&[
        ("forward_auth.policies = 1", "forward_auth.policies", "a table"),
        ("forward_auth.policies.\"a/b\" = {}", "forward_auth.policies.a/b", "policy name"),
    ]);
}

#[test]
fn e12_the_upstreams_audience_is_no_audience_of_access_tokens() {
    let audience = "forward_auth.audience";
    refused(&[("forward_auth.audience = \"cloakroom\"", audience, "token.audience")]);
    taken(&[("forward_auth.audience = \"backend\"", &[])]);
}

#[test]
fn claims_headers_and_caps_that_contradict_are_refused() {
    let headers = "forward_auth.claim_headers";
    refused(&[
        ("forward_auth.claim_headers = [\"a b\"]", headers, "refused"),
        ("forward_auth.claim_headers = [\"a-b\", \"A_B\"]", headers, "same"),
        ("token.extra_claims = { sub = \"x\" }", "token.extra_claims.sub", "registered"),
        ("token.extra_claims = { a = 2020-01-01 }", "token.extra_claims.a", "quote it"),
        ("session.aal_caps.aal2.idle = \"48h\"", "session.aal_caps.aal2", "no longer"),
        ("session.aal_caps.aal4.idle = \"1h\"", "session.aal_caps.aal4", "`absolute`"),
        ("session.aal_caps.aal2.both = \"1h\"", "session.aal_caps.aal2.both", "neither"),
    ]);
}

#[test]
fn o1_a_sign_in_page_is_a_path_of_ours_or_a_url() {
    for bad in ["//evil", "/\\evil", "javascript:x", "https://", "https:///x", "/a b", "/a#b", ""] {
        let text = format!("forward_auth.sign_in_url = {bad:?}");
        refused(&[(&text, "forward_auth.sign_in_url", "is a path")]);
    }
    for good in ["/auth/sign-in", "https://id.example.com/sign-in?x=y"] {
        taken(&[(&format!("forward_auth.sign_in_url = {good:?}"), &[])]);
    }
}

#[test]
fn a_listener_off_loopback_needs_tls_or_a_proxy_in_front() {
    refused(EXPOSED);
    let https = "server.origin = \"https://app.example\"\n";
    let proxied = "server.public = \"0.0.0.0:7400\"\nserver.trusted_proxies = [\"10.0.0.1\"]";
    let admin = "server.admin = \"10.0.0.1:7401\"\n\
        server.admin_tls = { cert_file = \"c\", key_file = \"k\", client_ca_file = \"a\" }";
    taken(&[
        (&format!("{TLS}{https}server.public = \"0.0.0.0:7400\""), &[]),
        (&format!("{https}{proxied}"), &[]),
        (&format!("{https}{admin}"), &[]),
        ("server.public = \"unix:/run/a.sock\"\nserver.admin = \"unix:/run/b.sock\"", &[]),
        ("server.public = \"[::1]:0\"\nserver.admin = \"127.0.0.1:0\"", &[]),
        ("server.public = \"[::ffff:127.0.0.1]:7400\"", &[]),
    ]);
}

/// Files, the key each is refused for, and a part of what is said.
const EXPOSED: &[(&str, &str, &str)] = &[
    ("server.public = \"0.0.0.0:7400\"", "server.public", "server.trusted_proxies"),
    ("server.public = \"[::]:7400\"", "server.public", "server.tls.cert_file"),
    ("server.public = \"192.0.2.7:7400\"", "server.public", "off loopback"),
    ("server.admin = \"0.0.0.0:7401\"", "server.admin", "server.admin_tls.cert_file"),
    ("server.admin = \"127.0.0.1:7400\"", "server.admin", "is the public listener"),
    ("server.public = \"unix:relative\"", "server.public", "absolute path"),
    ("server.public = \"7400\"", "server.public", "an address and a port"),
    ("server.tls.cert_file = \"c.pem\"", "server.tls.cert_file", "`server.tls.key_file`"),
    ("server.admin_tls.key_file = \"k\"", "server.admin_tls.key_file", "admin_tls.cert_file"),
    ("server.admin_tls.client_ca_file = \"c\"", "server.admin_tls.client_ca_file", "need"),
];
