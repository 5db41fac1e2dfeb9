//! JSON text into Python objects.

use penstock_core::json::{Cursor, JsonError, Kind as Json, Str};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyDict, PyFloat, PyInt, PyList, PyString};

use crate::record::{Kind, OPEN, Others, Record, SLOTS, Shape};

/// The text of a string: valid UTF-8 without escapes goes over as it is.
pub(crate) fn text<'py>(py: Python<'py>, text: Str<'_>) -> Bound<'py, PyString> {
    text.unescaped()
        .and_then(|bytes| PyString::from_bytes(py, bytes).ok())
        .unwrap_or_else(|| PyString::new(py, &text.decode()))
}

/// One whole document as plain data.
pub(crate) fn build_plain(py: Python<'_>, json: &[u8]) -> PyResult<Py<PyAny>> {
    let mut cursor = Cursor::new(json);
    Ok(build(py, &mut cursor, Kind::Plain)?.unbind())
}

/// A document of any shape whose objects have attributes.
pub(crate) fn build_open(py: Python<'_>, json: &[u8]) -> PyResult<Py<PyAny>> {
    Ok(build(py, &mut Cursor::new(json), Kind::Open)?.unbind())
}

/// One object, its values of the given kind.
pub(crate) fn build_dict<'py>(py: Python<'py>, json: &[u8], kind: Kind) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    object(&mut Cursor::new(json), |cursor, key| dict.set_item(text(py, key), build(py, cursor, kind)?))?;
    Ok(dict)
}

/// One object as a record of this shape.
pub(crate) fn build_record(py: Python<'_>, json: &[u8], shape: &'static Shape) -> PyResult<Record> {
    record(py, &mut Cursor::new(json), shape)
}

fn build<'py>(py: Python<'py>, cursor: &mut Cursor<'_>, kind: Kind) -> PyResult<Bound<'py, PyAny>> {
    Ok(match cursor.kind().map_err(invalid)? {
        Json::Null => {
            cursor.null().map_err(invalid)?;
            py.None().into_bound(py)
        }
        Json::True | Json::False => PyBool::new(py, cursor.bool().map_err(invalid)?).to_owned().into_any(),
        Json::Number => {
            let number = cursor.number().map_err(invalid)?;
            match number.as_str().parse::<i64>() {
                Ok(small) => PyInt::new(py, small).into_any(),
                Err(_) if number.is_integer() => py.get_type::<PyInt>().call1((number.as_str(),))?,
                Err(_) => PyFloat::new(py, number.as_f64()).into_any(),
            }
        }
        Json::String => text(py, cursor.string().map_err(invalid)?).into_any(),
        Json::Array => {
            let each = match kind {
                Kind::List(shape) => Kind::Record(shape),
                other => other,
            };
            let list = PyList::empty(py);
            let mut failed = None;
            let read = cursor
                .array(|cursor| keep(&mut failed, build(py, cursor, each).and_then(|item| list.append(item)), cursor));
            outcome(read, failed)?;
            list.into_any()
        }
        Json::Object => match kind {
            Kind::Record(shape) => record(py, cursor, shape)?.into_object(py)?.into_bound(py).into_any(),
            Kind::Open => record(py, cursor, &OPEN)?.into_object(py)?.into_bound(py).into_any(),
            Kind::Plain | Kind::List(_) => {
                let dict = PyDict::new(py);
                object(cursor, |cursor, key| dict.set_item(text(py, key), build(py, cursor, Kind::Plain)?))?;
                dict.into_any()
            }
        },
    })
}

fn record(py: Python<'_>, cursor: &mut Cursor<'_>, shape: &'static Shape) -> PyResult<Record> {
    let mut slots = [const { None }; SLOTS];
    let mut others = Vec::new();
    object(cursor, |cursor, key| {
        let slot = std::str::from_utf8(&key.bytes()).ok().and_then(|name| shape.slot_of(name));
        match slot.and_then(|slot| Some((slots.get_mut(slot)?, shape.fields.get(slot)?.kind))) {
            Some((place, kind)) => *place = Some(build(py, cursor, kind)?.unbind()),
            None => add_other(&mut others, key, cursor.skip().map_err(invalid)?),
        }
        Ok(())
    })?;
    Ok(Record::new(shape, slots, end_others(others)))
}

/// Appends a field to the text of an object that is still open.
pub(crate) fn add_other(others: &mut Vec<u8>, key: Str<'_>, json: &[u8]) {
    others.push(if others.is_empty() { b'{' } else { b',' });
    others.push(b'"');
    others.extend_from_slice(key.raw());
    others.extend_from_slice(b"\":");
    others.extend_from_slice(json);
}

pub(crate) fn end_others(mut others: Vec<u8>) -> Others {
    if others.is_empty() {
        return None;
    }
    others.push(b'}');
    Some(others.into())
}

/// Reads an object with a callback that may fail in Python's way.
fn object<'j>(cursor: &mut Cursor<'j>, mut each: impl FnMut(&mut Cursor<'j>, Str<'j>) -> PyResult<()>) -> PyResult<()> {
    let mut failed = None;
    let read = cursor.object(|cursor, key| {
        let outcome = each(cursor, key);
        keep(&mut failed, outcome, cursor)
    });
    outcome(read, failed)
}

/// Stops the cursor at a Python error, which is kept aside.
fn keep(failed: &mut Option<PyErr>, outcome: PyResult<()>, cursor: &Cursor<'_>) -> Result<(), JsonError> {
    outcome.map_err(|error| {
        *failed = Some(error);
        JsonError { at: cursor.position(), expected: "a value that Python can hold" }
    })
}

fn outcome(read: Result<(), JsonError>, failed: Option<PyErr>) -> PyResult<()> {
    read.map_err(|error| failed.unwrap_or_else(|| invalid(error)))
}

#[cold]
fn invalid(error: JsonError) -> PyErr {
    PyValueError::new_err(error.to_string())
}
