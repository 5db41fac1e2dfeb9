//! Events that only bring another text, handed out the short way.

use crate::chunk::{Delta, Field, Text};
use crate::json::Str;
use crate::stream::{Incoming, Part, Sink, Stream};

/// Remembers whether the last chunk was one piece of text and nothing else.
#[derive(Debug, Default)]
pub(crate) struct Repeats {
    last: Option<Place>,
    /// Who sent it, as it stood in the event.
    id: Vec<u8>,
    model: Vec<u8>,
}

/// Where a piece of text belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    choice: u32,
    part: Part,
    /// Of arguments: the call.
    call: Option<u32>,
}

impl Repeats {
    /// Hands an event out: as the last chunk with another text where it is no more than that.
    pub(crate) fn push(&mut self, mut event: Incoming<'_>, stream: &mut Stream, sink: &mut impl Sink) {
        let place = only_text(&event);
        let [id, model] = [event.id, event.model].map(|name| name.map_or(&b""[..], Str::raw));
        if let Some(Place { choice, part, .. }) = place
            && self.last == place
            && (self.id.as_slice(), self.model.as_slice()) == (id, model)
        {
            if let Some(text) = event.choices.pop().and_then(|choice| text(choice.delta, part)) {
                stream.again(choice, part, text, sink);
            }
            return;
        }
        if place.is_some() {
            self.id.clear();
            self.id.extend_from_slice(id);
            self.model.clear();
            self.model.extend_from_slice(model);
        }
        let repeatable = stream.push(event, sink);
        self.last = place.filter(|_| repeatable);
    }
}

fn text(delta: Delta<'_>, part: Part) -> Option<Text<'_>> {
    match part {
        Part::Content => delta.content.value(),
        Part::Reasoning => delta.reasoning_content.value(),
        Part::Arguments => delta.tool_calls.into_iter().next()?.function.arguments,
    }
}

/// The place, where one piece of text is all that an event brings.
fn only_text(event: &Incoming<'_>) -> Option<Place> {
    let [choice] = event.choices.as_slice() else {
        return None;
    };
    let delta = &choice.delta;
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
    let nothing_else = event.extra.is_empty()
        && event.service_tier == Field::Absent
        && event.system_fingerprint == Field::Absent
        && choice.finish_reason.is_none()
        && choice.logprobs == Field::Absent
        && choice.extra.is_empty()
        && delta.role.is_none()
        && delta.refusal == Field::Absent
        && delta.function_call.is_none()
        && delta.audio.is_none()
        && delta.annotations.is_none()
        && delta.extra.is_empty();
    nothing_else.then_some(Place { choice: choice.index, part, call })
}
