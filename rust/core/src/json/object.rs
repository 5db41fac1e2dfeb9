use itoa::{Buffer, Integer};

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

    /// Goes on with an object that has fields already.
    pub(crate) fn resume(out: &'o mut Vec<u8>) -> Self {
        Self { out, first: false }
    }

    /// Writes a key that needs no escapes; its value is the caller's to append.
    pub(crate) fn key(&mut self, name: &'static str) -> &mut Vec<u8> {
        self.comma();
        self.out.push(b'"');
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b"\":");
        self.out
    }

    /// The same for a key that somebody else named.
    pub(crate) fn given(&mut self, name: &str) -> &mut Vec<u8> {
        self.comma();
        write_str(self.out, name);
        self.out.push(b':');
        self.out
    }

    fn comma(&mut self) {
        if !std::mem::take(&mut self.first) {
            self.out.push(b',');
        }
    }

    pub(crate) fn text(&mut self, name: &'static str, text: &str) {
        write_str(self.key(name), text);
    }

    pub(crate) fn nullable(&mut self, name: &'static str, text: Option<&str>) {
        match text {
            Some(text) => self.text(name, text),
            None => self.null(name),
        }
    }

    pub(crate) fn null(&mut self, name: &'static str) {
        self.key(name).extend_from_slice(b"null");
    }

    pub(crate) fn number(&mut self, name: &'static str, number: impl Integer) {
        self.key(name).extend_from_slice(Buffer::new().format(number).as_bytes());
    }

    pub(crate) fn list<T>(
        &mut self,
        name: &'static str,
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
