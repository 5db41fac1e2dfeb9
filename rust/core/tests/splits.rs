//! Equality as the oracle: any cut of the bytes gives the same, and so does reading every event anew.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test stops where it fails")]

mod common;

use common::streams::{fixtures, generated};
use common::{DONE, Options, Seen, decode_pieces, options, recordings, with_usage};
use penstock_core::decoder::{Dialect, End};
use proptest::prelude::*;

/// The ways of asking: they differ in what is emitted and in what ends a stream.
fn ways() -> [Options; 3] {
    [
        options(),
        with_usage(),
        Options { dialect: Dialect { end: End::Eof, ..Dialect::default() }, max_event_size: 300, ..with_usage() },
    ]
}

/// The same stream with an event without data after each of its events: nothing of it can be known from the one before.
fn apart(body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = body;
    while !rest.is_empty() {
        let ends = [&b"\n\n"[..], b"\r\n\r\n", b"\r\r"];
        let found = ends
            .iter()
            .filter_map(|end| Some((rest.windows(end.len()).position(|window| window == *end)?, *end)))
            .min();
        let Some((place, end)) = found else {
            break;
        };
        let (event, after) = rest.split_at(place + end.len());
        out.extend_from_slice(event);
        out.extend_from_slice(b"data:");
        out.extend_from_slice(end);
        rest = after;
    }
    out.extend_from_slice(rest);
    out
}

fn decode(options: &Options, pieces: &[&[u8]]) -> Seen {
    decode_pieces(options.clone(), pieces.iter().copied())
}

#[test]
fn every_cut_of_every_fixture_gives_the_same() {
    for (name, body) in fixtures() {
        for options in ways() {
            let whole = decode(&options, &[&body]);
            for cut in 0..=body.len() {
                assert_eq!(decode(&options, &[&body[..cut], &body[cut..]]), whole, "{name}: cut at {cut}");
            }
            assert_eq!(decode(&options, &body.chunks(1).collect::<Vec<_>>()), whole, "{name}: byte by byte");
            assert_eq!(decode(&options, &body.chunks(7).collect::<Vec<_>>()), whole, "{name}: seven by seven");
        }
    }
}

#[test]
fn every_fixture_read_anew_gives_the_same() {
    for (name, body) in fixtures() {
        // Without its mark of compression the event between would be read as text.
        if name == "gzip" {
            continue;
        }
        for options in ways() {
            assert_eq!(decode(&options, &[&apart(&body)]), decode(&options, &[&body]), "{name}");
        }
    }
}

#[test]
fn every_recording_read_anew_gives_the_same() {
    for recording in recordings().iter().filter(|recording| recording.is_stream()) {
        let wire = recording.wire();
        let options = Options { dialect: recording.dialect(), ..with_usage() };
        assert_eq!(decode(&options, &[&apart(&wire)]), decode(&options, &[&wire]), "{}", recording.file);
    }
}

#[test]
fn every_recording_at_every_cut_or_at_many_gives_the_same() {
    // A small generator of our own: which cuts are made must not depend on anything.
    let mut state = 0x9E37_79B9_7F4A_7C15u64;
    let mut random = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % u64::try_from(below).unwrap()).unwrap()
    };
    for recording in recordings().iter().filter(|recording| recording.is_stream()) {
        let wire = recording.wire();
        let options = Options { dialect: recording.dialect(), ..with_usage() };
        let whole = decode(&options, &[&wire]);
        if wire.len() <= 4096 {
            for cut in 0..=wire.len() {
                assert_eq!(decode(&options, &[&wire[..cut], &wire[cut..]]), whole, "{}: cut at {cut}", recording.file);
            }
        }
        for round in 0..6 {
            let mut cuts: Vec<usize> = (0..1 << (2 * round)).map(|_| random(wire.len() + 1)).collect();
            cuts.push(wire.len());
            cuts.sort_unstable();
            let mut from = 0;
            let pieces: Vec<&[u8]> = cuts.iter().map(|to| &wire[std::mem::replace(&mut from, *to)..*to]).collect();
            assert_eq!(decode(&options, &pieces), whole, "{}: cut at {cuts:?}", recording.file);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(1500) })]

    #[test]
    fn generated_streams_read_anew_give_the_same(body in generated()) {
        prop_assert_eq!(decode(&with_usage(), &[&apart(&body)]), decode(&with_usage(), &[&body]));
    }

    #[test]
    fn generated_streams_cut_anywhere_give_the_same(body in generated(), cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6)) {
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(body.len() + 1)).collect();
        cuts.push(body.len());
        cuts.sort_unstable();
        let mut from = 0;
        let pieces: Vec<&[u8]> = cuts.iter().map(|to| &body[std::mem::replace(&mut from, *to)..*to]).collect();
        prop_assert_eq!(decode(&options(), &pieces), decode(&options(), &[&body]));
    }

    #[test]
    fn any_bytes_cut_anywhere_give_the_same_and_no_panic(
        parts in prop::collection::vec(
            prop_oneof![
                prop::collection::vec(any::<u8>(), 0..20),
                Just(b"data: ".to_vec()), Just(b"\n\n".to_vec()), Just(b"\r\n".to_vec()), Just(b"event: error\n".to_vec()), Just(DONE.to_vec()),
                Just(b"data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\n".to_vec()),
                Just(b"{\"error\":{\"code\":429}}".to_vec()), Just(b"\xEF\xBB\xBF".to_vec()),
            ],
            0..12,
        ),
        cut in any::<prop::sample::Index>(),
    ) {
        let body = parts.concat();
        let (one, other) = body.split_at(cut.index(body.len() + 1));
        prop_assert_eq!(decode(&options(), &[one, other]), decode(&options(), &[&body]));
    }
}
