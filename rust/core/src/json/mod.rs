//! JSON without a document: one cursor over a slice, ranges out. `Value` is for the cold paths only.

mod cursor;
mod text;
mod value;

pub use cursor::{Cursor, JsonError, Kind, Number};
pub use text::{Str, write_str};
pub use value::Value;

pub type Result<T> = std::result::Result<T, JsonError>;
