//! Predictions: a stream of events whose data is the text itself and no JSON, or the whole prediction as one document.

use super::error_body;
use super::time::unix_seconds;
use crate::chunk::{Choice, Delta, Field, FinishReason, Text};
use crate::error::{Class, Error};
use crate::framing::Frame;
use crate::json::{Cursor, JsonError, Kind, Str, Value};
use crate::stream::{Incoming, Part, Sink, Stream};
use crate::usage::{self, Counts};

type Result<T> = std::result::Result<T, JsonError>;

/// The reader of one stream.
#[derive(Debug, Default)]
pub(crate) struct Predictions;

impl Predictions {
    /// One event of a stream.
    #[expect(clippy::unused_self, reason = "the same items in each family")]
    pub(crate) fn frame(
        &mut self,
        frame: Frame<'_>,
        stream: &mut Stream,
        sink: &mut impl Sink,
    ) -> std::result::Result<(), Error> {
        match frame.name {
            b"output" => {
                let text = String::from_utf8_lossy(frame.data).into_owned();
                stream.piece(Part::Content, 0, Text::Owned(text), sink);
                Ok(())
            }
            b"done" => {
                let value = Value::parse(frame.data).unwrap_or(Value::Null);
                if let Some(reason) = value.get("reason").and_then(Value::as_str) {
                    return Err(ended(reason));
                }
                stream.push(finished().into(), sink);
                stream.end(sink);
                Ok(())
            }
            b"error" => Err(failure(&Value::parse(frame.data).unwrap_or(Value::Null), frame.data)),
            // Logs, and what may be added.
            _ => Ok(()),
        }
    }

    /// A single response: the prediction, once it has succeeded.
    #[expect(clippy::unused_self, reason = "the same items in each family")]
    pub(crate) fn body(
        &mut self,
        body: &[u8],
        stream: &mut Stream,
        sink: &mut impl Sink,
    ) -> std::result::Result<(), Error> {
        let prediction = Prediction::read(body).map_err(|error| Error::invalid_json(error, body))?;
        let Prediction { id, created, model, output, status, error, measures } = prediction;
        if let Some(raw) = error {
            let value = Value::parse(raw).map_err(|error| Error::invalid_json(error, body))?;
            return Err(failure(&value, body));
        }
        let status = status.map_or_else(|| "nothing".into(), Str::decode);
        match &*status {
            "succeeded" => {}
            "failed" | "canceled" | "aborted" => return Err(ended(&status)),
            _ => {
                return Err(Error::new(
                    Class::ResponseValidation,
                    format!("expected a prediction that has succeeded, got one whose status is {status:?}"),
                ));
            }
        }
        let delta = Delta { content: Field::Value(Text::Owned(output)), ..Delta::default() };
        let choices = vec![Choice { delta, ..finished() }];
        stream.push(Incoming { id, created, model, choices, ..Incoming::default() }, sink);
        if let Some(raw) = measures {
            let counts = counts(raw).map_err(|error| Error::invalid_json(error, body))?;
            stream.account().report(counts, raw, true);
        }
        stream.end(sink);
        Ok(())
    }
}

fn finished<'a>() -> Choice<'a> {
    Choice { finish_reason: Some(FinishReason::Stop), ..Choice::default() }
}

#[cold]
fn ended(reason: &str) -> Error {
    Error::new(Class::InternalServer, format!("the prediction ended before it was complete: {reason}"))
}

/// An error that is told as prose, or as a document.
#[cold]
fn failure(value: &Value<'_>, data: &[u8]) -> Error {
    match value {
        Value::String(text) => Error::new(Class::InternalServer, text.as_ref()),
        value => error_body::from_value(None, value, data),
    }
}

#[derive(Default)]
struct Prediction<'a> {
    id: Option<Str<'a>>,
    created: Option<i64>,
    model: Option<Str<'a>>,
    /// All its pieces.
    output: String,
    status: Option<Str<'a>>,
    error: Option<&'a [u8]>,
    measures: Option<&'a [u8]>,
}

impl<'a> Prediction<'a> {
    fn read(body: &'a [u8]) -> Result<Self> {
        let mut found = Self::default();
        let mut cursor = Cursor::new(body);
        cursor.object(|cursor, key| {
            match (&*key.bytes(), cursor.kind()?) {
                (b"id", _) => found.id = cursor.string_or_skip()?,
                (b"model", _) => found.model = cursor.string_or_skip()?,
                (b"created_at", Kind::String) => found.created = unix_seconds(&cursor.string()?.decode()),
                (b"status", _) => found.status = cursor.string_or_skip()?,
                (b"output", Kind::Array) => cursor.array(|cursor| {
                    found.output.push_str(&cursor.string_or_skip()?.unwrap_or_default().decode());
                    Ok(())
                })?,
                (b"output", _) => found.output = cursor.string_or_skip()?.unwrap_or_default().decode().into_owned(),
                (b"error", _) => {
                    let raw = cursor.skip()?;
                    found.error = Value::parse(raw)?.is_truthy().then_some(raw);
                }
                (b"metrics", Kind::Object) => found.measures = Some(cursor.skip()?),
                _ => _ = cursor.skip()?,
            }
            Ok(())
        })?;
        cursor.end()?;
        Ok(found)
    }
}

fn counts(raw: &[u8]) -> Result<Counts> {
    let mut counts = Counts::default();
    Cursor::new(raw).object(|cursor, key| {
        match &*key.bytes() {
            b"input_token_count" => counts.prompt = usage::count(cursor)?,
            b"output_token_count" => counts.completion = usage::count(cursor)?,
            _ => _ = cursor.skip()?,
        }
        Ok(())
    })?;
    Ok(counts)
}
