//! Whom to trust, and what a handshake's failure means.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{
    AlertDescription, CertificateError, ClientConfig, ClientConnection, DigitallySignedStruct, RootCertStore,
    SignatureScheme,
};
use rustls_platform_verifier::BuilderVerifierExt;

use crate::error::{Error, Kind};
use crate::url::Origin;

/// What is spoken within, as the handshake names it (RFC 7301).
const HTTP1: &[u8] = b"http/1.1";
pub(crate) const HTTP2: &[u8] = b"h2";

/// Who may vouch for a server.
#[derive(Clone, Debug)]
pub enum Authorities {
    /// Whoever this machine trusts.
    Platform,
    /// The certificates in these files of PEM, or directories of such.
    Files(Vec<PathBuf>),
    /// Nobody needs to: for tests.
    Anyone,
}

/// A client's own certificate chain and key, as files of PEM.
#[derive(Clone, Debug)]
pub struct Identity {
    pub certificates: PathBuf,
    pub key: PathBuf,
}

/// Whom to trust and as whom to appear. Shared: its sessions are resumed.
pub struct Trust {
    identity: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
    authorities: Loaded,
    /// Made at the first handshake: the machine's store takes milliseconds to read.
    config: OnceLock<Result<Arc<ClientConfig>, Error>>,
}

enum Loaded {
    Platform,
    Roots(Arc<RootCertStore>),
    Anyone,
}

impl fmt::Debug for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trust").finish_non_exhaustive()
    }
}

impl Trust {
    /// The machine's own trust, and no identity.
    #[must_use]
    pub fn platform() -> Self {
        Self { identity: None, authorities: Loaded::Platform, config: OnceLock::new() }
    }

    /// Reads the files at once.
    ///
    /// An error of kind [`io::ErrorKind::InvalidData`] is a file that holds something else.
    pub fn new(authorities: &Authorities, identity: Option<&Identity>) -> io::Result<Self> {
        let authorities = match authorities {
            Authorities::Platform => Loaded::Platform,
            Authorities::Anyone => Loaded::Anyone,
            Authorities::Files(paths) => {
                let mut roots = RootCertStore::empty();
                for path in paths {
                    roots.add_parsable_certificates(certificates(path)?);
                }
                if roots.is_empty() {
                    return Err(io::Error::new(io::ErrorKind::InvalidData, "no certificate in PEM format in it"));
                }
                Loaded::Roots(Arc::new(roots))
            }
        };
        let identity = match identity {
            None => None,
            Some(identity) => {
                let key = PrivateKeyDer::from_pem_file(&identity.key).map_err(unread)?;
                Some((certificates(&identity.certificates)?, key))
            }
        };
        let trust = Self { identity, authorities, config: OnceLock::new() };
        if trust.identity.is_some() {
            trust.config().map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.message))?;
        }
        Ok(trust)
    }

    fn config(&self) -> Result<Arc<ClientConfig>, Error> {
        self.config.get_or_init(|| self.build().map_err(|error| Error::new(Kind::Tls, error.to_string()))).clone()
    }

    fn build(&self) -> Result<Arc<ClientConfig>, rustls::Error> {
        let provider = Arc::new(ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions()?;
        let builder = match &self.authorities {
            Loaded::Platform => builder.with_platform_verifier()?,
            Loaded::Roots(roots) => builder.with_root_certificates(roots.clone()),
            Loaded::Anyone => builder.dangerous().with_custom_certificate_verifier(Arc::new(Anyone(provider))),
        };
        let mut config = match &self.identity {
            None => builder.with_no_client_auth(),
            Some((chain, key)) => builder.with_client_auth_cert(chain.clone(), key.clone_key())?,
        };
        config.alpn_protocols = vec![HTTP1.to_vec()];
        Ok(Arc::new(config))
    }

    /// A connection about to shake hands, for HTTP/2 too if the server wants that.
    pub(crate) fn connect(&self, host: &str, http2: bool) -> Result<ClientConnection, Error> {
        let name = ServerName::try_from(host.to_owned())
            .map_err(|_| Error::new(Kind::Request, format!("{host:?} is no host name")))?;
        let spoken = if http2 { vec![HTTP2.to_vec(), HTTP1.to_vec()] } else { vec![HTTP1.to_vec()] };
        ClientConnection::new_with_alpn(self.config()?, name, spoken)
            .map_err(|error| Error::new(Kind::Tls, error.to_string()))
    }
}

/// The certificates in a file, or in the files of a directory.
fn certificates(path: &Path) -> io::Result<Vec<CertificateDer<'static>>> {
    if path.is_dir() {
        let mut found = Vec::new();
        for entry in std::fs::read_dir(path)? {
            // What else lies in such a directory is nobody's fault.
            if let Ok(more) = certificates_of(&entry?.path()) {
                found.extend(more);
            }
        }
        return Ok(found);
    }
    certificates_of(path)
}

fn certificates_of(path: &Path) -> io::Result<Vec<CertificateDer<'static>>> {
    CertificateDer::pem_file_iter(path).map_err(unread)?.collect::<Result<_, _>>().map_err(unread)
}

fn unread(error: pem::Error) -> io::Error {
    match error {
        pem::Error::Io(error) => error,
        pem::Error::NoItemsFound => io::Error::new(io::ErrorKind::InvalidData, "nothing in PEM format in it"),
        other => io::Error::new(io::ErrorKind::InvalidData, other.to_string()),
    }
}

/// What a failed handshake with a server means.
pub(crate) fn failure(error: &rustls::Error, server: &Origin) -> Error {
    let host = &server.host;
    let message = match error {
        rustls::Error::InvalidCertificate(certificate) => match certificate {
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                "the server's certificate has expired".to_owned()
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                "the server's certificate is not valid yet: is this machine's clock right?".to_owned()
            }
            CertificateError::NotValidForName => format!("the server's certificate is not valid for {host}"),
            CertificateError::NotValidForNameContext { presented, .. } => {
                format!("the server's certificate is not valid for {host} but for {}", presented.join(", "))
            }
            CertificateError::UnknownIssuer => {
                "the server's certificate is signed by nobody who is trusted here: verify= takes the issuer's \
                 certificate"
                    .to_owned()
            }
            CertificateError::Revoked => "the server's certificate has been revoked".to_owned(),
            other => format!("the server's certificate is not accepted: {other}"),
        },
        rustls::Error::InvalidMessage(_) => "the server speaks no TLS there: is it http:// ?".to_owned(),
        rustls::Error::AlertReceived(AlertDescription::CertificateRequired) => {
            "the server wants a client certificate: cert= takes it".to_owned()
        }
        rustls::Error::AlertReceived(alert) => format!("the server ended the TLS handshake: {alert:?}"),
        other => format!("TLS: {other}"),
    };
    Error::new(Kind::Tls, format!("no connection to {server}: {message}"))
}

/// Accepts every certificate, but still checks that the server has its key.
#[derive(Debug)]
struct Anyone(Arc<CryptoProvider>);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
