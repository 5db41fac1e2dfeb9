//! One normalised usage per stream: how reports are read, which of them wins, and what they add up to.

use crate::json::{Cursor, Kind, Object, Result, Value, write_json};

/// Whether reasoning tokens are a part of the completion tokens that a server reports, or come beside them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Reasoning {
    #[default]
    Inside,
    Beside,
}

/// The counts of one report, normalised: every detail is a part of its parent, and the total is their sum. None is
/// unknown, which is not 0.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub prompt: Option<u64>,
    pub completion: Option<u64>,
    /// As reported; not part of the normalised object, which adds up.
    pub reported_total: Option<u64>,
    /// The total where one side is unknown and adds nothing, by the rules of its wire.
    pub total_of_known: Option<u64>,
    pub cached: Option<u64>,
    pub cache_write: Option<u64>,
    pub prompt_audio: Option<u64>,
    pub reasoning: Option<u64>,
    pub completion_audio: Option<u64>,
    pub accepted_prediction: Option<u64>,
    pub rejected_prediction: Option<u64>,
}

impl Counts {
    /// The sum; unknown where one side is, unless its wire says what to make of that.
    #[must_use]
    pub fn total(&self) -> Option<u64> {
        match (self.prompt, self.completion) {
            (Some(prompt), Some(completion)) => Some(prompt.saturating_add(completion)),
            _ => self.total_of_known,
        }
    }

    fn all(&self) -> [Option<u64>; 10] {
        [
            self.prompt,
            self.completion,
            self.reported_total,
            self.cached,
            self.cache_write,
            self.prompt_audio,
            self.reasoning,
            self.completion_audio,
            self.accepted_prediction,
            self.rejected_prediction,
        ]
    }

    /// Null and `{}` are not reports, and neither is an object without a count.
    #[must_use]
    pub fn is_report(&self) -> bool {
        self.all().iter().any(Option::is_some)
    }

    #[must_use]
    pub fn is_zero(&self) -> bool {
        self.all().iter().all(|count| count.is_none_or(|count| count == 0))
    }

    /// Brings an OpenAI-shaped report to the target's invariants.
    fn settle(mut self, reasoning: Reasoning) -> Self {
        if let (Some(prompt), Some(completion), Some(thought), Some(total)) =
            (self.prompt, self.completion, self.reasoning, self.reported_total)
        {
            let sum = prompt.saturating_add(completion);
            if total != sum && total == sum.saturating_add(thought) {
                self.completion = Some(completion.saturating_add(thought));
            }
        }
        if let Some(prompt) = self.prompt {
            let cache = self.cached.unwrap_or(0).saturating_add(self.cache_write.unwrap_or(0));
            if cache > prompt {
                self.prompt = Some(prompt.saturating_add(cache));
            }
        }
        if let (Some(completion), Some(thought)) = (self.completion, self.reasoning)
            && thought > completion
        {
            match reasoning {
                Reasoning::Inside => self.reasoning = Some(completion),
                Reasoning::Beside => self.completion = Some(completion.saturating_add(thought)),
            }
        }
        self
    }
}

/// The usage of a completion, with where it comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Usage {
    pub counts: Counts,
    /// The provider's final word was seen.
    pub complete: bool,
    /// The provider's own object, as JSON text: of several reports the last.
    pub raw: Vec<u8>,
    /// What several reports come to, where each speaks for some of the fields only; as JSON text.
    merged: Option<Vec<u8>>,
}

/// The fields of the target and those that mean the same elsewhere: they are said by the counts.
const SAID: &[&[u8]] = &[
    b"prompt_tokens",
    b"completion_tokens",
    b"total_tokens",
    b"prompt_tokens_details",
    b"completion_tokens_details",
    b"input_tokens",
    b"output_tokens",
    b"input_tokens_details",
    b"output_tokens_details",
    b"promptTokenCount",
    b"candidatesTokenCount",
    b"thoughtsTokenCount",
    b"cachedContentTokenCount",
    b"totalTokenCount",
    b"prompt_eval_count",
    b"eval_count",
    b"inputTokens",
    b"outputTokens",
    b"totalTokens",
    b"cacheReadInputTokens",
    b"cacheReadInputTokenCount",
    b"cacheWriteInputTokens",
    b"cacheWriteInputTokenCount",
    b"inputTokenCount",
    b"outputTokenCount",
    b"prompt_token_count",
    b"generation_token_count",
    b"inputTextTokenCount",
    b"totalOutputTextTokenCount",
    b"tokenCount",
    b"input_token_count",
    b"generated_token_count",
    b"output_token_count",
    b"input_length",
    b"generated_tokens",
];

impl Usage {
    /// Appends the normalised object as JSON text. What the provider says beyond the counts stays in it.
    pub fn write(&self, out: &mut Vec<u8>) {
        let counts = &self.counts;
        let mut object = Object::begin(out);
        write_counts(
            &mut object,
            [
                ("prompt_tokens", counts.prompt),
                ("completion_tokens", counts.completion),
                ("total_tokens", counts.total()),
            ],
        );
        let (mut prompt, mut input, mut completion, mut output) = (None, None, None, None);
        let mut others = false;
        // The text was read as JSON when the report came in: this cannot fail.
        let of_prompt = [
            ("cached_tokens", counts.cached),
            ("cache_write_tokens", counts.cache_write),
            ("audio_tokens", counts.prompt_audio),
        ];
        let of_completion = [
            ("reasoning_tokens", counts.reasoning),
            ("audio_tokens", counts.completion_audio),
            ("accepted_prediction_tokens", counts.accepted_prediction),
            ("rejected_prediction_tokens", counts.rejected_prediction),
        ];
        let _ = Cursor::new(self.reported()).object(|cursor, key| {
            match &*key.bytes() {
                b"prompt_tokens_details" => prompt = read_details(cursor, &of_prompt)?,
                b"input_tokens_details" => input = read_details(cursor, &of_prompt)?,
                b"completion_tokens_details" => completion = read_details(cursor, &of_completion)?,
                b"output_tokens_details" => output = read_details(cursor, &of_completion)?,
                key => {
                    others |= !SAID.contains(&key);
                    cursor.skip()?;
                }
            }
            Ok(())
        });
        write_details(&mut object, "prompt_tokens_details", prompt.or(input), of_prompt);
        write_details(&mut object, "completion_tokens_details", completion.or(output), of_completion);
        if others {
            write_others(&mut object, self.reported(), |key| SAID.contains(&key));
        }
        object.end();
    }

    fn reported(&self) -> &[u8] {
        self.merged.as_ref().unwrap_or(&self.raw)
    }
}

/// The details of a part of the tokens, as reported.
#[derive(Clone, Copy)]
struct Details<'a> {
    raw: &'a [u8],
    /// There is more in them than counts that we know.
    others: bool,
}

/// None where it is no object.
fn read_details<'a>(cursor: &mut Cursor<'a>, counts: &[(&str, Option<u64>)]) -> Result<Option<Details<'a>>> {
    if cursor.kind()? != Kind::Object {
        return cursor.skip().map(|_| None);
    }
    let (others, raw) = cursor.with_raw(|cursor| {
        let mut others = false;
        cursor.object(|cursor, key| {
            others |= !is_among(counts, &key.bytes());
            cursor.skip().map(drop)
        })?;
        Ok(others)
    })?;
    Ok(Some(Details { raw, others }))
}

fn is_among(counts: &[(&str, Option<u64>)], key: &[u8]) -> bool {
    counts.iter().any(|(name, _)| name.as_bytes() == key)
}

fn write_details<const N: usize>(
    object: &mut Object<'_>,
    name: &'static str,
    reported: Option<Details<'_>>,
    counts: [(&'static str, Option<u64>); N],
) {
    if reported.is_none() && counts.iter().all(|(_, count)| count.is_none()) {
        return;
    }
    let mut details = Object::begin(object.key(name));
    write_counts(&mut details, counts);
    if let Some(Details { raw, others: true }) = reported {
        write_others(&mut details, raw, |key| is_among(&counts, key));
    }
    details.end();
}

fn write_counts<const N: usize>(object: &mut Object<'_>, counts: [(&'static str, Option<u64>); N]) {
    for (name, count) in counts {
        if let Some(count) = count {
            object.number(name, count);
        }
    }
}

/// Appends the fields of `json` that `said` does not know.
fn write_others(object: &mut Object<'_>, json: &[u8], said: impl Fn(&[u8]) -> bool) {
    let _ = Cursor::new(json).object(|cursor, key| {
        let value = cursor.skip()?;
        if !said(&key.bytes()) {
            write_json(object.given(&key.decode()), value);
        }
        Ok(())
    });
}

/// What a report does to those before it, where it does not simply replace them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Combine {
    /// Its fields overwrite those of the same name, unless they are null; the others stay.
    Overwrite,
    /// The same, but of two numbers the larger one stays.
    Max,
}

impl Combine {
    fn merge(self, whole: &mut Value<'static>, report: Value<'static>) {
        let Value::Object(fields) = report else {
            return;
        };
        if !matches!(whole, Value::Object(_)) {
            *whole = Value::Object(Vec::new());
        }
        for (name, value) in fields {
            let stays = match (self, whole.get(&name)) {
                _ if value == Value::Null => true,
                (Combine::Max, Some(known @ Value::Number(_))) => known.as_i64() >= value.as_i64(),
                _ => false,
            };
            if !stays {
                whole.set(name, value);
            }
        }
    }
}

/// How the reports of one stream combine: the last one wins, as a whole or as [`Combine`] says, but zeros never
/// replace counts.
#[derive(Debug)]
pub struct Account {
    reasoning: Reasoning,
    usage: Option<Usage>,
    /// What the reports so far come to, where they are combined.
    merged: Value<'static>,
    /// The last report, as it came, and how to read it, where nobody has asked for it yet.
    unread: Vec<u8>,
    read: Option<Read>,
}

/// Reads a report; None where it is none.
pub type Read = fn(&[u8]) -> Option<Counts>;

impl Account {
    #[must_use]
    pub fn new(reasoning: Reasoning) -> Self {
        Self { reasoning, usage: None, merged: Value::Null, unread: Vec::new(), read: None }
    }

    /// Takes one report, read from `raw`. `last_word` says that the provider will not correct it.
    /// False where it is no report and changes nothing.
    pub fn report(&mut self, counts: Counts, raw: &[u8], last_word: bool) -> bool {
        self.settle();
        if !counts.is_report() {
            return false;
        }
        if !self.is_void(&counts, last_word) {
            let counts = counts.settle(self.reasoning);
            self.usage = Some(Usage { counts, complete: last_word, raw: raw.to_vec(), merged: None });
        }
        true
    }

    /// Takes a report that the provider will correct, and leaves it unread until somebody asks: most are followed by
    /// another. It must be one that would replace the last: not all zeros, and with the same fields.
    pub fn report_later(&mut self, raw: &[u8], read: Read) {
        self.unread.clear();
        self.unread.extend_from_slice(raw);
        self.read = Some(read);
    }

    fn settle(&mut self) {
        if let Some(counts) = self.read.take().and_then(|read| read(&self.unread)) {
            let raw = std::mem::take(&mut self.unread);
            self.report(counts, &raw, false);
            self.unread = raw;
        }
    }

    /// Takes a report that is only a part of what there is to say. `read` gets all that was said so far, may take from
    /// it what no longer holds, and counts it.
    pub fn combine(
        &mut self,
        how: Combine,
        raw: &[u8],
        last_word: bool,
        read: impl Fn(&mut Value<'static>) -> Counts,
    ) -> Result<bool> {
        self.settle();
        let report = Value::parse(raw)?.into_owned();
        let alone = read(&mut report.clone());
        if !alone.is_report() {
            return Ok(false);
        }
        if !self.is_void(&alone, last_word) {
            how.merge(&mut self.merged, report);
            let counts = read(&mut self.merged).settle(self.reasoning);
            let mut merged = Vec::new();
            self.merged.write(&mut merged);
            self.usage = Some(Usage { counts, complete: last_word, raw: raw.to_vec(), merged: Some(merged) });
        }
        Ok(true)
    }

    /// Whether a report is all zeros and there are counts already. It may still be the last word.
    fn is_void(&mut self, counts: &Counts, last_word: bool) -> bool {
        match &mut self.usage {
            Some(usage) if counts.is_zero() && !usage.counts.is_zero() => {
                usage.complete |= last_word;
                true
            }
            _ => false,
        }
    }

    /// The stream has come to its end: what was reported stands.
    pub fn close(&mut self) {
        self.settle();
        if let Some(usage) = &mut self.usage {
            usage.complete = true;
        }
    }

    #[must_use]
    pub fn usage(&mut self) -> Option<&Usage> {
        self.settle();
        self.usage.as_ref()
    }
}

/// Reads an OpenAI-shaped usage object, with the other places where compatible servers put the same counts.
pub fn openai_counts(json: &[u8]) -> Result<Counts> {
    let mut counts = Counts::default();
    // Other places count only where the usual one is silent, so they wait until the object has been read.
    let mut cached_elsewhere = [None; 4];
    let [top, prompt_details_elsewhere, hit, read] = &mut cached_elsewhere;
    let mut written_elsewhere = None;
    let mut reasoning_elsewhere = None;
    let mut cursor = Cursor::new(json);
    cursor.object(|cursor, key| {
        match &*key.bytes() {
            b"prompt_tokens" => counts.prompt = count(cursor)?,
            b"completion_tokens" => counts.completion = count(cursor)?,
            b"total_tokens" => counts.reported_total = count(cursor)?,
            b"prompt_tokens_details" if cursor.kind()? == Kind::Object => cursor.object(|cursor, key| {
                match &*key.bytes() {
                    b"cached_tokens" => counts.cached = count(cursor)?,
                    b"cache_write_tokens" => counts.cache_write = count(cursor)?,
                    b"cache_creation_input_tokens" => written_elsewhere = count(cursor)?,
                    b"audio_tokens" => counts.prompt_audio = count(cursor)?,
                    _ => _ = cursor.skip()?,
                }
                Ok(())
            })?,
            b"completion_tokens_details" if cursor.kind()? == Kind::Object => cursor.object(|cursor, key| {
                match &*key.bytes() {
                    b"reasoning_tokens" => counts.reasoning = count(cursor)?,
                    b"audio_tokens" => counts.completion_audio = count(cursor)?,
                    b"accepted_prediction_tokens" => counts.accepted_prediction = count(cursor)?,
                    b"rejected_prediction_tokens" => counts.rejected_prediction = count(cursor)?,
                    _ => _ = cursor.skip()?,
                }
                Ok(())
            })?,
            b"prompt_token_details" if cursor.kind()? == Kind::Object => cursor.object(|cursor, key| {
                match &*key.bytes() {
                    b"cached_tokens" => *prompt_details_elsewhere = count(cursor)?,
                    _ => _ = cursor.skip()?,
                }
                Ok(())
            })?,
            b"cached_tokens" | b"num_cached_tokens" => *top = count(cursor)?.or(*top),
            b"prompt_cache_hit_tokens" => *hit = count(cursor)?,
            b"cache_read_input_tokens" => *read = count(cursor)?,
            b"cache_creation_input_tokens" => written_elsewhere = count(cursor)?.or(written_elsewhere),
            b"reasoning_tokens" => reasoning_elsewhere = count(cursor)?,
            _ => _ = cursor.skip()?,
        }
        Ok(())
    })?;
    counts.cached = cached_elsewhere.into_iter().fold(counts.cached, Option::or);
    counts.cache_write = counts.cache_write.or(written_elsewhere);
    counts.reasoning = counts.reasoning.or(reasoning_elsewhere);
    Ok(counts)
}

/// A field of a parsed report, if it is a count.
#[must_use]
pub fn count_of(report: &Value<'_>, name: &str) -> Option<u64> {
    match report.get(name)? {
        Value::Number(text) => count(&mut Cursor::new(text.as_bytes())).ok().flatten(),
        _ => None,
    }
}

/// A count: a number of 0 or more; anything else is none.
pub fn count(cursor: &mut Cursor<'_>) -> Result<Option<u64>> {
    Ok(cursor.number_or_skip()?.and_then(|number| u64::try_from(number.as_i64()).ok()))
}
