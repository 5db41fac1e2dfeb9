use std::borrow::Cow;
use std::collections::HashMap;

use super::{Cursor, Kind, Result, write_str};

/// Up to as many fields a search is the quickest way to a repeated one; of a hostile object it would never end.
const MANY: usize = 32;

/// A parsed document, for what is rare or small: error bodies, annotations, log probabilities.
#[derive(Clone, Debug, PartialEq)]
pub enum Value<'a> {
    Null,
    Bool(bool),
    /// As written.
    Number(Cow<'a, str>),
    String(Cow<'a, str>),
    Array(Vec<Value<'a>>),
    /// In order; of a repeated key the last value counts and keeps the first one's place.
    Object(Vec<(Cow<'a, str>, Value<'a>)>),
}

impl<'a> Value<'a> {
    /// One whole document.
    pub fn parse(bytes: &'a [u8]) -> Result<Self> {
        let mut cursor = Cursor::new(bytes);
        let value = Self::read(&mut cursor)?;
        cursor.end()?;
        Ok(value)
    }

    pub fn read(cursor: &mut Cursor<'a>) -> Result<Self> {
        Ok(match cursor.kind()? {
            Kind::Null => cursor.null().map(|()| Value::Null)?,
            Kind::True | Kind::False => Value::Bool(cursor.bool()?),
            Kind::Number => Value::Number(Cow::Borrowed(cursor.number()?.as_str())),
            Kind::String => Value::String(cursor.string()?.decode()),
            Kind::Array => {
                let mut items = Vec::new();
                cursor.array(|cursor| {
                    items.push(Self::read(cursor)?);
                    Ok(())
                })?;
                Value::Array(items)
            }
            Kind::Object => {
                let mut fields: Vec<(Cow<'a, str>, Self)> = Vec::new();
                let mut places = HashMap::new();
                cursor.object(|cursor, key| {
                    let (name, item) = (key.decode(), Self::read(cursor)?);
                    let known = if fields.len() < MANY {
                        fields.iter().position(|(known, _)| *known == name)
                    } else {
                        if places.is_empty() {
                            places.extend(fields.iter().zip(0..).map(|((name, _), place)| (name.clone(), place)));
                        }
                        let next = fields.len();
                        Some(*places.entry(name.clone()).or_insert(next)).filter(|place| *place < next)
                    };
                    match known.and_then(|place| fields.get_mut(place)) {
                        Some((_, old)) => *old = item,
                        None => fields.push((name, item)),
                    }
                    Ok(())
                })?;
                Value::Object(fields)
            }
        })
    }

    #[must_use]
    pub fn into_owned(self) -> Value<'static> {
        match self {
            Value::Null => Value::Null,
            Value::Bool(value) => Value::Bool(value),
            Value::Number(text) => Value::Number(Cow::Owned(text.into_owned())),
            Value::String(text) => Value::String(Cow::Owned(text.into_owned())),
            Value::Array(items) => Value::Array(items.into_iter().map(Value::into_owned).collect()),
            Value::Object(fields) => Value::Object(
                fields.into_iter().map(|(key, value)| (Cow::Owned(key.into_owned()), value.into_owned())).collect(),
            ),
        }
    }

    /// A field of an object; None for what is no object or lacks it.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Value<'a>> {
        match self {
            Value::Object(fields) => fields.iter().find(|(key, _)| key == name).map(|(_, value)| value),
            _ => None,
        }
    }

    /// The same, to change it.
    pub fn get_mut(&mut self, name: &str) -> Option<&mut Value<'a>> {
        match self {
            Value::Object(fields) => fields.iter_mut().find(|(key, _)| key == name).map(|(_, value)| value),
            _ => None,
        }
    }

    /// Sets a field of an object; does nothing to what is no object.
    pub fn set(&mut self, name: impl Into<Cow<'a, str>>, value: Value<'a>) {
        if let Value::Object(fields) = self {
            let name = name.into();
            match fields.iter_mut().find(|(key, _)| *key == name) {
                Some((_, old)) => *old = value,
                None => fields.push((name, value)),
            }
        }
    }

    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Value::String(text) => Some(text),
            _ => None,
        }
    }

    /// A number that is a whole one, or a string of digits.
    #[must_use]
    pub fn as_i64(&self) -> Option<i64> {
        match self {
            Value::Number(text) | Value::String(text) => text.parse().ok(),
            _ => None,
        }
    }

    /// As JavaScript and Python see it: null, false, 0, "" and empty containers are not.
    #[must_use]
    pub fn is_truthy(&self) -> bool {
        match self {
            Value::Null => false,
            Value::Bool(value) => *value,
            Value::Number(text) => text.parse::<f64>().is_ok_and(|number| number != 0.0),
            Value::String(text) => !text.is_empty(),
            Value::Array(items) => !items.is_empty(),
            Value::Object(fields) => !fields.is_empty(),
        }
    }

    /// Appends the value as compact JSON.
    pub fn write(&self, out: &mut Vec<u8>) {
        match self {
            Value::Null => out.extend_from_slice(b"null"),
            Value::Bool(value) => out.extend_from_slice(if *value { b"true" } else { b"false" }),
            Value::Number(text) => out.extend_from_slice(text.as_bytes()),
            Value::String(text) => write_str(out, text),
            Value::Array(items) => {
                out.push(b'[');
                for (place, item) in items.iter().enumerate() {
                    if place > 0 {
                        out.push(b',');
                    }
                    item.write(out);
                }
                out.push(b']');
            }
            Value::Object(fields) => {
                out.push(b'{');
                for (place, (key, value)) in fields.iter().enumerate() {
                    if place > 0 {
                        out.push(b',');
                    }
                    write_str(out, key);
                    out.push(b':');
                    value.write(out);
                }
                out.push(b'}');
            }
        }
    }
}
