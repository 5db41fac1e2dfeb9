//! Frames into chunks, bodies into responses: one file per wire family, the same items in each.

pub mod anthropic;
pub mod chat;
mod error_body;
pub mod responses;
mod template;

pub use error_body::{from_response, from_value};
