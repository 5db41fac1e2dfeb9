use std::fmt::Display;
use std::io::Write as _;

use super::write_str;

/// Writes one JSON object.
pub(crate) struct Object<'o> {
    out: &'o mut Vec<u8>,
    first: bool,
}

impl<'o> Object<'o> {
    pub(crate) fn begin(out: &'o mut Vec<u8>) -> Self {
        out.push(b'{');
        Self { out, first: true }
    }

    /// Writes a key; its value is the caller's to append.
    pub(crate) fn key(&mut self, name: &str) -> &mut Vec<u8> {
        if !std::mem::take(&mut self.first) {
            self.out.push(b',');
        }
        write_str(self.out, name);
        self.out.push(b':');
        self.out
    }

    pub(crate) fn text(&mut self, name: &str, text: &str) {
        write_str(self.key(name), text);
    }

    pub(crate) fn nullable(&mut self, name: &str, text: Option<&str>) {
        match text {
            Some(text) => self.text(name, text),
            None => self.null(name),
        }
    }

    pub(crate) fn null(&mut self, name: &str) {
        self.key(name).extend_from_slice(b"null");
    }

    pub(crate) fn number(&mut self, name: &str, number: impl Display) {
        // Writing into memory cannot fail.
        let _ = write!(self.key(name), "{number}");
    }

    pub(crate) fn list<T>(
        &mut self,
        name: &str,
        items: impl IntoIterator<Item = T>,
        mut write: impl FnMut(T, &mut Vec<u8>),
    ) {
        let list = self.key(name);
        list.push(b'[');
        for (place, item) in items.into_iter().enumerate() {
            if place > 0 {
                list.push(b',');
            }
            write(item, list);
        }
        list.push(b']');
    }

    pub(crate) fn end(self) {
        self.out.push(b'}');
    }
}
