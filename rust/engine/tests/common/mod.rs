//! What the tests share: servers that follow a script, a driver that blocks, and a certificate authority.
#![allow(dead_code, reason = "each test binary uses a part of it")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test stops where it fails")]
#![allow(clippy::panic, reason = "the same")]

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use penstock_engine::error::Error;
use penstock_engine::pool::{Pool, Route};
use penstock_engine::proxy::Proxy;
use penstock_engine::request::Request;
use penstock_engine::tls::{Authorities, Identity, Trust};
use penstock_engine::transfer::{Body, Step, Transfer};
use penstock_engine::url::Url;
use penstock_engine::wait;
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, date_time_ymd};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection, StreamOwned, SupportedProtocolVersion};

/// Nothing in these tests takes that long.
pub(crate) const LONG: Duration = Duration::from_secs(20);

// Servers

pub(crate) trait Stream: Read + Write + Send {}
impl<T: Read + Write + Send> Stream for T {}

/// One connection, as a server has it.
pub(crate) struct Peer {
    pub(crate) socket: TcpStream,
    pub(crate) stream: Box<dyn Stream>,
}

impl Peer {
    fn plain(socket: TcpStream) -> Self {
        socket.set_nodelay(true).unwrap();
        socket.set_read_timeout(Some(LONG)).unwrap();
        Self { stream: Box::new(socket.try_clone().unwrap()), socket }
    }

    /// Shakes hands as a server, within whatever there is.
    pub(crate) fn secure(self, config: &Arc<ServerConfig>) -> Self {
        let connection = ServerConnection::new(config.clone()).unwrap();
        Self { stream: Box::new(StreamOwned::new(connection, self.stream)), socket: self.socket }
    }

    /// Exactly so many bytes.
    pub(crate) fn hear_bytes(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        self.stream.read_exact(&mut bytes).unwrap();
        bytes
    }

    /// A request's head, with the empty line.
    pub(crate) fn hear_head(&mut self) -> String {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.extend(self.hear_bytes(1));
        }
        String::from_utf8(head).unwrap()
    }

    /// A request with its body: its head.
    pub(crate) fn hear(&mut self) -> String {
        let head = self.hear_head();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
        self.hear_bytes(length.unwrap_or(0));
        head
    }

    pub(crate) fn say(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
        self.stream.flush().unwrap();
    }

    /// Waits until the other side ends.
    pub(crate) fn hear_end(&mut self) {
        match self.stream.read(&mut [0]) {
            Ok(0) => {}
            Err(error) if error.kind() != ErrorKind::WouldBlock => {}
            other => panic!("no end: {other:?}"),
        }
    }

    /// Ends by RST.
    pub(crate) fn reset(self) {
        socket2::SockRef::from(&self.socket).set_linger(Some(Duration::ZERO)).unwrap();
    }

    /// Closes, after it has heard what the other side has still to say: else the system sends RST.
    pub(crate) fn close(mut self) {
        self.socket.shutdown(Shutdown::Write).unwrap();
        while matches!(self.stream.read(&mut [0; 4096]), Ok(count) if count > 0) {}
    }
}

/// A server that hands its connections to `serve`, one after the other, with their numbers.
pub(crate) struct Server {
    pub(crate) port: u16,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    pub(crate) fn start(connections: usize, serve: impl Fn(usize, Peer) + Send + 'static) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let run = move || {
            for number in 0..connections {
                serve(number, Peer::plain(listener.accept().unwrap().0));
            }
        };
        Self { port, thread: Some(std::thread::spawn(run)) }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}/v1?x=1", self.port)
    }

    /// Everything went by the script.
    pub(crate) fn done(mut self) {
        self.thread.take().unwrap().join().unwrap();
    }
}

/// Both ends in one thread, for tests that go step by step.
pub(crate) struct Ends {
    pub(crate) listener: TcpListener,
    pub(crate) transfer: Transfer,
}

impl Ends {
    pub(crate) fn new(pool: &Arc<Pool>, listener: TcpListener, body: &[u8]) -> Self {
        let url = format!("http://{}/v1", listener.local_addr().unwrap());
        Self { transfer: transfer(pool, &url, body), listener }
    }

    pub(crate) fn local(body: &[u8]) -> Self {
        Self::new(&direct(), TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap(), body)
    }

    pub(crate) fn accept(&self) -> Peer {
        Peer::plain(self.listener.accept().unwrap().0)
    }

    /// Advances until it waits for what is not there.
    pub(crate) fn settle(&mut self) -> Result<Step, Error> {
        settle(&mut self.transfer)
    }
}

/// Advances as far as it goes without waiting for more than a moment.
pub(crate) fn settle(transfer: &mut Transfer) -> Result<Step, Error> {
    loop {
        let step = transfer.advance(Instant::now())?;
        let soon = Instant::now() + Duration::from_millis(30);
        if step != Step::Wait || !wait::wait(&transfer.wants(), Some(soon)).unwrap() {
            return Ok(step);
        }
    }
}

// The client's side

pub(crate) fn direct() -> Arc<Pool> {
    Arc::new(Pool::new(Route { proxy: None, trust: Arc::new(Trust::platform()) }))
}

pub(crate) fn trusting(trust: Trust) -> Arc<Pool> {
    Arc::new(Pool::new(Route { proxy: None, trust: Arc::new(trust) }))
}

pub(crate) fn through(proxy: &str, trust: Trust) -> Arc<Pool> {
    Arc::new(Pool::new(Route { proxy: Some(Proxy::parse(proxy).unwrap()), trust: Arc::new(trust) }))
}

pub(crate) fn transfer(pool: &Arc<Pool>, url: &str, body: &[u8]) -> Transfer {
    let url = Url::parse(url).unwrap();
    let request = Request::new("POST", url, Vec::new(), body.to_vec()).unwrap();
    let mut transfer = Transfer::new(pool.clone(), request, true);
    transfer.clocks.due = Some(Instant::now() + LONG); // no test hangs
    transfer
}

fn rest(transfer: &Transfer) {
    match transfer.wait() {
        Err(error) if error.kind() != ErrorKind::Interrupted => panic!("{error}"),
        _ => {}
    }
}

/// Drives up to the head: the status.
pub(crate) fn answered(transfer: &mut Transfer) -> Result<u16, Error> {
    loop {
        match transfer.advance(Instant::now())? {
            Step::Answered => return Ok(transfer.head().unwrap().status),
            Step::Wait => rest(transfer),
            Step::Resolve(host, port) => {
                let addresses = (host.as_str(), port).to_socket_addrs().unwrap();
                transfer.resolved(addresses.filter(SocketAddr::is_ipv4).collect(), Instant::now());
            }
        }
    }
}

/// The rest of the body, and how it ended.
pub(crate) fn body(transfer: &mut Transfer) -> (Vec<u8>, Result<(), Error>) {
    let (mut whole, mut scratch) = (Vec::new(), [0; 4096]);
    loop {
        match transfer.read(&mut scratch) {
            Ok(Body::Data(data)) => whole.extend_from_slice(data),
            Ok(Body::End) => return (whole, Ok(())),
            Err(error) => return (whole, Err(error)),
            Ok(Body::Wait) => rest(transfer),
        }
    }
}

/// A whole exchange: the body.
pub(crate) fn ask(pool: &Arc<Pool>, url: &str) -> Result<Vec<u8>, Error> {
    let mut transfer = transfer(pool, url, b"{}");
    answered(&mut transfer)?;
    let (whole, end) = body(&mut transfer);
    end.map(|()| whole)
}

// Certificates

/// What a certificate says.
#[derive(Clone, Copy, Default)]
pub(crate) struct Said {
    pub(crate) name: Option<&'static str>,
    pub(crate) expired: bool,
    pub(crate) early: bool,
    pub(crate) client: bool,
}

pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    pub(crate) file: PathBuf,
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let file = scratch(&format!("{name}.pem"));
        std::fs::write(&file, certificate.pem()).unwrap();
        Self { certificate: certificate.der().clone(), issuer: Issuer::new(params, key), file }
    }

    fn issue(&self, said: Said) -> (rcgen::Certificate, KeyPair) {
        let mut params = CertificateParams::new(vec![said.name.unwrap_or("127.0.0.1").to_owned()]).unwrap();
        if said.expired {
            params.not_after = date_time_ymd(2020, 1, 1);
        }
        if said.early {
            params.not_before = date_time_ymd(2090, 1, 1);
        }
        if said.client {
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        }
        let key = KeyPair::generate().unwrap();
        (params.signed_by(&key, &self.issuer).unwrap(), key)
    }

    /// A server's side of TLS.
    pub(crate) fn server(&self, said: Said) -> Arc<ServerConfig> {
        self.server_of(said, rustls::ALL_VERSIONS, false)
    }

    /// With these versions, and perhaps with a wish to know who the client is.
    pub(crate) fn server_of(
        &self,
        said: Said,
        versions: &[&'static SupportedProtocolVersion],
        wants_client: bool,
    ) -> Arc<ServerConfig> {
        let (certificate, key) = self.issue(said);
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(provider.clone()).with_protocol_versions(versions).unwrap();
        let builder = if wants_client {
            let mut roots = RootCertStore::empty();
            roots.add(self.certificate.clone()).unwrap();
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
            builder.with_client_cert_verifier(verifier)
        } else {
            builder.with_no_client_auth()
        };
        let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
        Arc::new(builder.with_single_cert(vec![certificate.der().clone()], key).unwrap())
    }

    /// A client's certificate and key in files.
    pub(crate) fn identity(&self, name: &str) -> Identity {
        let (certificate, key) = self.issue(Said { client: true, ..Said::default() });
        let identity = Identity { certificates: scratch(&format!("{name}.crt")), key: scratch(&format!("{name}.key")) };
        std::fs::write(&identity.certificates, certificate.pem()).unwrap();
        std::fs::write(&identity.key, key.serialize_pem()).unwrap();
        identity
    }

    /// Trust in this authority alone.
    pub(crate) fn trust(&self) -> Trust {
        Trust::new(&Authorities::Files(vec![self.file.clone()]), None).unwrap()
    }
}

/// The one that servers are vouched for by, unless a test is about another.
pub(crate) fn authority() -> &'static Authority {
    static AUTHORITY: OnceLock<Authority> = OnceLock::new();
    AUTHORITY.get_or_init(|| Authority::new("authority"))
}

fn scratch(name: &str) -> PathBuf {
    let place = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(std::process::id().to_string());
    std::fs::create_dir_all(&place).unwrap();
    place.join(name)
}
