//! Whether certificates are valid, for how long, and go with their keys.

use std::path::Path;

use jiff::Timestamp;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::Finding;
use crate::config::Config;
use crate::serve::tls::certificates;

const ABOUT: &str = "certificates";
/// A certificate that expires within so many days is worth a word.
const WORTH_A_WORD_DAYS: i64 = 30;
const DAY_SECS: i64 = 24 * 3600;

/// A file of certificates: the setting that names it, and what follows when they are no good.
struct File<'a> {
    key: &'static str,
    path: &'a Path,
    role: Role,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    /// A chain that is shown: each of it must be valid.
    Shown,
    /// Authorities that vouch for others: one of them must be valid.
    Authorities,
}

/// When a certificate is valid, in seconds since the epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Validity {
    from: i64,
    until: i64,
}

/// What is right and wrong with the certificates that the configuration names.
pub(super) fn findings(config: &Config) -> Vec<Finding> {
    let now = Timestamp::now().as_second();
    let mut findings: Vec<Finding> = files(config)
        .iter()
        // What can't be read of the listeners' own is told as what the start would stop at.
        .filter_map(|file| match (validities(file.path), file.key.starts_with("server.")) {
            (Ok(found), _) => Some(judge(file, &found, now)),
            (Err(_), true) => None,
            (Err(why), false) => {
                let says = format!("`{}` can't be used: {why}", file.key);
                Some(Finding::wrong(ABOUT, says, "name a PEM file with certificates"))
            }
        })
        .collect();
    let store = &config.store;
    if let (Some(cert), Some(key)) = (&store.tls_cert_file, &store.tls_key_file)
        && let Err(why) = goes_with(cert, key)
    {
        let says = format!("`store.tls.key_file` doesn't go with `store.tls.cert_file`: {why}");
        findings.push(Finding::wrong(ABOUT, says, "name the key that belongs to the certificate"));
    }
    findings
}

fn files(config: &Config) -> Vec<File<'_>> {
    let admin = config.admin_tls.as_ref();
    let shown = [
        ("server.tls.cert_file", config.public_tls.as_ref().map(|tls| &tls.cert_file)),
        ("server.admin_tls.cert_file", admin.map(|tls| &tls.files.cert_file)),
        ("store.tls.cert_file", config.store.tls_cert_file.as_ref()),
    ];
    let authorities = [
        ("server.admin_tls.client_ca_file", admin.and_then(|tls| tls.client_ca_file.as_ref())),
        ("store.tls.ca_file", config.store.tls_ca_file.as_ref()),
    ];
    let shown = shown.map(|(key, path)| (Role::Shown, key, path));
    let authorities = authorities.map(|(key, path)| (Role::Authorities, key, path));
    let all = shown.into_iter().chain(authorities);
    all.filter_map(|(role, key, path)| Some(File { key, path: path?, role })).collect()
}

fn validities(path: &Path) -> Result<Vec<Validity>, String> {
    let read = certificates(path).map_err(|error| error.to_string())?;
    let of = |certificate: &CertificateDer<'_>| {
        let parsed = x509_parser::parse_x509_certificate(certificate);
        let (_, parsed) = parsed.map_err(|_| format!("{}: no certificate", path.display()))?;
        let validity = parsed.validity();
        let (from, until) = (validity.not_before.timestamp(), validity.not_after.timestamp());
        Ok(Validity { from, until })
    };
    read.iter().map(of).collect()
}

/// What is to be said of a file whose certificates are valid then, at `now`.
fn judge(file: &File<'_>, found: &[Validity], now: i64) -> Finding {
    let is_good = |validity: &&Validity| validity.from <= now && now < validity.until;
    // The first of a chain to expire counts, and of authorities each that can't vouch is told.
    let soonest = found.iter().min_by_key(|validity| validity.until);
    let bad = found.iter().find(|validity| !is_good(validity));
    let (Some(soonest), name) = (soonest, format!("`{}`", file.key)) else {
        return Finding::wrong(ABOUT, format!("`{}` has none", file.key), mend(file));
    };
    if let Some(bad) = bad {
        let says = match (bad.from > now, found.len()) {
            (true, 1) => format!("{name} isn't valid before {}", day(bad.from)),
            (true, _) => format!("one of {name} isn't valid before {}", day(bad.from)),
            (false, 1) => format!("{name} expired on {}", day(bad.until)),
            (false, _) => format!("one of {name} expired on {}", day(bad.until)),
        };
        return match file.role {
            Role::Authorities if found.iter().any(|one| is_good(&one)) => {
                Finding::look(ABOUT, says, mend(file))
            }
            Role::Shown | Role::Authorities => Finding::wrong(ABOUT, says, mend(file)),
        };
    }
    let days = (soonest.until - now) / DAY_SECS;
    let says = format!("{name} is valid until {}, {days} days from now", day(soonest.until));
    match days < WORTH_A_WORD_DAYS {
        true => Finding::look(ABOUT, says, mend(file)),
        false => Finding::ok(ABOUT, says),
    }
}

fn mend(file: &File<'_>) -> String {
    let path = file.path.display();
    match file.key.starts_with("server.") {
        true => format!("renew {path}, and let the authority read it by SIGHUP"),
        false => format!("renew {path}, and restart the authority"),
    }
}

fn day(at: i64) -> String {
    Timestamp::from_second(at).map_or_else(|_| "?".to_owned(), |at| at.strftime("%F").to_string())
}

fn goes_with(cert: &Path, key: &Path) -> Result<(), String> {
    let chain = certificates(cert).map_err(|error| error.to_string())?;
    let key = PrivateKeyDer::from_pem_file(key).map_err(|error| error.to_string())?;
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    CertifiedKey::from_der(chain, key, &provider).map_err(|error| error.to_string())?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::State;
    use super::*;

    const NOW: i64 = 1_800_000_000;

    fn valid(from_days: i64, until_days: i64) -> Validity {
        Validity { from: NOW + from_days * DAY_SECS, until: NOW + until_days * DAY_SECS }
    }

    #[test]
    fn a_certificate_is_judged_by_the_days_that_it_has_left() {
        let judged = |role, found: &[Validity]| {
            let file = File { key: "server.tls.cert_file", path: Path::new("/tls.pem"), role };
            judge(&file, found, NOW)
        };
        for (from, until, state) in [
            (-1, 31, State::Ok),
            (-1, 30, State::Ok),
            (-1, 29, State::Look),
            (-1, 1, State::Look),
            (-9, -1, State::Wrong),
            (-9, 0, State::Wrong),
            (1, 90, State::Wrong),
        ] {
            for role in [Role::Shown, Role::Authorities] {
                let finding = judged(role, &[valid(from, until)]);
                assert_eq!(finding.state, state, "{from} {until} {}", finding.says);
            }
        }
        // A chain is as good as its worst, authorities are as good as their best.
        let mixed = [valid(-9, 90), valid(-9, -1)];
        assert_eq!(judged(Role::Shown, &mixed).state, State::Wrong);
        assert_eq!(judged(Role::Authorities, &mixed).state, State::Look);
        let says = judged(Role::Shown, &[valid(-9, -1)]).says;
        assert_eq!(says, "`server.tls.cert_file` expired on 2027-01-14");
    }
}
