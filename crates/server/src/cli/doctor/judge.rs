//! What is right and what is wrong: from what was read to findings, without looking anywhere.

use cloakroom_core::origin::Scheme;
use serde_json::Value;

use super::Finding;
use crate::config::Config;

/// How far apart two clocks may be before it is worth a word; the authority stops at 2 s.
const DRIFT_WORTH_A_WORD_MS: u64 = 500;

/// What `readyz` says of the store and its clock.
pub(super) fn store(ready: &Value) -> Vec<Finding> {
    const ABOUT: &str = "store";
    let name = ready["store"].as_str().unwrap_or("of an unknown kind");
    let store = match (name, ready["durability"].as_str().unwrap_or_default()) {
        ("memory", _) => Finding::look(
            ABOUT,
            "memory: everything is gone when the process ends",
            "set store.url, such as file:/var/lib/cloakroom",
        ),
        (name, "local") => Finding::look(
            ABOUT,
            format!("{name}: an acknowledged change may be lost with power (durability: local)"),
            "Redis: appendonly yes, appendfsync always; see docs/operate/redis.md",
        ),
        (name, promise) => Finding::ok(ABOUT, format!("{name}, durability: {promise}")),
    };
    std::iter::once(store).chain(clock(ready)).collect()
}

/// What `readyz` says of the clock, whether the node is ready or isn't because of it.
pub(super) fn clock(ready: &Value) -> Option<Finding> {
    const ABOUT: &str = "clock";
    let ahead = ready["store_clock_ahead_ms"].as_i64()?;
    let says = format!("the store's is {ahead} ms ahead of this node's");
    Some(if ready["code"].is_string() {
        Finding::wrong(ABOUT, says, "let both keep time (NTP); a node over 2 s off isn't ready")
    } else if ahead.unsigned_abs() < DRIFT_WORTH_A_WORD_MS {
        Finding::ok(ABOUT, says)
    } else {
        Finding::look(ABOUT, says, "let both keep time (NTP); over 2 s it isn't ready")
    })
}

/// The signing keys as they are listed.
pub(super) fn keys(listed: &Value) -> Vec<Finding> {
    const ABOUT: &str = "signing keys";
    let keys = listed.as_array().map(Vec::as_slice).unwrap_or_default();
    let of = |state: &str| keys.iter().find(|key| key["state"] == state);
    let Some(active) = of("active") else {
        let mend = "with token.algorithm HS256 that is as it should be; else see the log";
        return vec![Finding::look(ABOUT, "none of the store's own signs", mend)];
    };
    let (kid, alg) = (active["kid"].as_str(), active["alg"].as_str());
    let (kid, alg) = (kid.unwrap_or_default(), alg.unwrap_or_default());
    let since = active["activates_at"].as_str().unwrap_or_default();
    vec![match of("next") {
        Some(_) => {
            Finding::ok(ABOUT, format!("{kid} ({alg}) signs since {since}; the next is published"))
        }
        None => Finding::look(
            ABOUT,
            format!("{kid} ({alg}) signs since {since}; no next one is published"),
            "it is made within a minute; if it isn't, see the log",
        ),
    }]
}

/// Whether addresses and schemes that proxies tell are believed, and from whom.
pub(super) fn proxies(config: &Config) -> Vec<Finding> {
    const ABOUT: &str = "proxies";
    let server = &config.server;
    let anyone = server.trusted_proxies.iter().find(|network| network.prefix_len() == 0);
    if let Some(network) = anyone {
        let says = format!("server.trusted_proxies has {network}: anyone can claim any address");
        return vec![Finding::wrong(ABOUT, says, "name the proxies' own networks")];
    }
    let behind_a_proxy = server.origin.scheme() == Scheme::Https && config.public_tls.is_none();
    vec![match (behind_a_proxy, server.trusted_proxies.is_empty()) {
        (true, true) => Finding::look(
            ABOUT,
            format!(
                "{} is served by a proxy, and server.trusted_proxies is empty: all visitors count \
                 as one address",
                server.origin
            ),
            "set server.trusted_proxies to the proxy's address, such as [\"127.0.0.1/32\"]",
        ),
        (_, false) => {
            let networks: Vec<_> = server.trusted_proxies.iter().map(ToString::to_string).collect();
            Finding::ok(ABOUT, format!("X-Forwarded-* counts from {}", networks.join(", ")))
        }
        (false, true) => Finding::ok(ABOUT, "none: X-Forwarded-* is ignored"),
    }]
}

/// Whether a browser at the origin would keep a cookie, by its `Set-Cookie` line.
pub(super) fn cookie(line: &str, config: &Config) -> Vec<Finding> {
    const ABOUT: &str = "cookies";
    let origin = &config.server.origin;
    let authority = origin.authority();
    let host = authority.rsplit_once(':').map_or(authority.as_str(), |(host, _)| host);
    let mut parts = line.split(';').map(str::trim);
    let name = parts.next().and_then(|pair| pair.split('=').next()).unwrap_or_default();
    let attributes: Vec<&str> = parts.collect();
    let has = |wanted: &str| attributes.iter().any(|found| found.eq_ignore_ascii_case(wanted));
    let domain = attributes.iter().find_map(|found| found.strip_prefix("Domain="));
    let is_http = origin.scheme() == Scheme::Http;
    if has("Secure") && is_http && !is_this_machine(host) {
        return vec![Finding::wrong(
            ABOUT,
            format!("{name} is Secure, and {origin} is not https: browsers drop it"),
            "set server.origin to the https:// address that browsers see",
        )];
    }
    if let Some(domain) = domain
        && !(host == domain || host.ends_with(&format!(".{domain}")))
    {
        return vec![Finding::wrong(
            ABOUT,
            format!("{name} has Domain={domain}, and {host} is not in it: browsers drop it"),
            "set cookie.domain to the origin's host or a parent of it, or leave it out",
        )];
    }
    if !has("Secure") && !is_http {
        let says = format!("{name} has no Secure attribute, and {origin} is https");
        return vec![Finding::wrong(ABOUT, says, "leave cookie.secure out: it is true then")];
    }
    vec![Finding::ok(ABOUT, format!("{name} is kept by browsers at {origin}"))]
}

/// Where browsers take a Secure cookie without TLS.
fn is_this_machine(host: &str) -> bool {
    host == "localhost"
        || host.ends_with(".localhost")
        || host.starts_with("127.")
        || host == "[::1]"
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::json;

    use super::super::State;
    use super::*;
    use crate::config::{Flags, Loaded, Surroundings};

    fn config(settings: &[(&str, &str)]) -> Box<Config> {
        let variables: BTreeMap<String, String> = settings
            .iter()
            .map(|(key, value)| (format!("CLOAKROOM_{key}"), (*value).to_owned()))
            .collect();
        let (unreadable, search) = (Vec::new(), Vec::new());
        let surroundings =
            Surroundings { variables, unreadable, terminal: false, cores: 2, search };
        let flags = Flags { config: None, data: None };
        Loaded::read(&flags, &surroundings).outcome.expect("a good configuration")
    }

    fn states(findings: &[Finding]) -> Vec<State> {
        findings.iter().map(|finding| finding.state).collect()
    }

    #[test]
    fn a_cookie_is_judged_as_a_browser_would() {
        let local = config(&[]);
        let web = config(&[("SERVER__ORIGIN", "https://app.example.com")]);
        let plain = config(&[("SERVER__ORIGIN", "http://app.example.com")]);
        let secure = "__Host-csrf=x; Path=/; Secure; HttpOnly; SameSite=Lax";
        let bare = "csrf=x; Path=/; HttpOnly; SameSite=Lax";
        let of = |domain: &str| format!("__Secure-csrf=x; Path=/; Domain={domain}; Secure");
        for (line, config, state) in [
            (secure, &web, State::Ok),
            (secure, &local, State::Ok),
            (secure, &plain, State::Wrong),
            (bare, &local, State::Ok),
            (bare, &web, State::Wrong),
            (&of("example.com"), &web, State::Ok),
            (&of("app.example.com"), &web, State::Ok),
            (&of("ample.com"), &web, State::Wrong),
            (&of("other.example.com"), &web, State::Wrong),
        ] {
            assert_eq!(states(&cookie(line, config)), [state], "{line}");
        }
    }

    #[test]
    fn proxies_that_are_missing_or_anyone_are_told() {
        let origin = ("SERVER__ORIGIN", "https://app.example.com");
        let trusted = |list| config(&[origin, ("SERVER__TRUSTED_PROXIES", list)]);
        assert_eq!(states(&proxies(&config(&[]))), [State::Ok]);
        assert_eq!(states(&proxies(&config(&[origin]))), [State::Look]);
        assert_eq!(states(&proxies(&trusted(r#"["10.0.0.0/8"]"#))), [State::Ok]);
        assert_eq!(states(&proxies(&trusted(r#"["10.0.0.0/8", "::/0"]"#))), [State::Wrong]);
    }

    #[test]
    fn a_store_that_forgets_and_a_clock_that_drifts_are_told() {
        let said = |name: &str, durability: &str, ahead: Option<i64>| {
            let mut ready = json!({"store": name, "durability": durability});
            if let Some(ahead) = ahead {
                ready["store_clock_ahead_ms"] = ahead.into();
            }
            states(&store(&ready))
        };
        assert_eq!(said("file", "durable", None), [State::Ok]);
        assert_eq!(said("memory", "local", None), [State::Look]);
        assert_eq!(said("redis", "local", Some(3)), [State::Look, State::Ok]);
        assert_eq!(said("postgres", "durable", Some(-900)), [State::Ok, State::Look]);
    }

    #[test]
    fn b7_a_clock_that_keeps_a_node_from_being_ready_is_wrong() {
        let refused = json!({"code": "overloaded", "store_clock_ahead_ms": -600_000});
        let found = clock(&refused).expect("a finding");
        assert_eq!(found.state, State::Wrong);
        assert!(found.says.contains("-600000 ms"), "{}", found.says);
        assert!(clock(&json!({"code": "overloaded"})).is_none());
    }

    #[test]
    fn keys_without_a_successor_are_told() {
        let key = |state: &str| json!({"kid": "k", "alg": "EdDSA", "state": state});
        let judged = |list: &[&str]| {
            states(&keys(&Value::Array(list.iter().map(|state| key(state)).collect())))
        };
        assert_eq!(judged(&["active", "next", "retired"]), [State::Ok]);
        assert_eq!(judged(&["active"]), [State::Look]);
        assert_eq!(judged(&["retired"]), [State::Look]);
        assert_eq!(judged(&[]), [State::Look]);
    }
}
