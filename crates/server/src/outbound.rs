//! TLS of the HTTP connections that this program makes by itself: to an admin listener, and to a
//! collector of traces and metrics.

use std::fmt::Display;
use std::path::Path;
use std::sync::Arc;

use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};

/// How to know whom it speaks to: by the authority in the PEM file `ca` alone, else by those that
/// browsers know.
///
/// # Errors
///
/// The file can't be read, or holds no certificate.
pub(crate) fn tls(ca: Option<&Path>) -> Result<TlsConfig, String> {
    // Named here, so that no client depends on who installs one for the process, and when.
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut tls = TlsConfig::builder().unversioned_rustls_crypto_provider(provider);
    if let Some(path) = ca {
        tls = tls.root_certs(roots(path)?);
    }
    Ok(tls.build())
}

fn roots(path: &Path) -> Result<RootCerts, String> {
    let wrong = |why: &dyn Display| format!("{}: {why}", path.display());
    let pem = std::fs::read(path).map_err(|error| wrong(&error))?;
    let mut certificates: Vec<Certificate<'static>> = Vec::new();
    for item in parse_pem(&pem) {
        if let PemItem::Certificate(certificate) = item.map_err(|error| wrong(&error))? {
            certificates.push(certificate);
        }
    }
    if certificates.is_empty() {
        return Err(wrong(&"holds no certificate"));
    }
    Ok(RootCerts::new_with_certs(&certificates))
}
