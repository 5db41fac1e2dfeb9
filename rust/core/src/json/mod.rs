//! JSON without a document: one cursor over a slice, ranges out. `Value` is for the cold paths only.

mod cursor;
mod object;
mod text;
mod value;

pub use cursor::{Cursor, JsonError, Kind, Number};
pub(crate) use object::Object;
pub use text::{Str, write_str};
pub(crate) use text::{escape, write_json};
pub use value::Value;

pub type Result<T> = std::result::Result<T, JsonError>;
