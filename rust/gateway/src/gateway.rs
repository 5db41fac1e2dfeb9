//! The gateway as a whole.

use std::io;
use std::net::{TcpListener, ToSocketAddrs};
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustls::crypto::ring;
use rustls::pki_types::pem::{Error as PemError, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{Error as TlsError, ServerConfig};
use socket2::SockRef;
use tokio_rustls::TlsAcceptor;

use crate::ledger::Told;
use crate::planner::Job;
use crate::serve::{Phase, Workers};
use crate::state::{Shared, State};
use crate::tables::Tables;

/// For streams that are cut to say so to their clients, and for these to hear it.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// Connections that may wait to be accepted. The 128 of the standard library are too few for a client that opens all of
/// its own at once: the others would try again after a second. The system has a limit of its own.
const BACKLOG: i32 = 4096;
/// How often it is looked whether something is still under way.
const LOOK: Duration = Duration::from_millis(5);

/// A proxy: what it serves, and the threads that do.
#[derive(Debug)]
pub struct Gateway {
    shared: Arc<Shared>,
    workers: Mutex<Option<Workers>>,
}

/// Certificate chain and key of a server, as files of PEM.
#[derive(Clone, Copy, Debug)]
pub struct Identity<'p> {
    pub certificates: &'p Path,
    pub key: &'p Path,
}

impl Identity<'_> {
    /// Whether it can be served with, as [`Gateway::listen`] finds it.
    pub fn check(self) -> io::Result<()> {
        acceptor(self).map(drop)
    }
}

fn read(tables: &[u8]) -> Result<Tables, String> {
    serde_json::from_slice(tables).map_err(|error| error.to_string())
}

impl Gateway {
    /// Serves nothing yet. The tables are JSON, see [`Tables`]; the error says what cannot be.
    pub fn new(tables: &[u8]) -> Result<Self, String> {
        Ok(Self { shared: Arc::new(Shared::new(read(tables)?)?), workers: Mutex::new(None) })
    }

    fn workers(&self) -> MutexGuard<'_, Option<Workers>> {
        self.workers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Serves from here on; gives the port.
    pub fn listen(&self, host: &str, port: u16, threads: usize, tls: Option<Identity<'_>>) -> io::Result<u16> {
        let mut workers = self.workers();
        if workers.is_some() {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, "it listens already"));
        }
        let tls = tls.map(acceptor).transpose()?;
        let addresses: Vec<_> = (host, port).to_socket_addrs()?.collect();
        let listener = TcpListener::bind(addresses.as_slice())?;
        SockRef::from(&listener).listen(BACKLOG)?;
        if let Some(commons) = &self.shared.state.load().commons {
            commons.start(&self.shared)?;
            commons.wait();
        }
        let started = Workers::start(&self.shared, &listener, threads, tls.as_ref())?;
        let port = started.address.port();
        *workers = Some(started);
        Ok(port)
    }

    /// Other tables from now on, whole or not at all. What is under way keeps the old ones.
    pub fn reload(&self, tables: &[u8]) -> Result<(), String> {
        let before = self.shared.state.load_full();
        let state = Arc::new(State::new(read(tables)?, Some(&before))?);
        // Before there are workers nobody asks; `listen` connects then.
        if let Some(commons) = state.commons.as_ref().filter(|_| self.workers().is_some()) {
            commons.start(&self.shared).map_err(|error| format!("redis: {error}"))?;
            commons.wait();
        }
        self.shared.retries().limit(state.settings.retry_budget);
        self.shared.state.store(state);
        Ok(())
    }

    /// Takes keys in: JSON, an array of objects.
    pub fn put_keys(&self, keys: &[u8]) -> Result<(), String> {
        self.shared.keys.put(keys)
    }

    pub fn drop_keys(&self, ids: &[String]) {
        self.shared.keys.drop(ids);
    }

    /// The next thing to do; waits so long for one.
    #[must_use]
    pub fn next_job(&self, wait: Duration) -> Option<Job> {
        self.shared.planner.next(wait)
    }

    /// Up to so many rows; waits so long for the first.
    #[must_use]
    pub fn take_rows(&self, most: usize, wait: Duration) -> Vec<Told> {
        self.shared.ledger.take(most, wait)
    }

    /// How things are: JSON.
    #[must_use]
    pub fn snapshot(&self) -> Vec<u8> {
        self.shared.snapshot(&self.shared.state.load())
    }

    /// Takes no more requests and waits for those under way, so long; how many had to be cut after that. A request is
    /// over when its answer is; its client may take a while longer to have it, and has what is left of that time.
    pub fn drain(&self, wait: Duration) -> usize {
        self.shared.draining.store(true, Ordering::Release);
        self.enter(Phase::Draining);
        let until = Instant::now().checked_add(wait);
        let busy = || self.shared.busy.load(Ordering::Acquire);
        wait_until(until, || busy() == 0);
        let left = busy();
        if left > 0 {
            self.shared.cutting.store(true, Ordering::Release);
        }
        self.enter(Phase::Closing);
        let last = Instant::now() + LAST_WORDS;
        wait_until(until.map(|until| until.max(last)), || busy() == 0 && self.connections() == 0);
        left
    }

    fn connections(&self) -> usize {
        self.workers().as_ref().map_or(0, Workers::connections)
    }

    fn enter(&self, phase: Phase) {
        if let Some(workers) = self.workers().as_ref() {
            workers.enter(phase);
        }
    }

    /// Ends the threads, and the waits for jobs and rows.
    pub fn close(&self) {
        self.shared.planner.close();
        let workers = self.workers().take();
        if let Some(workers) = workers {
            workers.join();
        }
        self.shared.ledger.close();
        // After the last request: it is settled too.
        if let Some(commons) = &self.shared.state.load().commons {
            commons.close();
        }
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.close();
    }
}

fn wait_until(until: Option<Instant>, so: impl Fn() -> bool) {
    while !so() && until.is_none_or(|until| Instant::now() < until) {
        thread::sleep(LOOK);
    }
}

fn acceptor(identity: Identity<'_>) -> io::Result<TlsAcceptor> {
    let wrong =
        |path: &Path, why: String| io::Error::new(io::ErrorKind::InvalidData, format!("{}: {why}", path.display()));
    let Identity { certificates, key } = identity;
    let chain: Vec<_> = CertificateDer::pem_file_iter(certificates)
        .and_then(Iterator::collect)
        .map_err(|error| wrong(certificates, error.to_string()))?;
    if chain.is_empty() {
        return Err(wrong(certificates, "there is no certificate in it".to_owned()));
    }
    let private = PrivateKeyDer::from_pem_file(key).map_err(|error| match error {
        PemError::NoItemsFound => wrong(key, "there is no private key in it".to_owned()),
        error => wrong(key, error.to_string()),
    })?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, private))
        .map_err(|error| match error {
            TlsError::InconsistentKeys(_) => {
                wrong(key, format!("it is not the key of the certificate in {}", certificates.display()))
            }
            error => wrong(certificates, error.to_string()),
        })?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}
