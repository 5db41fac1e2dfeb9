//! `penstock._native`: penstock-core for Python. The contract is `python/penstock/_native.pyi`.
#![expect(clippy::needless_pass_by_value, reason = "pyo3 hands arguments over by value")]

mod async_transfer;
mod budget;
mod chunks;
mod classes;
mod connections;
mod decoder;
mod errors;
mod events;
mod failure;
#[cfg(unix)]
mod gateway;
mod json;
mod network;
mod pool;
mod record;
#[cfg(unix)]
mod spend;
mod transfer;

use pyo3::prelude::*;

#[pymodule(gil_used = false)]
mod _native {
    use pyo3::prelude::*;
    use pyo3::types::PyTuple;

    #[pymodule_export]
    use super::async_transfer::AsyncTransfer;
    #[pymodule_export]
    use super::budget::RetryBudget;
    #[pymodule_export]
    use super::classes::{
        ChatCompletion, ChatCompletionChunk, ChatCompletionMessage, Choice, ChoiceDelta, ChunkChoice,
        CompletionTokensDetails, CompletionUsage, Function, PromptTokensDetails, ToolCall,
    };
    #[pymodule_export]
    use super::connections::{Connections, Trust};
    #[pymodule_export]
    use super::decoder::{ChunkIterator, Decoder, decode_response};
    #[pymodule_export]
    use super::errors::decode_error;
    #[pymodule_export]
    use super::events::{EventDecoder, ServerSentEvent};
    #[pymodule_export]
    use super::failure::Failure;
    #[cfg(unix)]
    #[pymodule_export]
    use super::gateway::{Gateway, Job};
    #[pymodule_export]
    use super::network::NetworkError;
    #[pymodule_export]
    use super::pool::{DeploymentStatus, Lease, Pool, Refusal};
    #[pymodule_export]
    use super::record::Record;
    #[cfg(unix)]
    #[pymodule_export]
    use super::spend::SpendRow;
    #[pymodule_export]
    use super::transfer::Transfer;

    #[pymodule_export]
    #[expect(non_upper_case_globals, reason = "Python's name for it")]
    const __version__: &str = env!("CARGO_PKG_VERSION");

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        let py = module.py();
        let families = penstock_core::decoder::Family::ALL.iter().map(|family| family.name());
        module.add("FAMILIES", PyTuple::new(py, families)?)?;
        // Every subclass comes with it.
        py.import("collections.abc")?.getattr("Mapping")?.call_method1("register", (py.get_type::<Record>(),))?;
        Ok(())
    }
}
