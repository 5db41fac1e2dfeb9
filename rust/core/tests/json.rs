//! The JSON cursor: what it accepts, what it refuses, and what it makes of it.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a test stops where it fails")]

mod common;

use penstock_core::json::{Cursor, Kind, Str, Value, write_str};
use proptest::prelude::*;
use serde_json::Value as Serde;

/// Accepts as a whole document, in both ways of reading; they must agree.
fn accepts(bytes: &[u8]) -> bool {
    let mut cursor = Cursor::new(bytes);
    let skipped = cursor.skip().and_then(|_| cursor.end()).is_ok();
    assert_eq!(skipped, Value::parse(bytes).is_ok(), "skip and parse differ on {:?}", String::from_utf8_lossy(bytes));
    skipped
}

/// The same value. Numbers are compared as written: `serde_json` keeps their text, but for the exponent's sign.
fn same(ours: &Value<'_>, theirs: &Serde) -> bool {
    match (ours, theirs) {
        (Value::Null, Serde::Null) => true,
        (Value::Bool(ours), Serde::Bool(theirs)) => ours == theirs,
        (Value::Number(ours), Serde::Number(theirs)) => {
            let plain = |text: &str| text.to_lowercase().replace('+', "");
            plain(ours) == plain(&theirs.to_string())
        }
        (Value::String(ours), Serde::String(theirs)) => ours == theirs,
        (Value::Array(ours), Serde::Array(theirs)) => {
            ours.len() == theirs.len() && ours.iter().zip(theirs).all(|(ours, theirs)| same(ours, theirs))
        }
        (Value::Object(ours), Serde::Object(theirs)) => {
            ours.len() == theirs.len()
                && ours.iter().all(|(key, ours)| theirs.get(key.as_ref()).is_some_and(|theirs| same(ours, theirs)))
        }
        _ => false,
    }
}

/// Compares with `serde_json`, as far as it reads the same language: it refuses lone surrogates and deep nesting.
fn compare(text: &str) {
    let accepted = accepts(text.as_bytes());
    match serde_json::from_str::<Serde>(text) {
        Ok(theirs) => {
            let ours = Value::parse(text.as_bytes()).unwrap_or_else(|error| panic!("{error} in {text}"));
            assert!(same(&ours, &theirs), "{ours:?} is not {theirs:?}");
            let mut written = Vec::new();
            ours.write(&mut written);
            assert!(same(&ours, &serde_json::from_slice(&written).unwrap()), "written as {written:?}");
        }
        Err(error) if accepted => {
            let error = error.to_string();
            let known = ["surrogate", "hex escape", "recursion"].iter().any(|known| error.contains(known));
            assert!(known, "accepts {text}, but {error}");
        }
        Err(_) => {}
    }
}

fn string(json: &str) -> String {
    Cursor::new(json.as_bytes()).string().unwrap().decode().into_owned()
}

fn literal(json: &str) -> Str<'_> {
    Cursor::new(json.as_bytes()).string().unwrap()
}

#[test]
fn the_conformance_suite() {
    let Some(root) = common::corpus() else {
        return;
    };
    let mut counts = [0; 3];
    for entry in std::fs::read_dir(root.join("json")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        let bytes = std::fs::read(&path).unwrap();
        let accepted = accepts(&bytes);
        match name.split_once('_').unwrap().0 {
            "y" => {
                counts[0] += 1;
                assert!(accepted, "{name} is JSON");
                compare(std::str::from_utf8(&bytes).unwrap());
            }
            "n" => {
                counts[1] += 1;
                assert!(!accepted, "{name} is not JSON");
            }
            _ => counts[2] += 1,
        }
        // Whatever it is, no way of reading it panics.
        let _ = Cursor::new(&bytes).string().map(Str::decode);
        let _ = Cursor::new(&bytes).number().map(|number| (number.as_f64(), number.as_i64()));
        let _ = Cursor::new(&bytes).object(|cursor, _| cursor.skip().map(drop));
        let _ = Cursor::new(&bytes).array(|cursor| cursor.string_or_skip().map(drop));
    }
    assert_eq!(counts.iter().sum::<i32>(), 318);
}

#[test]
fn nesting_is_bounded_at_256() {
    for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
        let nested = |depth: usize| format!("{}0{}", open.repeat(depth), close.repeat(depth));
        assert!(accepts(nested(256).as_bytes()));
        assert!(!accepts(nested(257).as_bytes()));
        assert!(!accepts(open.repeat(1_000_000).as_bytes()));
    }
}

#[test]
fn containers_side_by_side_are_not_nested() {
    assert!(accepts(format!("[{}[]]", "[],{\"a\":[1]},".repeat(1000)).as_bytes()));
}

#[test]
fn a_surrogate_pair_is_one_character() {
    assert_eq!(string(r#""\ud83d\ude00""#), "😀");
    assert_eq!(string(r#""a\uD83D\uDE00b""#), "a😀b");
}

#[test]
fn a_lone_surrogate_is_replaced() {
    for (json, expected) in [
        (r#""\ud83d""#, "\u{fffd}"),
        (r#""\ude00""#, "\u{fffd}"),
        (r#""\ude00\ud83d""#, "\u{fffd}\u{fffd}"),
        (r#""\ud83d\ud83d\ude00""#, "\u{fffd}😀"),
        (r#""\ud83dx\ude00""#, "\u{fffd}x\u{fffd}"),
        (r#""\ud83d\n\ude00""#, "\u{fffd}\n\u{fffd}"),
        (r#""\ud83d\u0041""#, "\u{fffd}A"),
    ] {
        assert_eq!(string(json), expected, "{json}");
    }
}

#[test]
fn a_pair_cut_between_pieces_is_joined() {
    let mut out = String::new();
    let high = literal(r#""a\ud83d""#).unescape(None, &mut out);
    assert_eq!((high, out.as_str()), (Some(0xD83D), "a"));
    assert_eq!(literal(r#""\ude00b""#).unescape(high, &mut out), None);
    assert_eq!(out, "a😀b");
}

#[test]
fn a_half_that_nothing_follows_up_is_replaced_in_its_place() {
    for (next, expected) in [(r#""b""#, "a\u{fffd}b"), (r#""\n""#, "a\u{fffd}\n"), (r#""\ud83d\ude00""#, "a\u{fffd}😀")]
    {
        let mut out = String::new();
        let high = literal(r#""a\ud83d""#).unescape(None, &mut out);
        assert_eq!(literal(next).unescape(high, &mut out), None);
        assert_eq!(out, expected);
    }
}

#[test]
fn all_escapes() {
    assert_eq!(string(r#""\"\\\/\b\f\n\r\t\u00e9\u20AC\u0000""#), "\"\\/\u{8}\u{c}\n\r\té€\0");
}

#[test]
fn unknown_and_broken_escapes_are_refused() {
    for json in [r#""\x""#, r#""\u12""#, r#""\u123g""#, r#""\U0041""#, "\"\\", "\"\\u", r#""\u+123""#, "\"\\\n\""] {
        assert!(!accepts(json.as_bytes()), "{json}");
    }
}

#[test]
fn control_characters_in_strings_are_refused_at_every_place() {
    for byte in 0..0x20u8 {
        for place in 0..24 {
            let mut json = format!("\"{}\"", "x".repeat(24)).into_bytes();
            json[1 + place] = byte;
            assert!(!accepts(&json), "{byte:#x} at {place}");
        }
    }
}

#[test]
fn bytes_above_control_characters_are_text_at_every_place() {
    for byte in (0x20..=0xFFu8).filter(|byte| !matches!(byte, b'"' | b'\\')) {
        for place in 0..17 {
            let mut json = format!("\"{}\"", "x".repeat(17)).into_bytes();
            json[1 + place] = byte;
            assert!(accepts(&json), "{byte:#x} at {place}");
        }
    }
}

#[test]
fn the_end_of_a_string_is_found_at_every_length() {
    for length in 0..40 {
        let text = "é".repeat(length / 2) + &"x".repeat(length % 2);
        assert_eq!(string(&format!("\"{text}\",\"more\"")), text);
        let escaped = format!("\"{text}\\\"{text}\"");
        assert_eq!(string(&escaped), format!("{text}\"{text}"));
    }
}

#[test]
fn invalid_utf8_is_replaced() {
    assert_eq!(Cursor::new(b"\"a\xFFb\"").string().unwrap().decode(), "a\u{fffd}b");
    assert_eq!(Cursor::new(b"\"a\xE2\x82\"").string().unwrap().decode(), "a\u{fffd}");
    assert_eq!(Cursor::new(b"\"\\n\xF0\x9F\\n\"").string().unwrap().decode(), "\n\u{fffd}\n");
}

#[test]
fn integers_of_any_size_keep_their_digits() {
    let digits = "123456789012345678901234567890123456789012345678901234567890";
    let mut cursor = Cursor::new(digits.as_bytes());
    let number = cursor.number().unwrap();
    assert!(number.is_integer());
    assert_eq!(number.as_str(), digits);
    assert_eq!(number.as_i64(), i64::MAX);
    assert_eq!(Value::parse(digits.as_bytes()).unwrap(), Value::Number(digits.into()));
}

#[test]
fn numbers_as_integers_lose_their_fraction() {
    for (json, expected) in [
        ("0", 0),
        ("-0", 0),
        ("1700000000.75", 1_700_000_000),
        ("-1.9", -1),
        ("1e3", 1000),
        ("1E+3", 1000),
        ("9223372036854775807", i64::MAX),
        ("-9223372036854775808", i64::MIN),
        ("1e400", i64::MAX),
        ("-1e400", i64::MIN),
    ] {
        assert_eq!(Cursor::new(json.as_bytes()).number().unwrap().as_i64(), expected, "{json}");
    }
}

#[test]
fn numbers_as_floats() {
    for (json, expected) in [("0.1", 0.1), ("-2.5e-3", -0.0025), ("1e400", f64::INFINITY), ("123", 123.0)] {
        let number: f64 = Cursor::new(json.as_bytes()).number().unwrap().as_f64();
        assert_eq!(number.to_bits(), f64::to_bits(expected), "{json} is {number}");
    }
}

#[test]
fn what_is_no_number_is_refused() {
    for json in ["01", "-", "+1", ".5", "1.", "1e", "1e+", "0x1", "NaN", "Infinity", "1_000", "--1", "1.e1", "-01"] {
        assert!(!accepts(json.as_bytes()), "{json}");
    }
}

#[test]
fn of_a_repeated_key_the_last_value_counts() {
    let value = Value::parse(br#"{"a":1,"b":2,"a":3,"\u0061":4}"#).unwrap();
    assert_eq!(value.get("a"), Some(&Value::Number("4".into())));
    assert!(matches!(&value, Value::Object(fields) if fields.len() == 2));
}

#[test]
fn a_document_ends_with_its_value() {
    for json in ["1 2", "{} {}", "[]]", "null,", "\"a\"b", "{}x", "true false"] {
        assert!(!accepts(json.as_bytes()), "{json}");
    }
    assert!(accepts(b" \t\r\n{} \t\r\n"));
    assert!(!accepts(b"\x0b{}"));
    assert!(!accepts(b""));
}

#[test]
fn skip_gives_the_bytes_of_the_value_and_nothing_around_them() {
    let mut cursor = Cursor::new(b" { \"a\" : [1, 2] } ");
    assert_eq!(cursor.skip().unwrap(), b"{ \"a\" : [1, 2] }");
    assert_eq!(cursor.position(), 17);
    assert_eq!(cursor.rest(), b" ");
    cursor.end().unwrap();
}

#[test]
fn kind_looks_without_reading() {
    for (json, kind) in [
        ("{}", Kind::Object),
        ("[]", Kind::Array),
        ("\"\"", Kind::String),
        ("-1", Kind::Number),
        ("true", Kind::True),
        ("false", Kind::False),
        ("null", Kind::Null),
    ] {
        let mut cursor = Cursor::new(json.as_bytes());
        assert_eq!(cursor.kind(), Ok(kind));
        assert_eq!(cursor.kind(), Ok(kind));
        assert_eq!(cursor.skip(), Ok(json.as_bytes()));
    }
}

#[test]
fn or_skip_passes_over_other_kinds() {
    let mut found = Vec::new();
    Cursor::new(br#"["a", 1, null, {"b": "c"}, "d"]"#)
        .array(|cursor| {
            found.extend(cursor.string_or_skip()?.map(|text| text.decode().into_owned()));
            Ok(())
        })
        .unwrap();
    assert_eq!(found, ["a", "d"]);
}

#[test]
fn an_error_says_where_and_what() {
    let error = Value::parse(br#"{"a": tru}"#).unwrap_err();
    assert_eq!((error.at, error.expected), (6, "true"));
    assert_eq!(error.to_string(), "invalid JSON at byte 6: expected true");
}

#[test]
fn truth_is_as_in_python() {
    for falsy in ["null", "false", "0", "0.0", "-0", "0e5", "\"\"", "[]", "{}"] {
        assert!(!Value::parse(falsy.as_bytes()).unwrap().is_truthy(), "{falsy}");
    }
    for truthy in ["true", "1", "-0.5", "1e400", "\"0\"", "[0]", "{\"a\":null}"] {
        assert!(Value::parse(truthy.as_bytes()).unwrap().is_truthy(), "{truthy}");
    }
}

fn json_value() -> impl Strategy<Value = Serde> {
    let number = prop_oneof![
        any::<i64>().prop_map(Serde::from),
        any::<u64>().prop_map(Serde::from),
        any::<f64>().prop_filter("finite", |number| number.is_finite()).prop_map(Serde::from),
        "-?(0|[1-9][0-9]{0,40})(\\.[0-9]{1,20})?([eE][+-]?[0-9]{1,3})?"
            .prop_map(|text| serde_json::from_str(&text).unwrap()),
    ];
    let leaf = prop_oneof![
        Just(Serde::Null),
        any::<bool>().prop_map(Serde::from),
        number,
        any::<String>().prop_map(Serde::from),
        "[\\x00-\\x7f]{0,40}".prop_map(Serde::from),
    ];
    leaf.prop_recursive(5, 60, 8, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..8).prop_map(Serde::from),
            prop::collection::hash_map("[a-c\"\\\\\u{e9}]{0,3}", inner, 0..8)
                .prop_map(|fields| Serde::Object(fields.into_iter().collect())),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn documents_have_the_value_that_serde_json_finds(value in json_value(), pretty: bool) {
        let text = if pretty { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) }.unwrap();
        prop_assert!(accepts(text.as_bytes()));
        compare(&text);
    }

    #[test]
    fn damaged_documents_are_refused_where_serde_json_refuses_them(
        value in json_value(),
        place: prop::sample::Index,
        with in prop_oneof![Just(String::new()), "[\\[\\]{},:\"\\\\0-9eE.+ntfu\\x00 -]{1,3}"],
        length in 0..3usize,
    ) {
        let text = serde_json::to_string(&value).unwrap();
        let chars: Vec<char> = text.chars().collect();
        let at = place.index(chars.len());
        let end = (at + length).min(chars.len());
        let damaged: String = chars[..at].iter().copied().chain(with.chars()).chain(chars[end..].iter().copied()).collect();
        compare(&damaged);
    }

    #[test]
    fn nearly_json_is_judged_as_serde_json_does(text in "[\\[\\]{},:\"\\\\0-9eE.+ntrulfaseu \\n-]{0,24}") {
        compare(&text);
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        accepts(&bytes);
        let _ = Cursor::new(&bytes).string().map(Str::decode);
    }

    #[test]
    fn text_written_is_text_read(text: String) {
        let mut json = Vec::new();
        write_str(&mut json, &text);
        prop_assert_eq!(Cursor::new(&json).string().unwrap().decode(), text.as_str());
        prop_assert_eq!(serde_json::from_slice::<String>(&json).unwrap(), text);
    }

    #[test]
    fn text_cut_into_escaped_pieces_is_the_text_again(text: String, cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..5)) {
        // Everything escaped, so that a cut may fall between the halves of a pair.
        let units: Vec<u16> = text.encode_utf16().collect();
        let mut places: Vec<usize> = cuts.iter().map(|cut| cut.index(units.len() + 1)).collect();
        places.sort_unstable();
        places.push(units.len());
        let (mut out, mut high, mut from) = (String::new(), None, 0);
        for to in places {
            let piece: String = units[from..to].iter().flat_map(|unit| format!("\\u{unit:04x}").into_bytes()).map(char::from).collect();
            // An empty piece is passed over by whoever joins them.
            if to > from {
                high = literal(&format!("\"{piece}\"")).unescape(high, &mut out);
            }
            from = to;
        }
        prop_assert_eq!((high, out), (None, text));
    }
}

#[test]
fn of_a_repeated_key_among_many_the_last_value_counts_in_the_first_place() {
    let fields: Vec<String> = (0..200_000).map(|n| format!("\"k{}\":{n}", n % 150_000)).collect();
    let json = format!("{{{}}}", fields.join(","));
    let Ok(Value::Object(fields)) = Value::parse(json.as_bytes()) else {
        panic!("an object");
    };
    assert_eq!(fields.len(), 150_000);
    assert_eq!(fields[0], ("k0".into(), Value::Number("150000".into())));
    assert_eq!(fields[149_999], ("k149999".into(), Value::Number("149999".into())));
}
