//! Decodes a file as a stream, again and again, for `make callgrind` to count the instructions of.
//!
//! Usage: `decode FILE READ_SIZE PASSES [FAMILY]`; a read size of 0 cuts after each event, the family is chat.

use std::env;
use std::error::Error;
use std::fs;

use penstock_core::chunk::{Chunk, Field, Head, Text};
use penstock_core::decoder::{Decoder, Dialect, Family, Options};
use penstock_core::stream::{Part, Sink};

/// Reads what most callers read.
#[derive(Default)]
struct Length(usize);

impl Sink for Length {
    fn chunk(&mut self, chunk: &Chunk<'_>) {
        for choice in &chunk.choices {
            if let Field::Value(text) = &choice.delta.content {
                self.again(Part::Content, text);
            }
        }
    }

    fn again(&mut self, _: Part, text: &Text<'_>) {
        self.0 += text.decode().len();
    }
}

fn reads(body: &[u8], size: usize) -> Vec<&[u8]> {
    if size > 0 {
        return body.chunks(size).collect();
    }
    let mut found = Vec::new();
    let mut rest = body;
    while let Some(end) = rest.windows(2).position(|pair| pair == b"\n\n") {
        let (event, after) = rest.split_at(end + 2);
        found.push(event);
        rest = after;
    }
    found
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let (file, size, passes, family) = match arguments.as_slice() {
        [file, size, passes] => (file, size, passes, "chat"),
        [file, size, passes, family] => (file, size, passes, family.as_str()),
        _ => return Err("usage: decode FILE READ_SIZE PASSES [FAMILY]".into()),
    };
    let family: Family = family.parse().map_err(|()| "no such family")?;
    let body = fs::read(file)?;
    let reads = reads(&body, size.parse()?);
    let mut length = Length::default();
    for _ in 0..passes.parse()? {
        let mut decoder = Decoder::new(
            family,
            Options {
                dialect: Dialect::default(),
                include_usage: true,
                max_event_size: 16 << 20,
                keep: false,
                fallback: Head { id: String::new(), created: 0, model: String::new() },
                answer_tool: None,
            },
        );
        for read in &reads {
            decoder.feed(read, &mut length).map_err(|error| error.message)?;
        }
        decoder.finish(&mut length).map_err(|error| error.message)?;
    }
    println!("{}", length.0);
    Ok(())
}
