//! The framing `application/vnd.amazon.eventstream`.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests fail by panicking")]

mod aws;

use penstock_core::framing::{Broken, EventStream};

use aws::{message, raw_message};

/// Name, payload, whether it is an exception.
type Message = (String, Vec<u8>, bool);

fn frames(pieces: &[&[u8]], limit: usize) -> (Vec<Message>, Option<Broken>) {
    let mut stream = EventStream::new(limit);
    let mut found = Vec::new();
    for piece in pieces {
        let mut input = *piece;
        loop {
            match stream.next(&mut input) {
                Ok(Some(frame)) => {
                    let name = String::from_utf8_lossy(frame.name).into_owned();
                    found.push((name, frame.data.to_vec(), frame.exception));
                }
                Ok(None) => break,
                Err(error) => return (found, Some(error)),
            }
        }
        assert!(input.is_empty());
    }
    (found, None)
}

fn hex(text: &str) -> Vec<u8> {
    text.as_bytes().chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

const EVENT: &str = "000000760000005296d5fade0b3a6576656e742d7479706507000c6d65737361676553746172740d3a636f6e74656e742d747970650700106170706c69636174696f6e2f6a736f6e0d3a6d6573736167652d747970650700056576656e747b22726f6c65223a22617373697374616e74227d6fa8c599";
const EXCEPTION: &str = "00000090000000618e91a9b70f3a657863657074696f6e2d7479706507001374\
68726f74746c696e67457863657074696f6e0d3a636f6e74656e742d747970650700106170706c69636174696f6e2f6a736f6e0d3a6d6573736167652d74797065070009657863657074696f6e7b226d657373616765223a22546f6f206d616e79207265717565737473227de67f8005";

#[test]
fn the_published_vectors_of_the_format_are_read() {
    let vectors = [
        // An event, an exception and the smallest message, as recorded clients of the format write them.
        (EVENT, "messageStart", r#"{"role":"assistant"}"#, false),
        (EXCEPTION, "throttlingException", r#"{"message":"Too many requests"}"#, true),
        ("000000100000000005c248eb7d98c8ff", "", "", false),
        // The test vectors of AWS's own implementations: a payload without headers, an int32 header, a payload and a
        // string header, and all types of headers at once.
        ("0000001d00000000fd528c5a7b27666f6f273a27626172277dc3653936", "", "{'foo':'bar'}", false),
        (
            "0000002d0000001041c424b80a6576656e742d7479706504 0000a00c7b27666f6f273a27626172277d36f480a0",
            "",
            "{'foo':'bar'}",
            false,
        ),
        (
            "0000003d0000002007fd83960c636f6e74656e742d747970650700106170706c69636174696f6e2f6a736f6e7b27666f6f273a27626172277d8d9c08b1",
            "",
            "{'foo':'bar'}",
            false,
        ),
    ];
    for (bytes, name, payload, exception) in vectors {
        let bytes = hex(&bytes.replace(' ', ""));
        let expected = vec![(name.to_owned(), payload.as_bytes().to_vec(), exception)];
        assert_eq!(frames(&[&bytes], 1 << 20), (expected, None), "{payload}");
    }
}

#[test]
fn every_type_of_header_is_passed_over() {
    let mut block = Vec::new();
    let mut header = |name: &str, kind: u8, value: &[u8]| {
        block.push(u8::try_from(name.len()).unwrap());
        block.extend(name.as_bytes());
        block.push(kind);
        block.extend(value);
    };
    header("true", 0, b"");
    header("false", 1, b"");
    header("byte", 2, &[1]);
    header("short", 3, &[1, 2]);
    header("int", 4, &[1, 2, 3, 4]);
    header("long", 5, &[1; 8]);
    header("bytes", 6, b"\0\x03abc");
    header("time", 8, &[1; 8]);
    header("uuid", 9, &[1; 16]);
    header(":event-type", 7, b"\0\x04name");
    let bytes = raw_message(&block, b"payload");
    assert_eq!(frames(&[&bytes], 1 << 20), (vec![("name".into(), b"payload".to_vec(), false)], None));
}

#[test]
fn any_order_of_headers_and_any_change_of_them_is_read() {
    let body = [
        message(&[(":event-type", "a"), (":message-type", "event")], b"1"),
        message(&[(":event-type", "a"), (":message-type", "event")], b"2"),
        message(&[(":message-type", "event"), (":event-type", "b"), ("other", "x")], b"3"),
        message(&[], b"4"),
        message(&[(":message-type", "exception"), (":exception-type", "c")], b"5"),
        message(&[(":event-type", "a"), (":message-type", "event")], b""),
    ]
    .concat();
    let expected: Vec<Message> =
        [("a", "1", false), ("a", "2", false), ("b", "3", false), ("", "4", false), ("c", "5", true), ("a", "", false)]
            .into_iter()
            .map(|(name, data, exception)| (name.to_owned(), data.as_bytes().to_vec(), exception))
            .collect();
    assert_eq!(frames(&[&body], 1 << 20), (expected.clone(), None));
    assert_eq!(frames(&body.chunks(1).collect::<Vec<_>>(), 1 << 20), (expected.clone(), None));
    for at in 0..=body.len() {
        let (one, other) = body.split_at(at);
        assert_eq!(frames(&[one, other], 1 << 20), (expected.clone(), None), "cut at {at}");
    }
}

#[test]
fn an_error_without_a_payload_has_its_words_in_a_header() {
    let headers = [(":message-type", "error"), (":error-code", "InternalError"), (":error-message", "it broke")];
    let (found, error) = frames(&[&message(&headers, b"")], 1 << 20);
    assert_eq!((found, error), (vec![("InternalError".into(), b"it broke".to_vec(), true)], None));
    let (found, _) = frames(&[&message(&headers, b"{}")], 1 << 20);
    assert_eq!(found, [("InternalError".into(), b"{}".to_vec(), true)]);
}

/// No flipped bit gets through, and the error says which checksum found it.
#[test]
fn every_flipped_bit_is_found() {
    let first = hex(EXCEPTION);
    let second = hex(EVENT);
    for bit in 0..second.len() * 8 {
        let mut broken = second.clone();
        broken[bit / 8] ^= 1 << (bit % 8);
        let body = [first.clone(), broken].concat();
        let (found, error) = frames(&[&body], 1 << 20);
        assert_eq!(found.len(), 1);
        let part = if bit < 96 { "prelude" } else { "message" };
        match error {
            Some(Broken::Checksum { at: 144, part: found, .. }) => assert_eq!(found, part, "bit {bit}"),
            other => panic!("bit {bit}: {other:?}"),
        }
    }
}

#[test]
fn the_error_of_a_wrong_checksum_names_it_and_its_place() {
    let mut bytes = hex(EVENT);
    *bytes.last_mut().unwrap() ^= 1;
    let (_, error) = frames(&[&bytes], 1 << 20);
    let error = penstock_core::error::Error::from(error.unwrap());
    assert_eq!(error.class.name(), "APIResponseValidationError");
    assert_eq!(
        error.message,
        "the message CRC of the event-stream message at byte 0 is 6fa8c598, but its bytes give 6fa8c599"
    );
}

#[test]
fn lengths_that_do_not_fit_are_refused() {
    for (total, headers) in [(0, 0), (15, 0), (16, 1), (31, 16), (16, u32::MAX)] {
        let mut bytes: Vec<u8> = [u32::to_be_bytes(total), u32::to_be_bytes(headers)].concat();
        bytes.extend(aws::crc32(&bytes).to_be_bytes());
        bytes.extend([0; 40]);
        let (found, error) = frames(&[&bytes], 1 << 20);
        assert!(found.is_empty());
        assert!(matches!(error, Some(Broken::Message { at: 0, .. })), "{total} {headers}: {error:?}");
    }
}

#[test]
fn broken_headers_are_refused() {
    for block in [
        &b"\x05abc"[..],
        b"\x01a",
        b"\x01a\x0a",
        b"\x01a\x04\0",
        b"\x01a\x07\0",
        b"\x01a\x07\0\x05ab",
        b"\x01a\0\x01a\0",
    ] {
        let (found, error) = frames(&[&raw_message(block, b"")], 1 << 20);
        assert!(found.is_empty() && matches!(error, Some(Broken::Message { .. })), "{block:?}: {error:?}");
    }
}

#[test]
fn the_limit_holds_before_the_message_has_come() {
    let bytes = message(&[(":event-type", "a")], &[b'x'; 100]);
    assert_eq!(frames(&[&bytes], bytes.len()).0.len(), 1);
    let limit = bytes.len() - 1;
    assert_eq!(frames(&[&bytes[..12]], limit), (Vec::new(), Some(Broken::TooLarge { limit })));
}

#[test]
fn a_message_that_is_cut_off_is_none() {
    let bytes = hex(EVENT);
    for at in 0..bytes.len() {
        assert_eq!(frames(&[&bytes[..at]], 1 << 20), (Vec::new(), None));
    }
}
