//! TLS of the HTTP connections that this program makes by itself: to an admin listener, and to a
//! collector of traces and metrics.

use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use ureq::tls::{Certificate, ClientCert, PemItem, PrivateKey, RootCerts, TlsConfig, parse_pem};

/// PEM files by which this program proves who it is.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    /// The chain, its own certificate first.
    pub(crate) cert: PathBuf,
    /// The key that belongs to it.
    pub(crate) key: PathBuf,
}

/// How to know whom it speaks to: by the authority in the PEM file `ca` alone, else by those that
/// browsers know. And how to prove who this is, where that is asked.
///
/// # Errors
///
/// A file can't be read, or doesn't hold what it should.
pub(crate) fn tls(ca: Option<&Path>, identity: Option<&Identity>) -> Result<TlsConfig, String> {
    // Named here, so that no client depends on who installs one for the process, and when.
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let shown = identity.map(|identity| certificate(identity, &provider)).transpose()?;
    let mut tls = TlsConfig::builder().unversioned_rustls_crypto_provider(provider);
    if let Some(path) = ca {
        tls = tls.root_certs(roots(path)?);
    }
    Ok(tls.client_cert(shown).build())
}

/// Judged before the client takes it, which ends the process where the two don't fit.
fn certificate(identity: &Identity, provider: &CryptoProvider) -> Result<ClientCert, String> {
    let at = |path: &Path, why: &dyn Display| format!("{}: {why}", path.display());
    let Identity { cert, key } = identity;
    let chain = CertificateDer::pem_file_iter(cert)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| at(cert, &error))?;
    if chain.is_empty() {
        return Err(at(cert, &"holds no certificate"));
    }
    let pem = std::fs::read(key).map_err(|error| at(key, &error))?;
    let parsed = PrivateKeyDer::from_pem_slice(&pem).map_err(|error| at(key, &error))?;
    CertifiedKey::from_der(chain.clone(), parsed, provider)
        .map_err(|error| at(key, &format_args!("doesn't go with {}: {error}", cert.display())))?;
    let parsed = PrivateKey::from_pem(&pem).map_err(|error| at(key, &error))?;
    let chain: Vec<_> = chain.iter().map(|one| Certificate::from_der(one).to_owned()).collect();
    Ok(ClientCert::new_with_certs(&chain, parsed))
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
