//! The frozen object behind every value class: fields in slots, the rest as JSON until somebody asks.

use std::sync::Arc;

use pyo3::exceptions::{PyAttributeError, PyKeyError, PyTypeError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyList, PyMapping, PySequence, PyString, PyTuple, PyType};

use crate::json;

/// The most fields that a class has.
pub(crate) const SLOTS: usize = 8;

/// Characters of a text, and items of a list, that a repr shows.
const SHOWN_TEXT: usize = 200;
const SHOWN_ITEMS: usize = 20;

/// What a class is: its name, its fields, and how to make one of a filled record.
pub(crate) struct Shape {
    pub(crate) name: &'static str,
    pub(crate) fields: &'static [Field],
    pub(crate) make: fn(Python<'_>, Record) -> PyResult<Py<Record>>,
    /// The interned names, filled at first use.
    pub(crate) names: PyOnceLock<Vec<Py<PyString>>>,
}

pub(crate) struct Field {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
}

/// What a field's JSON becomes.
#[derive(Clone, Copy)]
pub(crate) enum Kind {
    /// dict, list, str, int, float, bool or None.
    Plain,
    /// The same, but objects have attributes too, at any depth.
    Open,
    Record(&'static Shape),
    List(&'static Shape),
}

impl Shape {
    fn names(&self, py: Python<'_>) -> &[Py<PyString>] {
        self.names
            .get_or_init(py, || self.fields.iter().map(|field| PyString::intern(py, field.name).unbind()).collect())
    }

    /// The slot of a name. Names in source code are interned, so a look at the pointer is nearly always enough.
    pub(crate) fn slot(&self, name: &Bound<'_, PyAny>) -> Option<usize> {
        let names = self.names(name.py());
        names.iter().position(|known| known.as_ptr() == name.as_ptr()).or_else(|| {
            let name = name.cast::<PyString>().ok()?;
            let name = name.to_cow().ok()?;
            self.slot_of(&name)
        })
    }

    pub(crate) fn slot_of(&self, name: &str) -> Option<usize> {
        self.fields.iter().position(|field| field.name == name)
    }

    /// What fields outside the slots become: an object without a schema is open all the way down.
    fn other_kind(&self) -> Kind {
        if self.fields.is_empty() { Kind::Open } else { Kind::Plain }
    }
}

/// A record without a schema: log probabilities, audio, annotations.
pub(crate) static OPEN: Shape =
    Shape { name: "Record", fields: &[], make: |py, record| Py::new(py, record), names: PyOnceLock::new() };

/// The fields outside the slots, as the text of one JSON object; None if there are none.
pub(crate) type Others = Option<Arc<[u8]>>;

pub(crate) type Slots = [Option<Py<PyAny>>; SLOTS];

#[pyclass(frozen, subclass, mapping, module = "penstock._native")]
pub(crate) struct Record {
    shape: &'static Shape,
    fields: Fields,
    others_built: PyOnceLock<Py<PyDict>>,
}

enum Fields {
    Own(Box<Own>),
    /// Those of another record, but for one: how most chunks differ from the one before.
    Like {
        record: Py<Record>,
        slot: usize,
        value: Py<PyAny>,
    },
}

struct Own {
    /// None is absent; a present null is Python's None.
    slots: Slots,
    others: Others,
}

impl Record {
    pub(crate) fn new(shape: &'static Shape, slots: Slots, others: Others) -> Self {
        Self { shape, fields: Fields::Own(Box::new(Own { slots, others })), others_built: PyOnceLock::new() }
    }

    fn slot(&self, slot: usize) -> Option<&Py<PyAny>> {
        match &self.fields {
            Fields::Own(own) => own.slots.get(slot)?.as_ref(),
            Fields::Like { slot: other, value, .. } if *other == slot => Some(value),
            Fields::Like { record, .. } => record.get().slot(slot),
        }
    }

    fn others_text(&self) -> Option<&[u8]> {
        match &self.fields {
            Fields::Own(own) => own.others.as_deref(),
            Fields::Like { record, .. } => record.get().others_text(),
        }
    }

    pub(crate) fn from_mapping(shape: &'static Shape, fields: &Bound<'_, PyAny>) -> PyResult<Self> {
        let py = fields.py();
        let fields = fields.cast::<PyMapping>().map_err(|_| {
            let given = fields.get_type().name().map_or_else(|_| "?".to_owned(), |name| name.to_string());
            PyTypeError::new_err(format!("{} takes a mapping of its fields, not {given}", shape.name))
        })?;
        let mut record = Self::new(shape, [const { None }; SLOTS], None);
        let others = PyDict::new(py);
        for item in fields.items()?.try_iter()? {
            let (name, value): (Bound<'_, PyAny>, Bound<'_, PyAny>) = item?.extract()?;
            match shape.slot(&name) {
                Some(slot) => {
                    let kind = shape.fields.get(slot).map_or(Kind::Plain, |field| field.kind);
                    record.set(slot, of_kind(&value, kind)?.unbind());
                }
                None => others.set_item(name, of_kind(&value, shape.other_kind())?)?,
            }
        }
        if !others.is_empty() {
            record.others_built.get_or_init(py, || others.unbind());
        }
        Ok(record)
    }

    pub(crate) fn set(&mut self, slot: usize, value: Py<PyAny>) {
        if let Fields::Own(own) = &mut self.fields
            && let Some(place) = own.slots.get_mut(slot)
        {
            *place = Some(value);
        }
    }

    pub(crate) fn into_object(self, py: Python<'_>) -> PyResult<Py<Record>> {
        (self.shape.make)(py, self)
    }

    /// The same record with another value in one slot.
    pub(crate) fn with(slf: &Py<Self>, py: Python<'_>, slot: usize, value: Py<PyAny>) -> PyResult<Py<Self>> {
        let fields = Fields::Like { record: slf.clone_ref(py), slot, value };
        Self { shape: slf.get().shape, fields, others_built: PyOnceLock::new() }.into_object(py)
    }

    /// A known field; None if it is absent.
    pub(crate) fn field(&self, py: Python<'_>, slot: usize) -> Py<PyAny> {
        self.slot(slot).map_or_else(|| py.None(), |value| value.clone_ref(py))
    }

    fn others<'py>(&self, py: Python<'py>) -> PyResult<Option<&Bound<'py, PyDict>>> {
        if let Some(built) = self.others_built.get(py) {
            return Ok(Some(built.bind(py)));
        }
        let Some(text) = self.others_text() else {
            return Ok(None);
        };
        let built = json::build_dict(py, text, self.shape.other_kind())?;
        Ok(Some(self.others_built.get_or_init(py, || built.unbind()).bind(py)))
    }

    /// The present fields, as they are.
    fn present<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let dict = PyDict::new(py);
        for (slot, name) in self.shape.names(py).iter().enumerate() {
            if let Some(value) = self.slot(slot) {
                dict.set_item(name, value)?;
            }
        }
        if let Some(others) = self.others(py)? {
            dict.update(others.as_mapping())?;
        }
        Ok(dict)
    }

    pub(crate) fn plain<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let dict = self.present(py)?;
        for (name, value) in &dict.copy()? {
            dict.set_item(name, plain(&value)?)?;
        }
        Ok(dict)
    }

    /// The repr, with what the class has to add.
    pub(crate) fn shown(&self, py: Python<'_>, more: Option<String>) -> PyResult<String> {
        let mut fields = Vec::new();
        for (name, value) in self.present(py)? {
            fields.push(format!("{name}={}", short(&value)?));
        }
        fields.extend(more);
        Ok(format!("{}({})", self.shape.name, fields.join(", ")))
    }

    /// The field of this name, if it is present or known.
    fn find<'py>(&self, name: &Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let py = name.py();
        if let Some(slot) = self.shape.slot(name) {
            return Ok(Some(self.field(py, slot).into_bound(py)));
        }
        match self.others(py)? {
            Some(others) => others.get_item(name),
            None => Ok(None),
        }
    }
}

/// The repr of a value, of which a long text or list shows its beginning: it may be a whole answer, or a vector.
fn short(value: &Bound<'_, PyAny>) -> PyResult<String> {
    if value.is_instance_of::<PyString>() && value.len()? > SHOWN_TEXT {
        return Ok(format!("{}…", value.cast::<PySequence>()?.get_slice(0, SHOWN_TEXT)?.repr()?));
    }
    let mut items = Vec::new();
    let (open, close, length) = if let Ok(list) = value.cast::<PyList>() {
        for item in list.iter().take(SHOWN_ITEMS) {
            items.push(short(&item)?);
        }
        ('[', ']', list.len())
    } else if let Ok(dict) = value.cast::<PyDict>() {
        for (key, item) in dict.iter().take(SHOWN_ITEMS) {
            items.push(format!("{}: {}", short(&key)?, short(&item)?));
        }
        ('{', '}', dict.len())
    } else {
        return Ok(value.repr()?.to_string());
    };
    if length > items.len() {
        items.push("…".to_owned());
    }
    Ok(format!("{open}{}{close}", items.join(", ")))
}

/// Containers copied, records as dicts.
fn plain<'py>(value: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    let py = value.py();
    if let Ok(record) = value.cast::<Record>() {
        return Ok(record.get().plain(py)?.into_any());
    }
    if let Ok(list) = value.cast::<PyList>() {
        let items = list.iter().map(|item| plain(&item)).collect::<PyResult<Vec<_>>>()?;
        return Ok(PyList::new(py, items)?.into_any());
    }
    if let Ok(dict) = value.cast::<PyDict>() {
        let copy = PyDict::new(py);
        for (key, item) in dict {
            copy.set_item(key, plain(&item)?)?;
        }
        return Ok(copy.into_any());
    }
    Ok(value.clone())
}

/// Plain data as a field of this kind holds it.
fn of_kind<'py>(value: &Bound<'py, PyAny>, kind: Kind) -> PyResult<Bound<'py, PyAny>> {
    let py = value.py();
    let record = |shape: &'static Shape, value: &Bound<'py, PyAny>| {
        // What is one already stays it, with what it knows beyond its fields: where a usage comes from.
        let is_one = value.cast::<Record>().is_ok_and(|known| std::ptr::eq(known.get().shape, shape));
        if value.is_none() || is_one {
            return Ok(value.clone());
        }
        let record = Record::from_mapping(shape, value)?;
        Ok(record.into_object(py)?.into_bound(py).into_any())
    };
    let list = |each: &dyn Fn(&Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>>| {
        let items = value.try_iter()?.map(|item| each(&item?)).collect::<PyResult<Vec<_>>>()?;
        Ok(PyList::new(py, items)?.into_any())
    };
    match kind {
        Kind::Plain => plain(value),
        Kind::Record(shape) => record(shape, value),
        Kind::List(_) if value.is_none() => Ok(value.clone()),
        Kind::List(shape) => list(&|item| record(shape, item)),
        Kind::Open if value.is_instance_of::<PyDict>() || value.is_instance_of::<Record>() => record(&OPEN, value),
        Kind::Open if value.is_instance_of::<PyList>() => list(&|item| of_kind(item, Kind::Open)),
        Kind::Open => Ok(value.clone()),
    }
}

#[pymethods]
impl Record {
    #[new]
    #[pyo3(signature = (fields, /))]
    fn py_new(fields: &Bound<'_, PyAny>) -> PyResult<Self> {
        Self::from_mapping(&OPEN, fields)
    }

    fn __getitem__<'py>(&self, name: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        self.find(name)?.ok_or_else(|| PyKeyError::new_err(name.clone().unbind()))
    }

    /// Called for names that are no attributes of the class.
    fn __getattr__<'py>(&self, name: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        self.find(name)?
            .ok_or_else(|| PyAttributeError::new_err(format!("'{}' object has no attribute '{name}'", self.shape.name)))
    }

    fn __contains__(&self, name: &Bound<'_, PyAny>) -> PyResult<bool> {
        if let Some(slot) = self.shape.slot(name) {
            return Ok(self.slot(slot).is_some());
        }
        match self.others(name.py())? {
            Some(others) => others.contains(name),
            None => Ok(false),
        }
    }

    #[pyo3(signature = (name, default = None, /))]
    fn get<'py>(
        &self,
        name: &Bound<'py, PyAny>,
        default: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        if let Some(slot) = self.shape.slot(name) {
            return Ok(self.slot(slot).map(|value| value.bind(name.py()).clone()).or(default));
        }
        Ok(self.find(name)?.or(default))
    }

    fn __len__(&self, py: Python<'_>) -> PyResult<usize> {
        Ok(self.present(py)?.len())
    }

    fn __iter__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        Ok(self.present(py)?.as_any().try_iter()?.into_any())
    }

    fn keys<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.present(py)?.call_method0("keys")
    }

    fn values<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.present(py)?.call_method0("values")
    }

    fn items<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.present(py)?.call_method0("items")
    }

    fn __eq__<'py>(&self, other: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let py = other.py();
        if let Ok(other) = other.cast::<Record>() {
            return Ok(self.plain(py)?.eq(other.get().plain(py)?)?.into_pyobject(py)?.to_owned().into_any());
        }
        match other.cast::<PyMapping>() {
            Ok(other) => Ok(self.plain(py)?.eq(other)?.into_pyobject(py)?.to_owned().into_any()),
            Err(_) => Ok(py.NotImplemented().into_bound(py)),
        }
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        self.shown(py, None)
    }

    fn __copy__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    fn __deepcopy__<'py>(slf: &Bound<'py, Self>, _memo: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let (class, arguments): (Bound<'py, PyType>, Bound<'py, PyTuple>) =
            slf.call_method0("__reduce__")?.extract()?;
        class.call1(arguments)
    }

    fn __reduce__<'py>(slf: &Bound<'py, Self>) -> PyResult<(Bound<'py, PyType>, (Bound<'py, PyDict>,))> {
        Ok((slf.get_type(), (slf.get().plain(slf.py())?,)))
    }

    fn model_dump<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        self.plain(py)
    }

    fn to_dict<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        self.plain(py)
    }

    fn model_dump_json<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let options = PyDict::new(py);
        options.set_item("ensure_ascii", false)?;
        options.set_item("separators", (",", ":"))?;
        py.import("json")?.getattr("dumps")?.call((self.plain(py)?,), Some(&options))
    }
}
