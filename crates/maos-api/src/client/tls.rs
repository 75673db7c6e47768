//! TLS for the connections to one server: whom it must prove to be, and to whom.
//!
//! Law: a connection is handed on only when the server has shown a certificate for the host in the
//! URL, signed by an authority that is trusted. No way leads around that.

use std::io;
use std::sync::{Arc, OnceLock};

use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, Error, RootCertStore};

use super::ClientError;
use super::url::Address;

/// What is agreed on below HTTP.
#[derive(Debug)]
pub(super) struct Tls {
    /// Whose certificate it must be.
    name: ServerName<'static>,
    trusted: Arc<RootCertStore>,
    /// Made with the first connection.
    config: OnceLock<Arc<ClientConfig>>,
}

impl Tls {
    /// For the server of an address; trusted are the authorities that browsers trust.
    pub(super) fn new(address: &Address) -> Result<Tls, ClientError> {
        let name = ServerName::try_from(address.host.clone()).map_err(|_| {
            let why = "no certificate can be for its host".to_owned();
            ClientError::BadUrl { url: address.url.clone(), why }
        })?;
        let roots = webpki_roots::TLS_SERVER_ROOTS.iter().cloned().collect();
        Ok(Tls { name, trusted: Arc::new(roots), config: OnceLock::new() })
    }

    /// Trusts the authorities of these certificates too.
    pub(super) fn trust(&mut self, pem: &[u8]) -> Result<(), ClientError> {
        let bad = |why: String| ClientError::BadCertificate { why };
        let trusted = Arc::make_mut(&mut self.trusted);
        let before = trusted.len();
        for certificate in CertificateDer::pem_slice_iter(pem) {
            // The fault itself lists bytes.
            let certificate = certificate.map_err(|_| bad("it is damaged".to_owned()))?;
            trusted.add(certificate).map_err(|why| bad(why.to_string()))?;
        }
        if trusted.len() == before {
            return Err(bad("there is none that begins `-----BEGIN CERTIFICATE-----`".to_owned()));
        }
        self.config = OnceLock::new();
        Ok(())
    }

    /// Agrees with the server at the other end on how to go on.
    pub(super) async fn agree(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let config = self.config.get_or_init(|| config(self.trusted.clone())).clone();
        TlsConnector::from(config).connect(self.name.clone(), stream).await
    }
}

/// Whether a connection failed for what the server is or says, which it does again the next time.
pub(super) fn is_refusal(fault: &io::Error) -> bool {
    fault.get_ref().is_some_and(|inner| inner.is::<Error>())
}

fn config(trusted: Arc<RootCertStore>) -> Arc<ClientConfig> {
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("the provider knows the versions that are default")
        .with_root_certificates(trusted)
        .with_no_client_auth();
    // Who speaks newer versions too must not choose one of them.
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Arc::new(config)
}
