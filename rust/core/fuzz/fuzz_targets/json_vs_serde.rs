//! What serde_json accepts is accepted with the same value, and what it rejects is rejected.
//!
//! Known differences, left out of the comparison: bytes that are not UTF-8 (read as U+FFFD here, an error there), lone
//! surrogates (likewise), and nesting (128 levels there, a limit of our own here).
#![no_main]

use libfuzzer_sys::fuzz_target;
use penstock_core::json::{Cursor, Value};
use serde_json::Value as Serde;

fn same(ours: &Value<'_>, theirs: &Serde) -> bool {
    match (ours, theirs) {
        (Value::Null, Serde::Null) => true,
        (Value::Bool(ours), Serde::Bool(theirs)) => ours == theirs,
        // As written on both sides, but serde_json writes an exponent its own way.
        (Value::Number(ours), Serde::Number(theirs)) => {
            ours.parse::<f64>().ok() == theirs.to_string().parse::<f64>().ok()
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

fuzz_target!(|bytes: &[u8]| {
    let skipped = {
        let mut cursor = Cursor::new(bytes);
        cursor.skip().is_ok() && cursor.end().is_ok()
    };
    let ours = Value::parse(bytes);
    assert_eq!(skipped, ours.is_ok(), "skip and parse disagree");
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    match (&ours, serde_json::from_str::<Serde>(text)) {
        (Ok(ours), Ok(theirs)) => assert!(same(ours, &theirs), "{ours:?} is not {theirs:?}"),
        (Err(error), Ok(theirs)) => panic!("{error:?}, but it is {theirs:?}"),
        (Ok(ours), Err(error)) => {
            let message = error.to_string();
            let known =
                message.contains("surrogate") || message.contains("hex escape") || message.contains("recursion");
            assert!(known, "{ours:?}, but {message}");
        }
        (Err(_), Err(_)) => {}
    }
});
