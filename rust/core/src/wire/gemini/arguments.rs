//! The arguments of a function call, whole or in JSON-path pieces.

use crate::json::{Cursor, Result, Value};

/// An object that grows.
#[derive(Debug)]
pub(super) struct Arguments(Value<'static>);

impl Default for Arguments {
    fn default() -> Self {
        Self(Value::Object(Vec::new()))
    }
}

/// One step of a path.
enum Step<'p> {
    Field(&'p str),
    Item(usize),
}

impl Arguments {
    pub(super) fn read(cursor: &mut Cursor<'_>) -> Result<Self> {
        Ok(Self(Value::read(cursor)?.into_owned()))
    }

    /// Compact JSON text.
    pub(super) fn write(&self) -> String {
        let mut json = Vec::new();
        self.0.write(&mut json);
        String::from_utf8_lossy(&json).into_owned()
    }

    pub(super) fn merge(&mut self, more: Self) {
        if let Value::Object(fields) = more.0 {
            for (name, value) in fields {
                self.0.set(name, value);
            }
        }
    }

    /// Takes a list of `partialArgs`: a path and a value each. Strings go on where they stopped.
    pub(super) fn add(&mut self, partial: &[u8]) -> Result<()> {
        let Value::Array(pieces) = Value::parse(partial)?.into_owned() else {
            return Ok(());
        };
        for piece in pieces {
            let place = piece.get("jsonPath").and_then(Value::as_str).and_then(|path| walk(&mut self.0, path));
            let Some(place) = place else {
                continue;
            };
            let values = ["stringValue", "numberValue", "boolValue", "nullValue"];
            match (place, values.into_iter().find_map(|name| Some((name, piece.get(name)?)))) {
                (Value::String(text), Some(("stringValue", Value::String(more)))) => text.to_mut().push_str(more),
                (place, Some(("nullValue", _))) => *place = Value::Null,
                (place, Some((_, value))) => *place = value.clone(),
                (_, None) => {}
            }
        }
        Ok(())
    }
}

/// The place that a path leads to, made where it is missing; None for a path that is none.
fn walk<'v>(root: &'v mut Value<'static>, path: &str) -> Option<&'v mut Value<'static>> {
    let mut rest = path.strip_prefix('$')?;
    let mut place = root;
    while !rest.is_empty() {
        let (step, after) = next_step(rest)?;
        rest = after;
        place = match step {
            Step::Field(name) => {
                if !matches!(place, Value::Object(_)) {
                    *place = Value::Object(Vec::new());
                }
                if place.get(name).is_none() {
                    place.set(name.to_owned(), Value::Null);
                }
                place.get_mut(name)?
            }
            Step::Item(index) => {
                if !matches!(place, Value::Array(_)) {
                    *place = Value::Array(Vec::new());
                }
                let Value::Array(items) = place else {
                    return None;
                };
                // They come in order; a number far ahead must not cost memory.
                let index = index.min(items.len());
                if index == items.len() {
                    items.push(Value::Null);
                }
                items.get_mut(index)?
            }
        };
    }
    Some(place)
}

/// `.name`, `[0]`, `['name']` or `["name"]`, and what comes after it.
fn next_step(path: &str) -> Option<(Step<'_>, &str)> {
    if let Some(name) = path.strip_prefix('.') {
        let end = name.find(['.', '[']).unwrap_or(name.len());
        let (name, rest) = name.split_at_checked(end)?;
        return Some((Step::Field(name), rest));
    }
    let inner = path.strip_prefix('[')?;
    for quote in ['\'', '"'] {
        if let Some(name) = inner.strip_prefix(quote) {
            let (name, rest) = name.split_once(quote)?;
            return Some((Step::Field(name), rest.strip_prefix(']')?));
        }
    }
    let (index, rest) = inner.split_once(']')?;
    Some((Step::Item(index.parse().ok()?), rest))
}
