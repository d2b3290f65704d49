//! TLS of the listeners, by rustls; certificates can be read again while they serve.

use std::fmt::Display;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};

use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

use super::StartError;
use crate::config::{AdminTls, Config, TlsFiles};

/// Protocols offered, the preferred one first (RFC 7301).
const ALPN: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// Takes TLS connections with the certificate read last.
#[derive(Clone)]
pub(super) struct Acceptor(Arc<Inner>);

struct Inner {
    tls: AdminTls,
    config: RwLock<Arc<ServerConfig>>,
}

impl Acceptor {
    /// For the public listener.
    pub(super) fn public(files: &TlsFiles) -> Result<Self, StartError> {
        Self::new(AdminTls { files: files.clone(), client_ca_file: None })
    }

    /// For the admin listener, which may ask for clients' certificates.
    pub(super) fn admin(tls: &AdminTls) -> Result<Self, StartError> {
        Self::new(tls.clone())
    }

    fn new(tls: AdminTls) -> Result<Self, StartError> {
        let config = RwLock::new(read(&tls)?);
        Ok(Self(Arc::new(Inner { tls, config })))
    }

    /// Reads the files again; on an error the former certificate stays.
    pub(super) fn reload(&self) -> Result<(), StartError> {
        let fresh = read(&self.0.tls)?;
        *self.0.config.write().unwrap_or_else(PoisonError::into_inner) = fresh;
        Ok(())
    }

    /// What takes the next connection.
    pub(super) fn current(&self) -> TlsAcceptor {
        let config = self.0.config.read().unwrap_or_else(PoisonError::into_inner);
        TlsAcceptor::from(Arc::clone(&config))
    }
}

fn read(tls: &AdminTls) -> Result<Arc<ServerConfig>, StartError> {
    let TlsFiles { cert_file, key_file } = &tls.files;
    let chain = certificates(cert_file)?;
    let key = PrivateKeyDer::from_pem_file(key_file).map_err(at(key_file))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(at(cert_file))?;
    let builder = match &tls.client_ca_file {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let mut roots = RootCertStore::empty();
            for authority in certificates(path)? {
                roots.add(authority).map_err(at(path))?;
            }
            let verifier =
                WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
            builder.with_client_cert_verifier(verifier.map_err(at(path))?)
        }
    };
    let mut config = builder.with_single_cert(chain, key).map_err(at(key_file))?;
    config.alpn_protocols = ALPN.map(<[u8]>::to_vec).to_vec();
    Ok(Arc::new(config))
}

/// What a start would stop at: files of the listeners' TLS that can't be used, each with its key.
pub(crate) fn faults(config: &Config) -> Vec<(&'static str, String)> {
    let public = config.public_tls.as_ref().map(Acceptor::public).transpose();
    let admin = config.admin_tls.as_ref().map(Acceptor::admin).transpose();
    let named = [("server.tls.cert_file", public), ("server.admin_tls.cert_file", admin)];
    named.into_iter().filter_map(|(key, read)| Some((key, read.err()?.to_string()))).collect()
}

/// The certificates of a PEM file, one at the least.
pub(crate) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, StartError> {
    let read = CertificateDer::pem_file_iter(path).map_err(at(path))?;
    let chain = read.collect::<Result<Vec<_>, _>>().map_err(at(path))?;
    if chain.is_empty() {
        return Err(at(path)("holds no certificate"));
    }
    Ok(chain)
}

/// Names the file in an error. The error itself never quotes a key.
fn at<E: Display>(path: &Path) -> impl Fn(E) -> StartError {
    let path = path.to_owned();
    move |why| StartError::Tls { path: path.clone(), why: why.to_string() }
}
