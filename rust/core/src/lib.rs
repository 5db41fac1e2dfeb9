//! Streaming decoders for LLM wire formats: bytes in, OpenAI-shaped chunks and usage out.
//!
//! No sockets, no clock, no Python: a [`decoder::Decoder`] is fed by whoever reads the bytes.
#![forbid(unsafe_code)]

pub mod assemble;
pub mod chunk;
pub mod decoder;
pub mod error;
pub mod framing;
pub mod json;
pub mod stream;
pub mod usage;
pub mod wire;
