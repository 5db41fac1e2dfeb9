//! Any cut of the bytes gives the chunks, the usage, the response and the error of the uncut bytes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use penstock_core::chunk::{Chunk, Field, Head, Text};
use penstock_core::decoder::{Decoder, Dialect, Family, Options};
use penstock_core::stream::{Part, Sink};

/// A chunk without its texts, and the texts: `again` is the last one with another text, whichever way it was cut.
#[derive(Clone, Debug, Default, PartialEq)]
struct Item {
    rest: String,
    content: Vec<String>,
    reasoning: Vec<String>,
    arguments: Vec<String>,
}

#[derive(Default)]
struct Seen(Vec<Item>);

fn take(text: &mut Field<Text<'_>>) -> Option<String> {
    let found = match text {
        Field::Value(text) => Some(text.decode().into_owned()),
        _ => None,
    };
    if found.is_some() {
        *text = Field::Null;
    }
    found
}

impl Sink for Seen {
    fn chunk(&mut self, chunk: &Chunk<'_>) {
        let mut item = Item::default();
        let mut chunk = chunk.clone();
        for choice in chunk.choices.iter_mut() {
            item.content.extend(take(&mut choice.delta.content));
            item.reasoning.extend(take(&mut choice.delta.reasoning_content));
            for call in choice.delta.tool_calls.iter_mut() {
                item.arguments.extend(call.function.arguments.take().map(|text| text.decode().into_owned()));
            }
        }
        item.rest = format!("{chunk:?}");
        self.0.push(item);
    }

    fn again(&mut self, part: Part, text: &Text<'_>) {
        let mut item = self.0.last().cloned().expect("a chunk came before");
        let texts = match part {
            Part::Content => &mut item.content,
            Part::Reasoning => &mut item.reasoning,
            Part::Arguments => &mut item.arguments,
        };
        *texts = vec![text.decode().into_owned()];
        self.0.push(item);
    }
}

fn decode(pieces: &[&[u8]]) -> (Vec<Item>, String, Vec<u8>, Option<String>) {
    let mut decoder = Decoder::new(
        Family::Chat,
        Options {
            dialect: Dialect::default(),
            include_usage: true,
            max_event_size: 1 << 20,
            keep: true,
            fallback: Head { id: "chatcmpl-fuzz".into(), created: 1, model: "fuzz".into() },
            answer_tool: None,
        },
    );
    let mut seen = Seen::default();
    let mut error = None;
    for piece in pieces {
        // An error comes with the call after the last chunk: which call that is depends on the cuts, the error does not.
        if let Err(found) = decoder.feed(piece, &mut seen) {
            error = Some(format!("{found:?}"));
            break;
        }
    }
    if error.is_none() {
        error = decoder.finish(&mut seen).err().map(|found| format!("{found:?}"));
    }
    let mut response = Vec::new();
    decoder.write_response(&mut response);
    (seen.0, format!("{:?}", decoder.usage()), response, error)
}

/// How many bytes of the input say where to cut the rest: so a recorded stream, with that many in front, is a seed.
const CUTS: usize = 16;

fuzz_target!(|input: &[u8]| {
    let (cuts, body) = input.split_at(input.len().min(CUTS));
    // Compression is recognised by the first bytes of a body where they come together: a kindness, not a promise.
    if matches!(body.first(), Some(0x1F | 0x28 | 0x78)) {
        return;
    }
    let whole = decode(&[body]);
    let mut pieces = Vec::new();
    let mut rest = body;
    for cut in cuts {
        let (piece, after) = rest.split_at(usize::from(*cut).min(rest.len()));
        pieces.push(piece);
        rest = after;
    }
    pieces.push(rest);
    assert_eq!(whole, decode(&pieces));
    let single: Vec<&[u8]> = body.chunks(1).collect();
    assert_eq!(whole, decode(&single));
});
