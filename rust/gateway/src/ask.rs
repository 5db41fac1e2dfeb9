//! What a client asks for: the few fields of the body that decide something, read in one walk.

use std::ops::Range;

use hyper::body::Bytes;
use penstock_core::error::{Class, Error};
use penstock_core::json::{Cursor, JsonError, Kind, write_str};
use penstock_core::write::error_body;

use crate::problem::Problem;
use crate::tables::Plain;

/// Bytes of a text that are about one token.
const BYTES_OF_TOKEN: u64 = 4;

/// What would choose where a request goes, or with which key: that is for the tables alone.
const OURS: [&str; 14] = [
    "api_key",
    "api_base",
    "base_url",
    "api_version",
    "organization",
    "custom_llm_provider",
    "extra_headers",
    "extra_query",
    "client",
    "transport",
    "proxy",
    "verify",
    "cert",
    "fallbacks",
];

/// Fields that a body may have.
const MOST: usize = 128;

/// Which of the two languages a client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    Chat,
    Messages,
    Embeddings,
}

impl Operation {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Chat => "chat",
            Self::Messages => "messages",
            Self::Embeddings => "embeddings",
        }
    }
}

impl Operation {
    /// An error in the client's language.
    pub(crate) fn error(self, error: &Error) -> Vec<u8> {
        let mut out = Vec::new();
        error_body(error, &mut out);
        out
    }

    /// A whole response in the client's language.
    pub(crate) fn response(self, chat: Vec<u8>) -> Vec<u8> {
        chat
    }
}

/// A request's body, and what is said in it.
#[derive(Clone, Debug)]
pub(crate) struct Ask {
    pub(crate) body: Bytes,
    pub(crate) model: String,
    pub(crate) stream: bool,
    pub(crate) include_usage: bool,
    pub(crate) user: Option<String>,
    /// For deployments that have them.
    pub(crate) tags: Vec<String>,
    /// The longest answer that was asked for, over all choices.
    longest: u64,
    fields: Vec<Field>,
    /// The fields of `stream_options` but the one that is always set.
    options: Option<Range<usize>>,
}

/// A field, and where its value stands in the body.
#[derive(Clone, Debug)]
struct Field {
    name: String,
    value: Range<usize>,
}

impl Ask {
    /// Reads the body; `model` is that of the path, if it has one.
    pub(crate) fn read(body: Bytes, model: Option<&str>) -> Result<Self, Problem> {
        let mut ask = Self {
            body: Bytes::new(),
            model: model.unwrap_or_default().to_owned(),
            stream: false,
            include_usage: false,
            user: None,
            tags: Vec::new(),
            longest: 0,
            fields: Vec::new(),
            options: None,
        };
        let mut problem = None;
        let mut choices = 1;
        let mut cursor = Cursor::new(&body);
        let walked = cursor.object(|cursor, key| {
            let name = key.decode().into_owned();
            let kind = cursor.kind()?;
            let begin = cursor.position();
            if ask.fields.len() >= MOST {
                problem
                    .get_or_insert_with(|| Problem::of_field(&name, format!("the body has more than {MOST} fields")));
            } else if ask.fields.iter().any(|field| field.name == name) {
                problem.get_or_insert_with(|| Problem::of_field(&name, format!("{name} stands there twice")));
            }
            let mut expect = |fits: bool, what: &str| {
                if !fits {
                    problem.get_or_insert_with(|| Problem::of_field(&name, format!("{name} must be {what}")));
                }
            };
            match &*name {
                "model" if model.is_none() => match cursor.string_or_skip()? {
                    Some(text) => ask.model = text.decode().into_owned(),
                    None => expect(false, "a string"),
                },
                "stream" => match kind {
                    Kind::True | Kind::False => ask.stream = cursor.bool()?,
                    Kind::Null => cursor.null()?,
                    _ => {
                        cursor.skip()?;
                        expect(false, "true or false");
                    }
                },
                "stream_options" => {
                    let value = cursor.skip()?;
                    match kind {
                        Kind::Object => {
                            ask.include_usage = asks_for_usage(value)?;
                            ask.options = Some(begin..begin + value.len());
                        }
                        Kind::Null => {}
                        _ => expect(false, "an object"),
                    }
                }
                "user" => ask.user = cursor.string_or_skip()?.map(|text| text.decode().into_owned()),
                "max_tokens" | "max_completion_tokens" => {
                    if let Some(number) = cursor.number_or_skip()? {
                        ask.longest = u64::try_from(number.as_i64()).unwrap_or(0);
                    }
                }
                "n" => {
                    if let Some(number) = cursor.number_or_skip()? {
                        choices = u64::try_from(number.as_i64()).unwrap_or(1).max(1);
                    }
                }
                _ => {
                    cursor.skip()?;
                    if OURS.contains(&&*name) {
                        problem.get_or_insert_with(|| {
                            Problem::of_field(&name, format!("{name} is for this proxy's configuration to say"))
                        });
                    }
                }
            }
            if ask.fields.len() < MOST {
                ask.fields.push(Field { name, value: begin..cursor.position() });
            }
            Ok(())
        });
        if let Err(error) = walked.and_then(|()| cursor.end()) {
            return Err(invalid(error, &body));
        }
        if let Some(problem) = problem {
            return Err(problem);
        }
        if ask.model.is_empty() {
            return Err(Problem::of_field("model", "the body says no model"));
        }
        if ask.options.is_some() && !ask.stream {
            return Err(Problem::of_field("stream_options", "stream_options needs stream=true"));
        }
        ask.longest = ask.longest.saturating_mul(choices);
        ask.body = body;
        Ok(ask)
    }

    /// Tokens of the prompt, and of the prompt and the longest answer that was asked for; about.
    pub(crate) fn estimate(&self) -> (u64, u64) {
        let prompt = self.body.len() as u64 / BYTES_OF_TOKEN;
        (prompt, prompt.saturating_add(self.longest))
    }

    /// The body for an upstream that calls the model so; None where it has to be put otherwise.
    pub(crate) fn plain(&self, model: &str, plain: &Plain, operation: Operation) -> Option<Vec<u8>> {
        if self.fields.iter().any(|field| plain.refuses.contains(&field.name)) {
            return None;
        }
        let mut out = Vec::with_capacity(self.body.len() + 64);
        out.extend_from_slice(b"{\"model\":");
        write_str(&mut out, model);
        let asks = operation == Operation::Chat && self.stream && plain.stream_options;
        for field in &self.fields {
            if field.name == "model" || (asks && field.name == "stream_options") {
                continue;
            }
            out.push(b',');
            write_str(&mut out, &field.name);
            out.push(b':');
            out.extend_from_slice(self.body.get(field.value.clone()).unwrap_or_default());
        }
        if asks {
            out.extend_from_slice(b",\"stream_options\":{\"include_usage\":true");
            let given = self.options.clone().and_then(|options| self.body.get(options)).unwrap_or_default();
            // It was read as an object once.
            let _ = Cursor::new(given).object(|cursor, key| {
                let value = cursor.skip()?;
                if key.raw() != b"include_usage" {
                    out.push(b',');
                    write_str(&mut out, &key.decode());
                    out.push(b':');
                    out.extend_from_slice(value);
                }
                Ok(())
            });
            out.push(b'}');
        }
        for (name, value) in &plain.set {
            if !self.fields.iter().any(|field| field.name == *name) {
                out.push(b',');
                write_str(&mut out, name);
                out.push(b':');
                // A value that was read as JSON is written as such.
                serde_json::to_writer(&mut out, value).ok()?;
            }
        }
        out.push(b'}');
        Some(out)
    }
}

fn asks_for_usage(options: &[u8]) -> Result<bool, JsonError> {
    let mut asks = false;
    Cursor::new(options).object(|cursor, key| {
        if *key.bytes() == *b"include_usage" && cursor.kind()? == Kind::True {
            asks = true;
        }
        cursor.skip().map(drop)
    })?;
    Ok(asks)
}

#[cold]
fn invalid(error: JsonError, body: &[u8]) -> Problem {
    let told = Error::invalid_json(error, body);
    Problem::new(Class::BadRequest, "", format!("the body is no JSON object: {}", told.message))
}
