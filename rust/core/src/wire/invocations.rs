//! Invocations: whatever a hosted model sends, cut anywhere into the messages of an event stream. What it sends are the
//! events of the text family, which the framing has put together again.

pub(crate) use super::text::Text as Invocations;
