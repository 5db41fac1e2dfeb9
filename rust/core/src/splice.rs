//! An answer that was cut and begun again: what was handed out before has to be repeated before it may go on.

use crate::assemble::Pieces;
use crate::chunk::{Choice, Delta, Extra, Field, Function, Text, ToolCall};

/// What had been handed out, to be held against what comes now.
#[derive(Debug, Default)]
pub(crate) struct Splice {
    choices: Vec<Delivered>,
    /// Fields beside the choices, which are passed over as often as they came.
    pieces: Pieces,
    /// What comes now is another answer.
    diverged: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Delivered {
    pub(crate) index: u32,
    /// Of content, reasoning and refusal.
    pub(crate) texts: [Due; 3],
    pub(crate) calls: Vec<DueCall>,
    pub(crate) function_call: Option<DueCall>,
    /// Fields of deltas that cannot be compared: they are passed over as often as they came.
    pub(crate) pieces: Pieces,
    pub(crate) finished: bool,
}

#[derive(Debug, Default)]
pub(crate) struct DueCall {
    pub(crate) name: Due,
    pub(crate) arguments: Due,
    pub(crate) pieces: Pieces,
}

/// A text that has to come once more.
#[derive(Debug, Default)]
pub(crate) struct Due {
    text: String,
    at: usize,
    /// It may come once more, or not.
    lenient: bool,
}

impl From<&str> for Due {
    fn from(text: &str) -> Self {
        Self { text: text.to_owned(), at: 0, lenient: false }
    }
}

impl Due {
    fn rest(&self) -> &str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn is_due(&self) -> bool {
        !self.lenient && !self.rest().is_empty()
    }

    /// What a piece adds to what was handed out; None if it differs from it.
    fn news<'p>(&mut self, piece: &'p str) -> Option<&'p str> {
        let due = self.rest();
        if let Some(news) = piece.strip_prefix(due) {
            self.at = self.text.len();
            return Some(news);
        }
        if due.starts_with(piece) {
            self.at += piece.len();
            return Some("");
        }
        self.at = self.text.len();
        self.lenient.then_some(piece)
    }

    /// Leaves in the piece what it adds.
    fn strip(&mut self, piece: &mut Option<Text<'_>>) -> bool {
        let Some(text) = piece else {
            return true;
        };
        if self.rest().is_empty() && !text.is_empty() {
            return true;
        }
        let whole = text.decode().into_owned();
        let Some(news) = self.news(&whole) else {
            return false;
        };
        *piece = (!news.is_empty()).then(|| Text::Owned(news.to_owned()));
        true
    }
}

impl DueCall {
    fn is_due(&self) -> bool {
        self.name.is_due() || self.arguments.is_due()
    }

    /// Leaves in the piece of a function what it adds.
    fn strip(&mut self, function: &mut Function<'_>) -> bool {
        if let Some(name) = function.name.take()
            && self.name.news(&name.decode()) != Some("")
        {
            return false;
        }
        self.arguments.strip(&mut function.arguments)
    }
}

impl Splice {
    pub(crate) fn new(choices: Vec<Delivered>, pieces: Pieces) -> Self {
        Self { choices, pieces, diverged: false }
    }

    /// The content of choice 0 may begin with this text, which has been handed out already.
    pub(crate) fn overlap(text: &str) -> Self {
        let content = Due { lenient: true, ..Due::from(text) };
        let texts = [content, Due::default(), Due::default()];
        Self { choices: vec![Delivered { texts, ..Delivered::default() }], ..Self::default() }
    }

    pub(crate) fn diverged(&self) -> bool {
        self.diverged
    }

    /// The answer is over; true if it was another one, for it ended before it had repeated everything.
    pub(crate) fn end(&mut self) -> bool {
        self.diverged |= self.choices.iter().any(Delivered::is_due);
        self.diverged
    }

    /// Leaves in an event what it adds to what was handed out; false if that is nothing.
    pub(crate) fn strip(&mut self, choices: &mut Vec<Choice<'_>>, extra: &mut Vec<Extra<'_>>) -> bool {
        extra.retain(|extra| !self.pieces.take(&extra.key.decode()));
        choices.retain_mut(|choice| match self.choices.iter_mut().find(|known| known.index == choice.index) {
            Some(known) => {
                self.diverged |= !known.strip(choice);
                !is_empty(choice)
            }
            None => true,
        });
        !self.diverged && (!choices.is_empty() || !extra.is_empty())
    }
}

impl Delivered {
    fn is_due(&self) -> bool {
        self.texts.iter().any(Due::is_due)
            || self.calls.iter().any(DueCall::is_due)
            || self.function_call.as_ref().is_some_and(DueCall::is_due)
    }

    /// False if the event is of another answer.
    fn strip(&mut self, choice: &mut Choice<'_>) -> bool {
        let Choice { index: _, delta, finish_reason, logprobs, extra } = choice;
        let Delta { role, content, reasoning_content, refusal, tool_calls, function_call, audio, annotations, .. } =
            delta;
        *role = None;
        let [said, thought, refused] = &mut self.texts;
        let mut same = true;
        for (due, field) in [(said, content), (thought, reasoning_content), (refused, refusal)] {
            let mut piece = std::mem::take(field).value();
            same &= due.strip(&mut piece);
            *field = piece.map_or(Field::Absent, Field::Value);
        }
        tool_calls.retain_mut(|call| {
            let place = call.index.and_then(|index| usize::try_from(index).ok());
            match place.and_then(|place| self.calls.get_mut(place)) {
                Some(due) => {
                    // The id that was handed out stays.
                    (call.id, call.kind) = (None, None);
                    call.extra.retain(|extra| !due.pieces.take(&extra.key.decode()));
                    same &= due.strip(&mut call.function);
                    *call != ToolCall { index: call.index, ..ToolCall::default() }
                }
                None => true,
            }
        });
        if let Some(due) = &mut self.function_call
            && let Some(function) = function_call
        {
            same &= due.strip(function);
            if *function == Function::default() {
                *function_call = None;
            }
        }
        if annotations.is_some() && self.pieces.take("annotations") {
            *annotations = None;
        }
        delta.extra.retain(|extra| !self.pieces.take(&extra.key.decode()));
        if self.is_due() {
            // What stands beside the texts came with them; a text of another kind would have come in another answer.
            extra.clear();
            delta.extra.clear();
            (*annotations, *audio, *logprobs) = (None, None, Field::Absent);
            return same && is_empty(choice);
        }
        if self.finished {
            *finish_reason = None;
            extra.clear();
            return same && is_empty(choice);
        }
        same
    }
}

fn is_empty(choice: &Choice<'_>) -> bool {
    *choice == Choice { index: choice.index, logprobs: choice.logprobs, ..Choice::default() }
        && !matches!(choice.logprobs, Field::Value(_))
}
