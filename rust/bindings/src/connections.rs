//! Whom to trust, and where connections wait.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use penstock_engine::pool::{self, Http2, Route};
use penstock_engine::proxy::Proxy;
use penstock_engine::tls::{self, Authorities, Identity};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::network;

#[pyclass(frozen, module = "penstock._native")]
pub(crate) struct Trust {
    trust: Arc<tls::Trust>,
}

#[pymethods]
impl Trust {
    #[new]
    #[pyo3(signature = (authorities = None, *, verify = true, cert = None))]
    fn new(authorities: Option<Vec<PathBuf>>, verify: bool, cert: Option<(PathBuf, PathBuf)>) -> PyResult<Self> {
        let authorities = match authorities {
            _ if !verify => Authorities::Anyone,
            None => Authorities::Platform,
            Some(files) => Authorities::Files(files),
        };
        let identity = cert.map(|(certificates, key)| Identity { certificates, key });
        match tls::Trust::new(&authorities, identity.as_ref()) {
            Ok(trust) => Ok(Self { trust: Arc::new(trust) }),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => Err(PyValueError::new_err(error.to_string())),
            Err(error) => Err(error.into()),
        }
    }
}

#[pyclass(frozen, module = "penstock._native")]
pub(crate) struct Connections {
    pub(crate) pool: Arc<pool::Pool>,
}

#[pymethods]
impl Connections {
    #[new]
    #[pyo3(signature = (trust, *, proxy = None, http2 = None))]
    fn new(trust: &Bound<'_, Trust>, proxy: Option<&str>, http2: Option<&str>) -> PyResult<Self> {
        let proxy = proxy.map(Proxy::parse).transpose().map_err(|error| network::raise(&error))?;
        let http2 = match http2 {
            None => Http2::Never,
            Some("negotiated") => Http2::Negotiated,
            Some("prior-knowledge") => Http2::Known,
            Some(other) => return Err(PyValueError::new_err(format!("http2 {other:?}"))),
        };
        let trust = Arc::clone(&trust.get().trust);
        Ok(Self { pool: Arc::new(pool::Pool::speaking(Route { proxy, trust }, http2)) })
    }

    fn close(&self) {
        self.pool.close();
    }

    fn __len__(&self) -> usize {
        self.pool.len()
    }
}
