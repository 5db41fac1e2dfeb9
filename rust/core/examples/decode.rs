//! Decodes a file as a stream, again and again, for `make callgrind` to count the instructions of.
//!
//! Usage: `decode FILE READ_SIZE PASSES [FAMILY [WRITER]]`; a read size of 0 cuts after each event, the family is chat.
//! A writer (chat, messages) writes what was decoded as a stream of its own, and its bytes are taken after each read.

use std::env;
use std::error::Error;
use std::fs;

use penstock_core::chunk::{Chunk, Field, Head, Text};
use penstock_core::decoder::{Decoder, Dialect, Family, Options};
use penstock_core::stream::{Part, Sink};
use penstock_core::write::{ChatWriter, MessagesWriter, Writer};

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

/// What is done after each read; gives the bytes that came out of it.
trait Taken {
    fn taken(&mut self) -> usize;
}

impl Taken for Length {
    fn taken(&mut self) -> usize {
        std::mem::take(&mut self.0)
    }
}

impl Taken for Writer {
    fn taken(&mut self) -> usize {
        self.take().len()
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

fn run<S: Sink + Taken>(
    family: Family,
    reads: &[&[u8]],
    passes: usize,
    mut sink: impl FnMut() -> S,
) -> Result<usize, Box<dyn Error>> {
    let mut total = 0;
    for _ in 0..passes {
        let mut sink = sink();
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
        for read in reads {
            decoder.feed(read, &mut sink).map_err(|error| error.message)?;
            total += sink.taken();
        }
        decoder.finish(&mut sink).map_err(|error| error.message)?;
        total += sink.taken();
    }
    Ok(total)
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let [file, size, passes, options @ ..] = arguments.as_slice() else {
        return Err("usage: decode FILE READ_SIZE PASSES [FAMILY [WRITER]]".into());
    };
    let (family, writer) = match options {
        [] => ("chat", ""),
        [family] => (*family, ""),
        [family, writer, ..] => (*family, *writer),
    };
    let family: Family = family.parse().map_err(|()| "no such family")?;
    let body = fs::read(file)?;
    let (reads, passes) = (reads(&body, size.parse()?), passes.parse()?);
    let total = match writer {
        "" => run(family, &reads, passes, Length::default),
        "chat" => run(family, &reads, passes, || Writer::Chat(ChatWriter::new(Some("alias".into())))),
        "messages" => run(family, &reads, passes, || Writer::Messages(MessagesWriter::new(Some("alias".into())))),
        _ => return Err("no such writer".into()),
    }?;
    println!("{total}");
    Ok(())
}
