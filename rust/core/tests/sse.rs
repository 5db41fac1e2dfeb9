//! The event stream format, one rule of the WHATWG HTML standard (section 9.2.6) after the other.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test stops where it fails")]

mod common;

use penstock_core::framing::{Sse, TooLarge};
use serde_json::Value;

/// Type, data, last event ID, and a new reconnection time.
type Event = (String, String, String, Option<u64>);

#[derive(Debug, Default, PartialEq)]
struct Read {
    events: Vec<Event>,
    last_id: String,
    retry: Option<u64>,
    stray: String,
    too_large: bool,
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn read_pieces<'p>(max_event_size: usize, pieces: impl IntoIterator<Item = &'p [u8]>) -> Read {
    let mut sse = Sse::new(max_event_size);
    let mut events = Vec::new();
    let mut too_large = false;
    'pieces: for piece in pieces {
        let mut input = piece;
        loop {
            match sse.next(&mut input) {
                Ok(Some(event)) => {
                    events.push((text(event.frame.name), text(event.frame.data), text(event.id), event.retry));
                }
                Ok(None) => break,
                Err(TooLarge { limit }) => {
                    assert_eq!(limit, max_event_size);
                    too_large = true;
                    break 'pieces;
                }
            }
        }
        assert!(input.is_empty(), "all that was read is consumed");
    }
    Read { events, last_id: text(sse.last_id()), retry: sse.retry(), stray: text(sse.stray()), too_large }
}

/// Reads the input whole, at every cut into two and into three, and byte by byte: all must agree. Of long inputs the cuts
/// near the ends, and some between.
fn read(input: &[u8]) -> Read {
    read_limited(usize::MAX, input)
}

fn read_limited(max_event_size: usize, input: &[u8]) -> Read {
    let whole = read_pieces(max_event_size, [input]);
    let near_an_end = |place: usize, margin: usize| place < margin || place + margin > input.len();
    let cuts = |margin: usize, step: usize| {
        (0..=input.len()).filter(move |place| near_an_end(*place, margin) || place % step == 0).collect::<Vec<_>>()
    };
    for first in cuts(2500, 97) {
        let (one, rest) = input.split_at(first);
        assert_eq!(read_pieces(max_event_size, [one, rest]), whole, "cut at {first}");
    }
    let cuts = cuts(300, 1 + input.len() / 40);
    for (place, first) in cuts.iter().enumerate() {
        for second in &cuts[place..] {
            let pieces = [&input[..*first], &input[*first..*second], &input[*second..]];
            assert_eq!(read_pieces(max_event_size, pieces), whole, "cut at {first} and {second}");
            if input.len() > 10_000 {
                break;
            }
        }
    }
    assert_eq!(read_pieces(max_event_size, input.chunks(1)), whole, "byte by byte");
    whole
}

fn data(input: &[u8]) -> Vec<String> {
    read(input).events.into_iter().map(|(_, data, ..)| data).collect()
}

/// The unfinished event that is left at the end, after any cut.
fn left(input: &[u8]) -> Option<(String, String)> {
    let finish = |pieces: &[&[u8]]| {
        let mut sse = Sse::new(usize::MAX);
        for piece in pieces {
            let mut input = *piece;
            while sse.next(&mut input).unwrap().is_some() {}
        }
        sse.finish().map(|event| (text(event.frame.name), text(event.frame.data)))
    };
    let whole = finish(&[input]);
    for cut in 0..=input.len() {
        assert_eq!(finish(&[&input[..cut], &input[cut..]]), whole, "cut at {cut}");
    }
    whole
}

fn base64(text: &str) -> Vec<u8> {
    let mut bits = 0u32;
    let mut count = 0;
    let mut bytes = Vec::new();
    for byte in text.bytes().filter(|byte| *byte != b'=') {
        let digit = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            _ => 63,
        };
        bits = bits << 6 | u32::from(digit);
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
            bits &= (1 << count) - 1;
        }
    }
    bytes
}

#[test]
fn every_conformance_case_at_every_cut() {
    let Some(root) = common::corpus() else {
        return;
    };
    let cases = std::fs::read_to_string(root.join("sse/cases.jsonl")).unwrap();
    let mut count = 0;
    for line in cases.lines() {
        let case: Value = serde_json::from_str(line).unwrap();
        let input = base64(case["input"].as_str().unwrap());
        let found = read(&input);
        let expected: Vec<Event> = case["expected"]
            .as_array()
            .unwrap()
            .iter()
            .map(|event| {
                let field = |name: &str| event[name].as_str().unwrap().to_owned();
                (field("event"), field("data"), field("id"), event["retry"].as_u64())
            })
            .collect();
        let found_events: Vec<Event> = found
            .events
            .into_iter()
            .map(|(name, data, id, retry)| (if name.is_empty() { "message".into() } else { name }, data, id, retry))
            .collect();
        let name = &case["name"];
        assert_eq!(found_events, expected, "{name}");
        assert_eq!(found.last_id, case["final_id"].as_str().unwrap(), "{name}: last event ID");
        assert_eq!(found.retry, case["final_retry"].as_u64(), "{name}: reconnection time");
        count += 1;
    }
    assert!(count > 100, "only {count} cases");
}

#[test]
fn a_line_ends_at_lf() {
    assert_eq!(data(b"data: a\n\ndata: b\n\n"), ["a", "b"]);
}

#[test]
fn a_line_ends_at_cr() {
    assert_eq!(data(b"data: a\r\rdata: b\r\r"), ["a", "b"]);
}

#[test]
fn a_line_ends_at_crlf() {
    assert_eq!(data(b"data: a\r\n\r\ndata: b\r\n\r\n"), ["a", "b"]);
}

#[test]
fn line_ends_may_be_mixed() {
    assert_eq!(data(b"data: a\n\rdata: b\r\n\ndata: c\r\r\ndata: d\n\r\n"), ["a", "b", "c", "d"]);
    assert_eq!(data(b"data: a\rdata: b\ndata: c\r\n\r\n"), ["a\nb\nc"]);
}

#[test]
fn a_line_ends_nowhere_else() {
    let input = "data: a\u{2028}b\u{2029}c\u{85}d\u{b}e\u{c}f\n\n";
    assert_eq!(data(input.as_bytes()), ["a\u{2028}b\u{2029}c\u{85}d\u{b}e\u{c}f"]);
}

#[test]
fn an_event_is_handed_out_at_its_blank_line_and_not_later() {
    for input in [&b"data: a\n\n"[..], b"data: a\r\r", b"data: a\r\n\r"] {
        assert_eq!(data(input), ["a"]);
    }
}

#[test]
fn one_byte_order_mark_is_passed_over() {
    assert_eq!(data("\u{feff}data: a\n\n".as_bytes()), ["a"]);
}

#[test]
fn a_second_byte_order_mark_is_part_of_the_line() {
    assert_eq!(data("\u{feff}\u{feff}data: a\n\ndata: b\n\n".as_bytes()), ["b"]);
}

#[test]
fn a_byte_order_mark_counts_at_the_start_only() {
    assert_eq!(data("data: a\n\n\u{feff}data: b\n\n".as_bytes()), ["a"]);
}

#[test]
fn a_part_of_a_byte_order_mark_is_part_of_the_line() {
    assert_eq!(data(b"\xEF\xBBdata: a\n\ndata: b\n\n"), ["b"]);
    assert_eq!(left(b"\xEF\xBB"), None);
    assert_eq!(data(b"\xEF\xBB\n"), Vec::<String>::new());
}

#[test]
fn comments_are_passed_over() {
    assert_eq!(data(b": ping - 1\n\n:\n:data: x\ndata: a\n: b\n\n"), ["a"]);
    assert_eq!(read(b": ping\n\n").stray, "");
}

#[test]
fn data_lines_are_joined_by_lf() {
    assert_eq!(data(b"data: a\ndata\ndata:\ndata: b\n\n"), ["a\n\n\nb"]);
}

#[test]
fn empty_data_is_data() {
    assert_eq!(data(b"data\n\ndata:\n\ndata: \n\n"), ["", "", ""]);
}

#[test]
fn an_event_without_data_is_none() {
    assert_eq!(read(b"event: a\nid: 1\n\ndata: b\n\n").events, [(String::new(), "b".to_owned(), "1".to_owned(), None)]);
}

#[test]
fn one_space_after_the_colon_is_taken_away() {
    assert_eq!(data(b"data:a\n\ndata: a\n\ndata:  a\n\ndata:\ta\n\ndata: a \n\n"), ["a", "a", " a", "\ta", "a "]);
}

#[test]
fn event_names_the_type_of_one_event() {
    let names: Vec<_> = read(b"event: error\ndata: a\n\ndata: b\n\nevent:x\nevent: y\ndata: c\n\n")
        .events
        .into_iter()
        .map(|(name, ..)| name)
        .collect();
    assert_eq!(names, ["error", "", "y"]);
}

#[test]
fn id_stays_until_it_is_set_anew() {
    let read = read(b"id: 1\ndata: a\n\ndata: b\n\nid\ndata: c\n\n");
    let ids: Vec<_> = read.events.iter().map(|(_, _, id, _)| id.as_str()).collect();
    assert_eq!(ids, ["1", "1", ""]);
}

#[test]
fn id_counts_from_the_blank_line_on() {
    assert_eq!(read(b"id: 1\n\n").last_id, "1");
    assert_eq!(read(b"id: 1\n\nid: 2\n").last_id, "1");
}

#[test]
fn an_id_with_null_is_ignored() {
    let read = read(b"id: 1\ndata: a\n\nid: 2\0\ndata: b\n\n");
    assert_eq!(read.last_id, "1");
    assert_eq!(read.stray, "");
}

#[test]
fn retry_is_a_number_of_milliseconds() {
    let read = read(b"retry: 1000\ndata: a\n\ndata: b\n\n");
    let retries: Vec<_> = read.events.iter().map(|(.., retry)| *retry).collect();
    assert_eq!(retries, [Some(1000), None]);
    assert_eq!(read.retry, Some(1000));
}

#[test]
fn a_retry_that_is_no_number_is_ignored() {
    for wrong in ["retry: 1e3", "retry: -1", "retry:", "retry", "retry: 10 ", "retry: x"] {
        assert_eq!(read(format!("retry: 5\n{wrong}\ndata: a\n\n").as_bytes()).retry, Some(5), "{wrong}");
    }
}

#[test]
fn a_retry_beyond_all_numbers_does_not_take_the_last_one_away() {
    let read = read(b"retry: 5\nretry: 99999999999999999999999999\ndata: a\n\n");
    assert_eq!(read.retry, Some(u64::MAX));
}

#[test]
fn field_names_are_matched_whole_and_with_case() {
    let read = read(b"Data: a\ndatax: b\n data: c\ndata : d\n\n");
    assert!(read.events.is_empty());
    assert_eq!(read.stray, "data : d");
}

#[test]
fn a_line_that_is_no_field_is_kept_as_a_hint() {
    let read = read(b"data: a\n\nerror: {\"message\":\"overloaded\"}\n\n");
    assert_eq!(read.stray, "error: {\"message\":\"overloaded\"}");
    assert_eq!(read.events.len(), 1);
}

#[test]
fn of_a_long_line_that_is_no_field_the_beginning_is_kept() {
    let line = "x".repeat(2000);
    assert_eq!(read_pieces(usize::MAX, [format!("{line}\n").as_bytes()]).stray, "x".repeat(500));
}

#[test]
fn an_event_without_its_blank_line_is_left_for_the_end() {
    assert_eq!(data(b"data: a\n\ndata: b\n"), ["a"]);
    assert_eq!(left(b"data: a\n\nevent: e\ndata: b\n"), Some(("e".into(), "b".into())));
    assert_eq!(left(b"data: b"), Some((String::new(), "b".into())));
    assert_eq!(left(b"data: b\r"), Some((String::new(), "b".into())));
    assert_eq!(left(b"data: a\ndata: b"), Some((String::new(), "a\nb".into())));
}

#[test]
fn nothing_is_left_where_nothing_was_begun() {
    for input in [&b""[..], b"data: a\n\n", b"data: a\n\n: ping", b"data: a\n\nevent: x\n", b"data: a\n\ndat"] {
        assert_eq!(left(input), None, "{:?}", text(input));
    }
}

#[test]
fn the_limit_holds_for_a_line() {
    assert!(!read_limited(20, b"data: 12345678901234\n\n").too_large);
    assert!(read_limited(20, b"data: 123456789012345\n\n").too_large);
}

#[test]
fn the_limit_holds_for_a_line_that_never_ends() {
    assert!(!read_limited(20, b"data: 12345678901234").too_large);
    assert!(read_limited(20, b"data: 123456789012345").too_large);
    assert!(read_limited(20, b": a comment without an end").too_large);
}

#[test]
fn the_limit_holds_for_all_data_of_an_event() {
    let read = read_limited(20, b"data: ok\n\ndata: 1234\ndata: 5678\ndata: 90\ndata: 1\ndata: 2\n\n");
    assert!(read.too_large);
    assert_eq!(read.events.len(), 1);
}

#[test]
fn empty_data_lines_count_too() {
    let input = b"data\n".repeat(100);
    assert!(read_limited(50, &input).too_large);
}

#[test]
fn the_limit_is_for_one_event_and_not_for_the_stream() {
    let input = b"data: 1234567890\n\n".repeat(20);
    assert!(!read_limited(20, &input).too_large);
}
