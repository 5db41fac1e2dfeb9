//! A connection's socket, perhaps with TLS around it.

use std::error::Error;
use std::io::{ErrorKind, Read, Result, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection};

/// A server's side of TLS, with certificates of its own: whom to trust for them is written to `file`.
pub(crate) fn secure(file: &Path, protocols: &[&[u8]]) -> std::result::Result<Arc<ServerConfig>, Box<dyn Error>> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    // A name of its own: OpenSSL looks for authorities by their names.
    params.distinguished_name.push(DnType::CommonName, file.to_string_lossy().into_owned());
    let authority = KeyPair::generate()?;
    std::fs::write(file, params.self_signed(&authority)?.pem())?;
    let issuer = Issuer::new(params, authority);
    let key = KeyPair::generate()?;
    let mut names = CertificateParams::new(vec!["127.0.0.1".to_owned(), "localhost".to_owned()])?;
    names.use_authority_key_identifier_extension = true;
    let certificate = names.signed_by(&key, &issuer)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], PrivateKeyDer::Pkcs8(key.serialize_der().into()))?;
    config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
    Ok(Arc::new(config))
}

#[derive(Debug)]
pub(crate) struct Link {
    socket: TcpStream,
    tls: Option<Box<ServerConnection>>,
}

impl Link {
    pub(crate) fn build(socket: TcpStream, config: Option<&Arc<ServerConfig>>) -> Result<Self> {
        socket.set_nonblocking(true)?;
        socket.set_nodelay(true)?;
        let tls = config.map(|config| ServerConnection::new(config.clone())).transpose();
        Ok(Self { socket, tls: tls.map_err(std::io::Error::other)?.map(Box::new) })
    }

    pub(crate) fn socket(&self) -> &TcpStream {
        &self.socket
    }

    pub(crate) fn read(&mut self, into: &mut [u8]) -> Result<usize> {
        let Some(tls) = &mut self.tls else { return self.socket.read(into) };
        loop {
            match tls.reader().read(into) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                outcome => return outcome,
            }
            if tls.read_tls(&mut self.socket)? == 0 {
                return Ok(0);
            }
            tls.process_new_packets().map_err(std::io::Error::other)?;
            while tls.wants_write() {
                tls.write_tls(&mut self.socket)?; // the handshake's: there is room
            }
        }
    }

    /// Takes some of the bytes, and sends what it can.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        self.flush()?;
        let Some(tls) = &mut self.tls else { return self.socket.write(bytes) };
        let count = tls.writer().write(bytes)?;
        match self.flush() {
            Err(error) if error.kind() != ErrorKind::WouldBlock => Err(error),
            _ => Ok(count),
        }
    }

    /// Sends what is still held.
    pub(crate) fn flush(&mut self) -> Result<()> {
        if let Some(tls) = &mut self.tls {
            while tls.wants_write() {
                tls.write_tls(&mut self.socket)?;
            }
        }
        Ok(())
    }
}
