//! The rules that every stream obeys, whatever wire it came on: one identity, one role, one finish reason, tool calls
//! counted from 0, whole characters, one usage at the end.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use crate::assemble::Assembly;
use crate::chunk::{Choice, Chunk, Delta, Extra, Extras, Field, FinishReason, Function, Head, Text, ToolCall};
use crate::json::{Str, write_str};
use crate::splice::Splice;
use crate::usage::{Account, Usage};

/// Takes the chunks of a decoder, in order, each while the frame it came in is still there.
pub trait Sink {
    fn chunk(&mut self, chunk: &Chunk<'_>);

    /// The last chunk once more, all but the text of its one choice: what nearly every event of a stream is.
    fn again(&mut self, part: Part, text: &Text<'_>);
}

/// Which text of a delta.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Part {
    #[default]
    Content,
    Reasoning,
    /// The arguments of the one tool call in the delta.
    Arguments,
}

/// One event as a wire reads it: OpenAI-shaped, with the provider's own values.
#[derive(Debug, Default)]
pub struct Incoming<'a> {
    pub id: Option<Str<'a>>,
    pub created: Option<i64>,
    pub model: Option<Str<'a>>,
    pub service_tier: Field<Str<'a>>,
    pub system_fingerprint: Field<Str<'a>>,
    pub choices: Vec<Choice<'a>>,
    pub extra: Extras<'a>,
}

impl<'a> From<Choice<'a>> for Incoming<'a> {
    fn from(choice: Choice<'a>) -> Self {
        Self { choices: vec![choice], ..Self::default() }
    }
}

impl<'a> From<Delta<'a>> for Incoming<'a> {
    fn from(delta: Delta<'a>) -> Self {
        Choice { delta, ..Choice::default() }.into()
    }
}

/// The last event, as far as it matters to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Last {
    /// It was not handed out, or said what is said once.
    Once,
    /// The same with another text may come as [`Stream::again`].
    Event,
    /// The same, and it was one piece of text and nothing else.
    Piece(Place),
}

/// Where the text belongs in an event that brings one piece of text and nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    choice: u32,
    part: Part,
    /// Of arguments: the index that the provider gives the call.
    call: Option<u32>,
}

impl Place {
    fn of(event: &Incoming<'_>) -> Option<Self> {
        let [choice] = event.choices.as_slice() else {
            return None;
        };
        let delta = &choice.delta;
        let nothing_else = event.extra.is_empty()
            && matches!(event.service_tier, Field::Absent)
            && matches!(event.system_fingerprint, Field::Absent)
            && choice.finish_reason.is_none()
            && matches!(choice.logprobs, Field::Absent)
            && choice.extra.is_empty()
            && delta.role.is_none()
            && matches!(delta.refusal, Field::Absent)
            && delta.function_call.is_none()
            && delta.audio.is_none()
            && delta.annotations.is_none()
            && delta.extra.is_empty();
        if !nothing_else {
            return None;
        }
        let (part, call) = match (&delta.content, &delta.reasoning_content, delta.tool_calls.as_slice()) {
            (Field::Value(_), Field::Absent, []) => (Part::Content, None),
            (Field::Absent, Field::Value(_), []) => (Part::Reasoning, None),
            (Field::Absent, Field::Absent, [call])
                if call.id.is_none()
                    && call.kind.is_none()
                    && call.function.name.is_none()
                    && call.function.arguments.is_some()
                    && call.extra.is_empty() =>
            {
                (Part::Arguments, call.index)
            }
            _ => return None,
        };
        Some(Self { choice: choice.index, part, call })
    }

    fn text(self, delta: Delta<'_>) -> Option<Text<'_>> {
        match self.part {
            Part::Content => delta.content.value(),
            Part::Reasoning => delta.reasoning_content.value(),
            Part::Arguments => delta.tool_calls.into_iter().next()?.function.arguments,
        }
    }
}

/// Extra fields that say how the provider's values differ from those of the first event.
pub(crate) const OURS: [&[u8]; 2] = [b"provider_id", b"provider_model"];

#[derive(Debug)]
pub struct Stream {
    /// The first chunk's identity, for all of them; until then what stands in for values that nobody has told.
    head: Head,
    /// Whether the provider has told its id and model and when it began; None once a chunk has gone out.
    told: Option<[bool; 3]>,
    begun: bool,
    include_usage: bool,
    choices: Vec<ChoiceState>,
    /// Extra fields by name and last value, hashed: an event that only repeats them is no news.
    known: BTreeMap<u64, u64>,
    account: Account,
    assembly: Option<Assembly>,
    answer: Option<Answer>,
    /// What is held against an answer that was begun again.
    splice: Option<Splice>,
    last: Last,
    /// The id and model in the event that `last` is of, as they stood there.
    sender: [Vec<u8>; 2],
    done: bool,
}

/// A tool that the model calls with its answer, for want of another way to give it a form: the arguments are content.
#[derive(Debug)]
struct Answer {
    tool: String,
    /// The calls of it: their choice, and the index that the provider gives them.
    calls: Vec<(u32, Option<u32>)>,
    /// Whether the last arguments that came were of one of them.
    last: bool,
}

impl Answer {
    fn has(&self, choice: u32, call: Option<u32>) -> bool {
        self.calls.contains(&(choice, call))
    }

    /// Makes content of the arguments in an event.
    fn unwrap(&mut self, event: &mut Incoming<'_>) {
        for choice in &mut event.choices {
            let index = choice.index;
            let content = &mut choice.delta.content;
            choice.delta.tool_calls.retain_mut(|call| {
                match call.function.name {
                    Some(name) if *name.decode() == *self.tool => self.calls.push((index, call.index)),
                    Some(name) if !name.is_empty() => self.calls.retain(|known| *known != (index, call.index)),
                    _ => {}
                }
                self.last = self.has(index, call.index);
                if self.last
                    && let Some(text) = call.function.arguments.take()
                {
                    *content = Field::Value(match std::mem::take(content) {
                        Field::Value(said) if !said.is_empty() => Text::Owned([said.decode(), text.decode()].concat()),
                        _ => text,
                    });
                }
                !self.last
            });
            // Calls of other tools make it what it was.
            if choice.finish_reason == Some(FinishReason::ToolCalls) && self.calls.iter().any(|(of, _)| *of == index) {
                choice.finish_reason = Some(FinishReason::Stop);
            }
        }
    }
}

#[derive(Debug, Default)]
struct ChoiceState {
    index: u32,
    begun: bool,
    /// Something of the answer has come, not its role alone.
    spoken: bool,
    finished: bool,
    /// A high surrogate that the last piece of content, reasoning or refusal ended with.
    halves: [Option<u16>; 3],
    calls: Vec<CallState>,
    /// The place of the call that the last piece belonged to.
    last_call: usize,
}

#[derive(Debug, Default)]
struct CallState {
    /// The index that the provider gives it.
    index: Option<u32>,
    id: String,
    /// The id is not the provider's.
    made: bool,
    named: bool,
    half: Option<u16>,
}

impl Stream {
    /// `fallback` is the identity for what the provider does not tell.
    #[must_use]
    pub fn new(fallback: Head, include_usage: bool, keep: bool, account: Account) -> Self {
        Self {
            head: fallback,
            told: Some([false; 3]),
            begun: false,
            include_usage,
            choices: Vec::new(),
            known: BTreeMap::new(),
            account,
            assembly: keep.then(Assembly::default),
            answer: None,
            splice: None,
            last: Last::Once,
            sender: Default::default(),
            done: false,
        }
    }

    /// The arguments of calls of this tool are the answer, and handed out as content.
    pub fn answers_by(&mut self, tool: String) {
        self.answer = Some(Answer { tool, calls: Vec::new(), last: false });
    }

    pub fn account(&mut self) -> &mut Account {
        &mut self.account
    }

    #[must_use]
    pub fn usage(&mut self) -> Option<&Usage> {
        self.account.usage()
    }

    /// Whether an event has come.
    #[must_use]
    pub fn begun(&self) -> bool {
        self.begun
    }

    /// Whether the body said that it is over.
    #[must_use]
    pub fn done(&self) -> bool {
        self.done
    }

    /// Whether every choice seen has its finish reason.
    #[must_use]
    pub fn finished(&self) -> bool {
        !self.choices.is_empty() && self.choices.iter().all(|choice| choice.finished)
    }

    /// Whether a choice has said anything yet.
    #[must_use]
    pub fn has_spoken(&self, index: u32) -> bool {
        self.choices.iter().any(|choice| choice.index == index && choice.spoken)
    }

    /// Whether any choice has said anything yet.
    #[must_use]
    pub fn has_spoken_at_all(&self) -> bool {
        self.choices.iter().any(|choice| choice.spoken)
    }

    /// Whether the last event was handed out and the same one with another text may come as [`Stream::again`].
    #[must_use]
    pub fn repeatable(&self) -> bool {
        self.last != Last::Once
    }

    /// Brings an event into shape and hands it out, unless it says nothing new.
    pub fn push(&mut self, mut event: Incoming<'_>, sink: &mut impl Sink) {
        if let Some(answer) = &mut self.answer {
            answer.unwrap(&mut event);
        }
        let place = Place::of(&event);
        let sender = [event.id, event.model].map(|name| name.map_or(&b""[..], Str::raw));
        if let Some(place) = place {
            if self.repeats(place, sender)
                && let Some(text) = event.choices.pop().and_then(|choice| place.text(choice.delta))
            {
                self.again(place.choice, place.part, text, sink);
                return;
            }
            for (known, given) in self.sender.iter_mut().zip(sender) {
                known.clear();
                known.extend_from_slice(given);
            }
        }
        self.last = match (self.push_whole(event, sink), place) {
            (false, _) => Last::Once,
            (true, None) => Last::Event,
            (true, Some(place)) => Last::Piece(place),
        };
    }

    /// True if the event was handed out and has nothing in it that is said once.
    fn push_whole(&mut self, event: Incoming<'_>, sink: &mut impl Sink) -> bool {
        let Incoming { id, created, model, service_tier, system_fingerprint, mut choices, mut extra } = event;
        let mut news = false;
        self.identify(id, created, model, &mut extra);
        for Extra { key, json } in &extra {
            news |= self.is_news(0, *key, json);
        }
        for choice in &mut choices {
            news |= self.settle(choice);
        }
        if !news {
            return false;
        }
        let usage = if self.include_usage { Field::Null } else { Field::Absent };
        let plain = choices.iter().all(|choice| {
            choice.delta.role.is_none()
                && choice.finish_reason.is_none()
                && choice.delta.tool_calls.iter().all(|call| {
                    // The first piece of a call is said once.
                    call.id.is_none() && call.kind.is_none() && call.function.name.is_none()
                })
        });
        if let Some(splice) = &mut self.splice {
            if splice.strip(&mut choices, &mut extra) {
                self.emit(service_tier, system_fingerprint, choices, usage, extra, sink);
            }
            return false;
        }
        self.emit(service_tier, system_fingerprint, choices, usage, extra, sink);
        plain
    }

    /// One more piece of a text, and nothing else: what nearly every event of a stream brings. Of arguments, `call` is
    /// the index that the provider gives the call they belong to.
    pub fn piece(&mut self, part: Part, call: u32, text: Text<'_>, sink: &mut impl Sink) {
        let mut place = Place { choice: 0, part, call: (part == Part::Arguments).then_some(call) };
        if let Some(answer) = &mut self.answer
            && part == Part::Arguments
        {
            answer.last = answer.has(0, Some(call));
            if answer.last {
                place = Place { choice: 0, part: Part::Content, call: None };
            }
        }
        if self.repeats(place, [b"", b""]) {
            self.again(0, place.part, text, sink);
            return;
        }
        let mut delta = Delta::default();
        match part {
            Part::Content => delta.content = Field::Value(text),
            Part::Reasoning => delta.reasoning_content = Field::Value(text),
            Part::Arguments => {
                let function = Function { name: None, arguments: Some(text) };
                delta.tool_calls.push(ToolCall { index: Some(call), function, ..ToolCall::default() });
            }
        }
        self.push(delta.into(), sink);
    }

    fn repeats(&self, place: Place, sender: [&[u8]; 2]) -> bool {
        self.last == Last::Piece(place) && self.sender.iter().zip(sender).all(|(known, given)| known == given)
    }

    /// The last event once more, all but the text of its one choice.
    pub fn again(&mut self, index: u32, part: Part, text: Text<'_>, sink: &mut impl Sink) {
        let part = match (part, &self.answer) {
            (Part::Arguments, Some(answer)) if answer.last => Part::Content,
            (part, _) => part,
        };
        let Some(state) = self.choices.iter_mut().find(|state| state.index == index) else {
            return;
        };
        let [content, reasoning, _] = &mut state.halves;
        let call = state.last_call;
        let half = match part {
            Part::Content => content,
            Part::Reasoning => reasoning,
            Part::Arguments => match state.calls.get_mut(call) {
                Some(call) => &mut call.half,
                None => return,
            },
        };
        // An escaped text that is kept is best unescaped once, for both; else it may be wanted as it is.
        let decoded = self.assembly.is_some();
        let whole = half.is_none()
            && matches!(&text, Text::Json(piece) if !piece.is_empty()
                && (piece.unescaped().is_some() || !(decoded || piece.has_surrogates())));
        let mut text = Field::Value(text);
        if (whole || settle_text(&mut text, half, false))
            && let Field::Value(text) = text
        {
            if let Some(assembly) = &mut self.assembly {
                assembly.add_text(index, part, call, &text);
            }
            sink.again(part, &text);
        }
    }

    /// The end of the stream, as it should be: the usage chunk, if it was asked for.
    pub fn end(&mut self, sink: &mut impl Sink) {
        if self.done {
            return;
        }
        if self.splice.as_mut().is_some_and(Splice::end) {
            return;
        }
        self.done = true;
        let lost: Vec<_> = self.choices.iter_mut().filter_map(ChoiceState::lost).collect();
        if !lost.is_empty() {
            let usage = if self.include_usage { Field::Null } else { Field::Absent };
            self.emit(Field::Absent, Field::Absent, lost, usage, Vec::new(), sink);
        }
        self.account.close();
        if self.include_usage {
            let usage = self.account.usage().cloned();
            self.emit(Field::Absent, Field::Absent, Vec::new(), usage.as_ref().into(), Vec::new(), sink);
        }
    }

    /// The answer is begun again: what is handed out from here on is what it adds to what was handed out before. The
    /// error says what stands against it.
    pub fn restart(&mut self, account: Account) -> Result<(), &'static str> {
        let assembly = self.assembly.as_ref().ok_or("nothing was kept")?;
        self.splice = Some(assembly.delivered()?);
        self.choices.clear();
        self.known.clear();
        self.go_on(account);
        Ok(())
    }

    /// The answer goes on in another body. The content of choice 0 may begin there with `overlap`, which has been
    /// handed out already.
    pub fn resume(&mut self, account: Account, overlap: &str) {
        self.splice = (!overlap.is_empty()).then(|| Splice::overlap(overlap));
        self.go_on(account);
    }

    fn go_on(&mut self, account: Account) {
        self.account = account;
        if let Some(answer) = &mut self.answer {
            answer.calls.clear();
            answer.last = false;
        }
        self.last = Last::Once;
        self.done = false;
    }

    /// Whether an answer that was begun again has turned out to be another one.
    #[must_use]
    pub fn diverged(&self) -> bool {
        self.splice.as_ref().is_some_and(Splice::diverged)
    }

    /// Keeps nothing for a response from here on, and drops what was kept.
    pub fn keep_nothing(&mut self) {
        self.assembly = None;
    }

    /// Gives the model another name, from here on: when what came so far has told its own.
    pub(crate) fn rename(&mut self, model: &str) {
        model.clone_into(&mut self.head.model);
    }

    /// Appends what has come so far as one response; false where none is kept or nothing came.
    pub fn write_response(&mut self, out: &mut Vec<u8>) -> bool {
        match &self.assembly {
            Some(assembly) if self.begun => {
                assembly.write(&self.head, self.account.usage(), out);
                true
            }
            _ => false,
        }
    }

    fn emit<'a>(
        &mut self,
        service_tier: Field<Str<'a>>,
        system_fingerprint: Field<Str<'a>>,
        choices: Vec<Choice<'a>>,
        usage: Field<&'a Usage>,
        extra: Extras<'a>,
        sink: &mut impl Sink,
    ) {
        self.told = None;
        let chunk = Chunk { head: &self.head, service_tier, system_fingerprint, choices, usage, extra };
        if let Some(assembly) = &mut self.assembly {
            assembly.add(&chunk);
        }
        sink.chunk(&chunk);
    }

    /// What comes up to the first chunk says who answers; what is said otherwise becomes `provider_id` and
    /// `provider_model`.
    fn identify<'a>(
        &mut self,
        id: Option<Str<'a>>,
        created: Option<i64>,
        model: Option<Str<'a>>,
        extra: &mut Extras<'a>,
    ) {
        self.begun = true;
        let is_first = |told: Option<&mut bool>| told.is_some_and(|told| !std::mem::replace(told, true));
        let [told_id, told_model, told_created] = match &mut self.told {
            Some(told) => told.each_mut().map(Some),
            None => [None, None, None],
        };
        if let Some(created) = created.filter(|created| *created > 0)
            && is_first(told_created)
        {
            self.head.created = created;
        }
        for (name, given, ours, told) in [
            ("provider_id", id, &mut self.head.id, told_id),
            ("provider_model", model, &mut self.head.model, told_model),
        ] {
            let Some(given) = given.filter(|given| !given.is_empty()) else {
                continue;
            };
            if is_first(told) {
                *ours = given.decode().into_owned();
            } else if given.raw() != ours.as_bytes() && *given.decode() != **ours {
                let mut json = Vec::new();
                write_str(&mut json, &given.decode());
                // Not news by itself: it is passed over by `is_news`.
                extra.push(Extra { key: Str::plain(name), json: json.into() });
            }
        }
    }

    /// Whether this value of an extra field differs from the last one seen in its place.
    fn is_news(&mut self, place: u64, key: Str<'_>, json: &[u8]) -> bool {
        if matches!(json, b"null" | b"{}" | b"[]" | b"\"\"") || OURS.contains(&key.raw()) {
            return false;
        }
        let mut hasher = DefaultHasher::new();
        (place, key.raw()).hash(&mut hasher);
        let name = hasher.finish();
        json.hash(&mut hasher);
        let value = hasher.finish();
        self.known.insert(name, value) != Some(value)
    }

    /// Applies the rules to one choice; false if it says nothing new.
    fn settle(&mut self, choice: &mut Choice<'_>) -> bool {
        let mut news = false;
        let place = 2 * u64::from(choice.index);
        for Extra { key, json } in choice.extra.iter().filter(|extra| !extra.is_copy()) {
            news |= self.is_news(place + 1, *key, json);
        }
        for Extra { key, json } in &choice.delta.extra {
            news |= self.is_news(place + 2, *key, json);
        }
        if !self.choices.iter().any(|state| state.index == choice.index) {
            self.choices.push(ChoiceState { index: choice.index, ..ChoiceState::default() });
        }
        let Some(state) = self.choices.iter_mut().find(|state| state.index == choice.index) else {
            return news;
        };
        let delta = &mut choice.delta;
        if state.begun {
            delta.role = None;
        } else {
            state.begun = true;
            news = true;
            delta.role = delta.role.filter(|role| !role.is_empty()).or(Some(Str::plain("assistant")));
        }
        let mut said = delta.function_call.is_some() | delta.audio.is_some() | delta.annotations.is_some();
        for call in &mut delta.tool_calls {
            said |= state.settle_call(call, &self.head.id);
        }
        if state.finished {
            choice.finish_reason = None;
        } else if let Some(reason) = &mut choice.finish_reason {
            state.finished = true;
            news = true;
            if *reason == FinishReason::Stop && !state.calls.is_empty() {
                *reason = FinishReason::ToolCalls;
            }
        }
        let last = choice.finish_reason.is_some();
        if last {
            delta.tool_calls.extend(state.lost_arguments());
        }
        let [content, reasoning, refusal] = &mut state.halves;
        said |= settle_text(&mut delta.content, content, last);
        said |= settle_text(&mut delta.reasoning_content, reasoning, last);
        said |= settle_text(&mut delta.refusal, refusal, last);
        state.spoken |= said;
        news | said | matches!(choice.logprobs, Field::Value(_))
    }
}

impl ChoiceState {
    /// The halves of characters that calls ended with.
    fn lost_arguments<'a>(&mut self) -> impl Iterator<Item = ToolCall<'a>> {
        self.calls.iter_mut().zip(0..).filter_map(|(call, place)| {
            let function = Function { arguments: Some(lost(&mut call.half)?), ..Function::default() };
            Some(ToolCall { index: Some(place), function, ..ToolCall::default() })
        })
    }

    /// The halves of characters that texts ended with, where no finish reason told of their end.
    fn lost(&mut self) -> Option<Choice<'static>> {
        let tool_calls = self.lost_arguments().collect();
        let [content, reasoning_content, refusal] =
            self.halves.each_mut().map(|half| lost(half).map_or(Field::Absent, Field::Value));
        let delta = Delta { content, reasoning_content, refusal, tool_calls, ..Delta::default() };
        (delta != Delta::default()).then(|| Choice { index: self.index, delta, ..Choice::default() })
    }

    /// Finds the call that a piece belongs to, and leaves in the piece what is new of it.
    fn settle_call(&mut self, call: &mut ToolCall<'_>, stream_id: &str) -> bool {
        let id = call.id.take().filter(|id| !id.is_empty());
        let given = id.as_ref().map(Text::decode);
        let same_id =
            |state: &CallState| given.as_ref().is_none_or(|id| state.id.is_empty() || state.made || state.id == **id);
        let found = match (call.index, &given) {
            (Some(index), _) => self.calls.iter().rposition(|state| state.index == Some(index) && same_id(state)),
            (None, Some(id)) => self.calls.iter().rposition(|state| state.id == **id),
            (None, None) => self.calls.len().checked_sub(1),
        };
        let place = found.unwrap_or_else(|| {
            self.calls.push(CallState { index: call.index, ..CallState::default() });
            self.calls.len() - 1
        });
        self.last_call = place;
        let Some(state) = self.calls.get_mut(place) else {
            return false;
        };
        let name = call.function.name.take().filter(|name| !name.is_empty() && !state.named);
        let nameless = state.id.is_empty();
        if let Some(id) = given {
            if nameless || state.made {
                state.id = id.into_owned();
                state.made = false;
            }
        } else if nameless && name.is_some() {
            // A call needs an id to be answered by; the provider gave none.
            let tail = stream_id.rsplit('-').next().unwrap_or(stream_id);
            state.id = format!("call_{}_{tail}_{place}", self.index);
            state.made = true;
        }
        call.id = (nameless && !state.id.is_empty()).then(|| Text::Owned(state.id.clone()));
        call.index = u32::try_from(place).ok();
        call.kind = match found {
            None => call.kind.filter(|kind| !kind.is_empty()).or(Some(Str::plain("function"))),
            Some(_) => None,
        };
        state.named |= name.is_some();
        call.function.name = name;
        let mut arguments = Field::from(call.function.arguments.take());
        let grown = settle_text(&mut arguments, &mut state.half, false);
        call.function.arguments = match arguments.value() {
            None if call.kind.is_some_and(|kind| kind.raw() == b"function") => Some(Text::Owned(String::new())),
            arguments => arguments,
        };
        grown || found.is_none() || call.id.is_some() || call.function.name.is_some() || !call.extra.is_empty()
    }
}

/// What stands for a half whose other half never came.
fn lost<'a>(half: &mut Option<u16>) -> Option<Text<'a>> {
    half.take().map(|_| Text::Owned(char::REPLACEMENT_CHARACTER.into()))
}

/// Joins a surrogate pair that was cut between two pieces of a text; false if the piece is empty.
fn settle_text(text: &mut Field<Text<'_>>, half: &mut Option<u16>, last: bool) -> bool {
    match text {
        Field::Value(Text::Json(piece)) if half.is_some() || piece.unescaped().is_none() => {
            let mut whole = String::with_capacity(piece.raw().len());
            // An empty piece says nothing about the half before it.
            if !piece.is_empty() {
                *half = piece.unescape(half.take(), &mut whole);
            }
            *text = Field::Value(Text::Owned(whole));
        }
        Field::Value(Text::Owned(piece)) if !piece.is_empty() && half.take().is_some() => {
            piece.insert(0, char::REPLACEMENT_CHARACTER);
        }
        Field::Value(_) => {}
        _ if last && half.is_some() => *text = Field::Value(Text::Owned(String::new())),
        _ => return false,
    }
    let Field::Value(piece) = text else {
        return false;
    };
    if last && half.take().is_some() {
        let mut whole = piece.decode().into_owned();
        whole.push(char::REPLACEMENT_CHARACTER);
        *piece = Text::Owned(whole);
    }
    !piece.is_empty()
}
