//! Frames into chunks, bodies into responses: one file per wire family, the same items in each.

pub mod anthropic;
pub mod chat;
pub mod converse;
mod error_body;
pub mod invoke;
pub mod responses;
mod template;
mod text;

pub use error_body::{from_response, from_value};
