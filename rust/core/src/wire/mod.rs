//! Frames into chunks, bodies into responses: one file per wire family, the same items in each.

pub mod anthropic;
pub mod chat;
pub mod cohere;
pub mod converse;
mod error_body;
pub mod gemini;
pub mod invocations;
pub mod invoke;
pub mod ollama;
pub mod predictions;
pub mod responses;
mod template;
pub mod text;
mod time;

pub use error_body::{from_response, from_value};
