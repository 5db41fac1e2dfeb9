//! The OpenAI-shaped chunk: what every wire family gives, borrowed from the frame it came in.

use std::borrow::Cow;

use crate::json::Str;
use crate::usage::Usage;

/// A field that may be missing, null, or there: the three differ for whoever looks with `in`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Field<T> {
    #[default]
    Absent,
    Null,
    Value(T),
}

impl<T> Field<T> {
    #[must_use]
    pub fn value(self) -> Option<T> {
        match self {
            Field::Value(value) => Some(value),
            _ => None,
        }
    }

    #[must_use]
    pub fn as_ref(&self) -> Field<&T> {
        match self {
            Field::Absent => Field::Absent,
            Field::Null => Field::Null,
            Field::Value(value) => Field::Value(value),
        }
    }
}

impl<T> From<Option<T>> for Field<T> {
    /// None is null.
    fn from(value: Option<T>) -> Self {
        value.map_or(Field::Null, Field::Value)
    }
}

/// A piece of text: as it stands in the frame, or made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Text<'a> {
    Json(Str<'a>),
    Owned(String),
}

impl Text<'_> {
    #[must_use]
    pub fn is_empty(&self) -> bool {
        match self {
            Text::Json(text) => text.is_empty(),
            Text::Owned(text) => text.is_empty(),
        }
    }

    #[must_use]
    pub fn decode(&self) -> Cow<'_, str> {
        match self {
            Text::Json(text) => text.decode(),
            Text::Owned(text) => Cow::Borrowed(text),
        }
    }
}

/// A field that OpenAI's schema lacks: its name, and its value as JSON text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extra<'a> {
    pub key: Str<'a>,
    pub json: Cow<'a, [u8]>,
}

impl<'a> Extra<'a> {
    #[must_use]
    pub fn new(key: Str<'a>, json: &'a [u8]) -> Self {
        Self { key, json: Cow::Borrowed(json) }
    }

    /// Beside a delta, these say again what the deltas say.
    #[must_use]
    pub fn is_copy(&self) -> bool {
        matches!(self.key.raw(), b"message" | b"text")
    }
}

pub type Extras<'a> = Vec<Extra<'a>>;

/// What all chunks of one stream have in common.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Head {
    pub id: String,
    /// Unix seconds.
    pub created: i64,
    pub model: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk<'a> {
    pub head: &'a Head,
    pub service_tier: Field<Str<'a>>,
    pub system_fingerprint: Field<Str<'a>>,
    pub choices: Vec<Choice<'a>>,
    pub usage: Field<&'a Usage>,
    pub extra: Extras<'a>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Choice<'a> {
    pub index: u32,
    pub delta: Delta<'a>,
    pub finish_reason: Option<FinishReason>,
    /// JSON text.
    pub logprobs: Field<&'a [u8]>,
    pub extra: Extras<'a>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Delta<'a> {
    pub role: Option<Str<'a>>,
    pub content: Field<Text<'a>>,
    pub reasoning_content: Field<Text<'a>>,
    pub refusal: Field<Text<'a>>,
    pub tool_calls: Vec<ToolCall<'a>>,
    pub function_call: Option<Function<'a>>,
    /// JSON text: an object with the next pieces of `data` and `transcript`.
    pub audio: Option<&'a [u8]>,
    /// JSON text: an array.
    pub annotations: Option<&'a [u8]>,
    pub extra: Extras<'a>,
}

/// A piece of a tool call. From a wire: as it says. From a decoder: `index` counts the choice's calls from 0, and the
/// first piece of each has `id`, `kind` and name, the later ones have not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ToolCall<'a> {
    pub index: Option<u32>,
    pub id: Option<Text<'a>>,
    pub kind: Option<Str<'a>>,
    pub function: Function<'a>,
    pub extra: Extras<'a>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Function<'a> {
    pub name: Option<Str<'a>>,
    pub arguments: Option<Text<'a>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FinishReason {
    Stop,
    Length,
    ToolCalls,
    ContentFilter,
    FunctionCall,
}

impl FinishReason {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            FinishReason::Stop => "stop",
            FinishReason::Length => "length",
            FinishReason::ToolCalls => "tool_calls",
            FinishReason::ContentFilter => "content_filter",
            FinishReason::FunctionCall => "function_call",
        }
    }
}
