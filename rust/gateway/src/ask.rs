//! What a client asks for: the few fields of the body that decide something, read in one walk.

use std::ops::Range;

use hyper::body::Bytes;
use penstock_core::error::{Class, Error};
use penstock_core::json::{Cursor, JsonError, Kind, write_str};
use penstock_core::write::{ChatWriter, MessagesWriter, Writer, error_body, messages_error, messages_response};

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

/// More tokens than any model writes. An estimate without bound would be more than counters hold.
const LONGEST: u64 = 1 << 32;

/// Bytes that the name of a model may have: it is kept with what the request came to.
const MODEL: usize = 2048;
/// And characters of the name of a user. What is longer is cut, for it decides nothing.
const USER: usize = 256;

/// Tags that a request may have; further ones are not looked at.
const TAGS: usize = 64;

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

    /// Headers that are a part of this language: they go on to an upstream that speaks it itself.
    pub(crate) fn headers(self) -> &'static [&'static str] {
        match self {
            Self::Messages => &["anthropic-beta"],
            Self::Chat | Self::Embeddings => &[],
        }
    }

    /// Writes a stream in this language; `model` is the name that the client knows the model by.
    pub(crate) fn writer(self, model: Option<String>) -> Writer {
        match self {
            Self::Chat | Self::Embeddings => Writer::Chat(ChatWriter::new(model)),
            Self::Messages => Writer::Messages(MessagesWriter::new(model)),
        }
    }

    /// An error in this language.
    pub(crate) fn error(self, error: &Error) -> Vec<u8> {
        let mut out = Vec::new();
        match self {
            Self::Chat | Self::Embeddings => error_body(error, &mut out),
            Self::Messages => messages_error(error, &mut out),
        }
        out
    }

    /// A whole chat completion in this language.
    pub(crate) fn response(self, completion: Vec<u8>) -> Result<Vec<u8>, Error> {
        if self != Self::Messages {
            return Ok(completion);
        }
        let mut out = Vec::with_capacity(completion.len());
        messages_response(&completion, None, &mut out).map_err(|error| Error::invalid_json(error, &completion))?;
        Ok(out)
    }
}

impl Plain {
    /// Whether a request with this field is plain.
    fn passes(&self, name: &str) -> bool {
        !self.refuses.contains(name)
            && (matches!(name, "messages" | "stream") || self.takes.as_ref().is_none_or(|takes| takes.contains(name)))
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
    /// Those of [`Operation::headers`] that came.
    pub(crate) headers: Vec<(&'static str, String)>,
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
        if let Err(error) = std::str::from_utf8(&body) {
            let message = format!("the body is no JSON object: it is not UTF-8 at byte {}", error.valid_up_to());
            return Err(Problem::new(Class::BadRequest, "", message));
        }
        let mut ask = Self {
            body: Bytes::new(),
            model: model.unwrap_or_default().to_owned(),
            stream: false,
            include_usage: false,
            user: None,
            tags: Vec::new(),
            headers: Vec::new(),
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
                "metadata" if kind == Kind::Object => ask.tags = tags_of(cursor.skip()?)?,
                "user" => ask.user = cursor.string_or_skip()?.map(|text| printable(&text.decode())),
                "max_tokens" | "max_completion_tokens" => {
                    if let Some(number) = cursor.number_or_skip()? {
                        ask.longest = ask.longest.max(u64::try_from(number.as_i64()).unwrap_or(0));
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
        if ask.model.len() > MODEL || ask.model.contains(char::is_control) {
            let message = format!("model must be a name: of {MODEL} bytes at most, without control characters");
            return Err(Problem::of_field("model", message));
        }
        if ask.options.is_some() && !ask.stream {
            return Err(Problem::of_field("stream_options", "stream_options needs stream=true"));
        }
        ask.longest = ask.longest.saturating_mul(choices).min(LONGEST);
        ask.body = body;
        Ok(ask)
    }

    /// Tokens of the prompt, and of the prompt and the longest answer that was asked for; about.
    pub(crate) fn estimate(&self) -> (u64, u64) {
        let prompt = self.body.len() as u64 / BYTES_OF_TOKEN;
        (prompt, prompt.saturating_add(self.longest))
    }

    /// The body for an upstream that calls the model so; None where it has to be put otherwise. A field that is null is
    /// as if it were not there.
    /// `options`: whether `stream_options` may be among its fields.
    pub(crate) fn plain(&self, model: &str, plain: &Plain, operation: Operation, options: bool) -> Option<Vec<u8>> {
        let mut out = Vec::with_capacity(self.body.len() + 64);
        out.extend_from_slice(b"{\"model\":");
        write_str(&mut out, model);
        let chat = operation == Operation::Chat;
        let mut named: Vec<&str> = Vec::with_capacity(self.fields.len());
        for field in &self.fields {
            let value = self.body.get(field.value.clone()).unwrap_or_default();
            let unsaid = value == b"null" || (field.name == "stream" && value == b"false");
            if unsaid || field.name == "model" || (chat && field.name == "stream_options") {
                continue;
            }
            if !plain.passes(&field.name) {
                return None;
            }
            let left = (field.name == "metadata").then(|| without_tags(value)).flatten();
            let value = left.as_deref().unwrap_or(value);
            if value == b"{}" && left.is_some() {
                continue;
            }
            let name = plain.renames.get(&field.name).unwrap_or(&field.name).as_str();
            if named.contains(&name) {
                return None; // two names of one thing, which may differ
            }
            named.push(name);
            write_field(&mut out, name, value);
        }
        if chat && self.stream && options {
            self.write_options(&mut out, plain.stream_options);
        }
        for (name, value) in &plain.set {
            if !named.contains(&name.as_str()) {
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

    /// The client's `stream_options`, with the usage asked for where it can be, and nowhere else.
    fn write_options(&self, out: &mut Vec<u8>, asks: bool) {
        let given = self.options.clone().and_then(|options| self.body.get(options)).unwrap_or_default();
        let mut options = Vec::new();
        if asks {
            write_field(&mut options, "include_usage", b"true");
        }
        // It was read as an object once.
        let _ = Cursor::new(given).object(|cursor, key| {
            let value = cursor.skip()?;
            if *key.bytes() != *b"include_usage" {
                write_field(&mut options, &key.decode(), value);
            }
            Ok(())
        });
        if let Some((_, fields)) = options.split_first() {
            out.extend_from_slice(b",\"stream_options\":{");
            out.extend_from_slice(fields);
            out.push(b'}');
        }
    }
}

/// The tags among a request's metadata: they choose the deployment. What else has that name is the client's own.
fn tags_of(metadata: &[u8]) -> Result<Vec<String>, JsonError> {
    let mut tags = Vec::new();
    Cursor::new(metadata).object(|cursor, key| {
        if *key.bytes() != *b"tags" || cursor.kind()? != Kind::Array {
            return cursor.skip().map(drop);
        }
        cursor.array(|cursor| {
            let tag = cursor.string_or_skip()?;
            tags.extend(tag.filter(|_| tags.len() < TAGS).map(|tag| tag.decode().into_owned()));
            Ok(())
        })
    })?;
    Ok(tags)
}

/// The same metadata for the upstream, if there are tags among them.
fn without_tags(metadata: &[u8]) -> Option<Vec<u8>> {
    let (mut tagged, mut left) = (false, Vec::new());
    // It was read as JSON once.
    let _ = Cursor::new(metadata).object(|cursor, key| {
        let ours = *key.bytes() == *b"tags" && cursor.kind()? == Kind::Array;
        let value = cursor.skip()?;
        tagged |= ours;
        if !ours {
            write_field(&mut left, &key.decode(), value);
        }
        Ok(())
    });
    let fields = left.get(1..).unwrap_or_default();
    tagged.then(|| [b"{", fields, b"}"].concat())
}

/// A text that anybody can keep: not every database takes all characters.
fn printable(text: &str) -> String {
    text.chars().filter(|character| !character.is_control()).take(USER).collect()
}

/// A comma, and a field whose value is JSON.
fn write_field(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    out.push(b',');
    write_str(out, name);
    out.push(b':');
    out.extend_from_slice(value);
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

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(text: &str) -> Result<Ask, Problem> {
        Ask::read(Bytes::copy_from_slice(text.as_bytes()), None)
    }

    fn plain(text: &str, plain: &Plain) -> Option<String> {
        let body = ask(text).unwrap().plain("theirs", plain, Operation::Chat, true)?;
        Some(String::from_utf8(body).unwrap())
    }

    fn complaint(text: &str) -> (String, Option<String>) {
        let error = ask(text).unwrap_err().error;
        (error.message, error.details.param)
    }

    #[test]
    fn what_decides_is_read() {
        let text =
            r#"{"model":"m","stream":true,"stream_options":{"include_usage":true},"user":"u","n":2,"max_tokens":50}"#;
        let ask = ask(text).unwrap();
        assert_eq!((ask.model.as_str(), ask.stream, ask.include_usage), ("m", true, true));
        assert_eq!(ask.user.as_deref(), Some("u"));
        let prompt = text.len() as u64 / 4;
        assert_eq!(ask.estimate(), (prompt, prompt + 100));
    }

    #[test]
    fn an_estimate_is_no_larger_than_counters_hold() {
        for longest in ["1e300", "9223372036854775807", "18446744073709551616"] {
            let (prompt, tokens) =
                ask(&format!(r#"{{"model":"m","n":1000,"max_tokens":{longest}}}"#)).unwrap().estimate();
            assert_eq!(tokens, prompt + LONGEST, "{longest}");
        }
        let (prompt, tokens) = ask(r#"{"model":"m","n":-1,"max_tokens":-5}"#).unwrap().estimate();
        assert_eq!(tokens, prompt);
        // Whichever of the two names counts upstream.
        for text in [
            r#"{"model":"m","max_completion_tokens":900,"max_tokens":1}"#,
            r#"{"model":"m","max_tokens":900,"max_completion_tokens":1}"#,
        ] {
            let (prompt, tokens) = ask(text).unwrap().estimate();
            assert_eq!(tokens, prompt + 900);
        }
    }

    #[test]
    fn tags_choose_and_go_no_further() {
        let tags = |metadata: &str| {
            let text = format!(r#"{{"model":"m","metadata":{metadata}}}"#);
            (ask(&text).unwrap().tags, plain(&text, &Plain::default()).unwrap())
        };
        let sent = |metadata: &str| format!(r#"{{"model":"theirs","metadata":{metadata}}}"#);
        assert_eq!(
            tags(r#"{"tags":["a","b\u0065"]}"#),
            (vec!["a".into(), "be".into()], r#"{"model":"theirs"}"#.into())
        );
        let beside = r#"{ "t\u0061gs" : ["a", 1] , "team":{"tags":["x"]}, "user_id":"u" }"#;
        assert_eq!(tags(beside), (vec!["a".into()], sent(r#"{"team":{"tags":["x"]},"user_id":"u"}"#)));
        // Not ours.
        for metadata in [r#"{"tags":"a,b"}"#, "{}", "7", r#"{"labels":["a"]}"#] {
            assert_eq!(tags(metadata), (vec![], sent(metadata)));
        }
        assert_eq!(tags("null").1, r#"{"model":"theirs"}"#);
        let many: Vec<_> = (0..1000).map(|number| format!(r#""{number}""#)).collect();
        assert_eq!(tags(&format!(r#"{{"tags":[{}]}}"#, many.join(","))).0.len(), TAGS);
    }

    #[test]
    fn what_is_kept_of_a_request_can_be_kept_anywhere() {
        let long = "m".repeat(MODEL + 1);
        for name in ["a\\u0000b", "a\\nb", "a\\u007fb", &long] {
            let (message, param) = complaint(&format!(r#"{{"model":"{name}"}}"#));
            assert!(message.starts_with("model must be a name") && message.len() < 200, "{message}");
            assert_eq!(param.as_deref(), Some("model"));
        }
        assert!(Ask::read(Bytes::from_static(b"{}"), Some("a\0b")).is_err());
        let text = format!(r#"{{"model":"m","user":"caf\u00e9 \u0000\n{}"}}"#, "u".repeat(1000));
        assert_eq!(ask(&text).unwrap().user.unwrap(), format!("café {}", "u".repeat(USER - 5)));
    }

    #[test]
    fn what_is_not_utf_8_is_no_json() {
        let body = Bytes::from_static(b"{\"model\":\"m\",\"messages\":\"\xff\"}");
        let error = Ask::read(body, None).unwrap_err().error;
        assert_eq!(error.message, "the body is no JSON object: it is not UTF-8 at byte 25");
    }

    #[test]
    fn the_model_of_the_path_comes_before_that_of_the_body() {
        let body = Bytes::from_static(br#"{"model":"other"}"#);
        assert_eq!(Ask::read(body, Some("mine")).unwrap().model, "mine");
    }

    #[test]
    fn everything_else_goes_through_as_it_came() {
        let usual = Plain { stream_options: true, ..Plain::default() };
        let text = "{ \"messages\" : [ {\"content\" : \"caf\\u00e9 \\\"\"} ] , \"model\":\"m\", \"x\\u0041\": 1e3 }";
        let expected = r#"{"model":"theirs","messages":[ {"content" : "caf\u00e9 \""} ],"xA":1e3}"#;
        assert_eq!(plain(text, &usual).unwrap(), expected);
    }

    #[test]
    fn usage_is_asked_for_where_it_can_be() {
        let can = Plain { stream_options: true, ..Plain::default() };
        let text = r#"{"model":"m","stream":true}"#;
        let asked = r#"{"model":"theirs","stream":true,"stream_options":{"include_usage":true}}"#;
        assert_eq!(plain(text, &can).unwrap(), asked);
        assert_eq!(plain(text, &Plain::default()).unwrap(), r#"{"model":"theirs","stream":true}"#);
        let text =
            r#"{"model":"m","stream":true,"stream_options":{"include_usage":false,"include_obfuscation":false}}"#;
        let asked =
            r#"{"model":"theirs","stream":true,"stream_options":{"include_usage":true,"include_obfuscation":false}}"#;
        assert_eq!(plain(text, &can).unwrap(), asked);
        // No option at all where the upstream has refused them.
        let body = ask(text).unwrap().plain("theirs", &can, Operation::Chat, false).unwrap();
        assert_eq!(body, br#"{"model":"theirs","stream":true}"#);
        // Not of who does not stream.
        assert_eq!(plain(r#"{"model":"m"}"#, &can).unwrap(), r#"{"model":"theirs"}"#);
    }

    #[test]
    fn fields_are_set_where_they_are_missing_and_refused_where_they_need_a_plan() {
        let set = serde_json::from_str(r#"{"temperature":0.5,"seed":7}"#).unwrap();
        let rules = Plain { set, refuses: ["top_k".to_owned()].into(), ..Plain::default() };
        let body: serde_json::Value =
            serde_json::from_str(&plain(r#"{"model":"m","seed":1}"#, &rules).unwrap()).unwrap();
        assert_eq!(body, serde_json::json!({ "model": "theirs", "seed": 1, "temperature": 0.5 }));
        assert_eq!(plain(r#"{"model":"m","top_k":1}"#, &rules), None);
    }

    #[test]
    fn what_cannot_be_is_named() {
        assert_eq!(complaint(r#"{"stream":true}"#), ("the body says no model".into(), Some("model".into())));
        assert_eq!(complaint(r#"{"model":7}"#), ("model must be a string".into(), Some("model".into())));
        assert_eq!(
            complaint(r#"{"model":"m","stream":1}"#),
            ("stream must be true or false".into(), Some("stream".into()))
        );
        let (message, _) = complaint(r#"{"model":"m","stream_options":{}}"#);
        assert_eq!(message, "stream_options needs stream=true");
        assert_eq!(complaint(r#"{"model":"m","model":"n"}"#).0, "model stands there twice");
        for text in ["", "[]", "{", "{\"model\":\"m\"}x", "nul"] {
            assert!(complaint(text).0.starts_with("the body is no JSON object"), "{text}");
        }
        let deep = format!(r#"{{"model":"m","x":{}1{}}}"#, "[".repeat(300), "]".repeat(300));
        assert!(complaint(&deep).0.contains("256 nested"), "{}", complaint(&deep).0);
    }

    #[test]
    fn nobody_chooses_where_it_goes() {
        for name in OURS {
            let (message, param) = complaint(&format!(r#"{{"model":"m","{name}":"x"}}"#));
            assert_eq!(param.as_deref(), Some(name), "{message}");
        }
    }

    #[test]
    fn a_body_of_very_many_fields_is_refused() {
        let fields: Vec<_> = (0..100_000).map(|number| format!(r#""x{number}":0"#)).collect();
        assert!(complaint(&format!(r#"{{"model":"m",{}}}"#, fields.join(","))).0.contains("more than 128 fields"));
    }
}
