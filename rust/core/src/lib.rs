//! Streaming decoders for LLM wire formats: bytes in, OpenAI-shaped chunks and usage out.
//!
//! No sockets, no clock, no Python: a [`decoder::Decoder`] is fed by whoever reads the bytes, cut wherever they come,
//! and hands what it makes of them to a [`stream::Sink`]. Start there; a body that is not streamed is for
//! [`decoder::decode_response`], the body of an error for [`wire::from_response`]. Whom to ask, and whether again, is for
//! [`policy`].
//!
//! ```
//! use penstock_core::chunk::{Chunk, Field, Head, Text};
//! use penstock_core::decoder::{Decoder, Dialect, Family, Options};
//! use penstock_core::stream::{Part, Sink};
//!
//! #[derive(Default)]
//! struct Answer(String);
//!
//! impl Sink for Answer {
//!     fn chunk(&mut self, chunk: &Chunk<'_>) {
//!         for choice in &chunk.choices {
//!             if let Field::Value(text) = &choice.delta.content {
//!                 self.again(Part::Content, text);
//!             }
//!         }
//!     }
//!
//!     // The last chunk once more with another text: nearly every event of a stream is no more than that.
//!     fn again(&mut self, part: Part, text: &Text<'_>) {
//!         if part == Part::Content {
//!             self.0.push_str(&text.decode());
//!         }
//!     }
//! }
//!
//! # fn main() -> Result<(), penstock_core::error::Error> {
//! let options = Options {
//!     dialect: Dialect::default(),
//!     include_usage: false,
//!     max_event_size: 1 << 20,
//!     keep: false,
//!     fallback: Head::default(),
//!     answer_tool: None,
//! };
//! let mut decoder = Decoder::new(Family::Chat, options);
//! let mut answer = Answer::default();
//! decoder.feed(b"data: {\"choices\":[{\"delta\":{\"content\":\"Hel", &mut answer)?;
//! decoder.feed(b"lo\"},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n", &mut answer)?;
//! decoder.finish(&mut answer)?;
//! assert_eq!(answer.0, "Hello");
//! # Ok(())
//! # }
//! ```
#![forbid(unsafe_code)]

pub mod assemble;
pub mod chunk;
pub mod decoder;
pub mod error;
pub mod framing;
pub mod json;
pub mod policy;
mod splice;
pub mod stream;
pub mod usage;
pub mod wire;
pub mod write;
