//! Any cut of the bytes gives the events of the uncut bytes, and so does a size limit that nothing reaches.
#![no_main]

use libfuzzer_sys::fuzz_target;
use penstock_core::framing::Sse;

#[derive(Debug, PartialEq)]
struct Event {
    name: Vec<u8>,
    data: Vec<u8>,
    id: Vec<u8>,
    retry: Option<u64>,
}

fn events(pieces: &[&[u8]], limit: usize) -> (Vec<Event>, bool) {
    let mut framing = Sse::new(limit);
    let mut found = Vec::new();
    for piece in pieces {
        let mut input = *piece;
        loop {
            match framing.next(&mut input) {
                Ok(Some(event)) => found.push(Event {
                    name: event.frame.name.to_vec(),
                    data: event.frame.data.to_vec(),
                    id: event.id.to_vec(),
                    retry: event.retry,
                }),
                Ok(None) => break,
                Err(_) => return (found, true),
            }
        }
    }
    if let Some(event) = framing.finish() {
        found.push(Event {
            name: event.frame.name.to_vec(),
            data: event.frame.data.to_vec(),
            id: event.id.to_vec(),
            retry: event.retry,
        });
    }
    (found, false)
}

/// How many bytes of the input say where to cut the rest: so a recorded stream, with that many in front, is a seed.
const CUTS: usize = 16;

fuzz_target!(|input: &[u8]| {
    let (cuts, body) = input.split_at(input.len().min(CUTS));
    let (whole, failed) = events(&[body], usize::MAX);
    assert!(!failed);
    let mut pieces = Vec::new();
    let mut rest = body;
    for cut in cuts {
        let (piece, after) = rest.split_at(usize::from(*cut).min(rest.len()));
        pieces.push(piece);
        rest = after;
    }
    pieces.push(rest);
    assert_eq!(whole, events(&pieces, usize::MAX).0);
    let single: Vec<&[u8]> = body.chunks(1).collect();
    assert_eq!(whole, events(&single, body.len().max(1)).0);
});
