//! Content codings undone: gzip, deflate, br, zstd.

use std::io::Write;

use brotli_decompressor::DecompressorWriter;
use flate2::write::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};
use ruzstd::decoding::FrameDecoder;

use crate::error::{Error, Kind};

/// What a request may ask for.
pub(crate) const ACCEPTED: &str = "gzip, deflate, br, zstd";

/// Bytes that are decoded at once: a bomb of a thousand to one then makes 4 MiB at a time.
const STEP: usize = 4 << 10;

/// The longest header of a zstd frame.
const ZSTD_HEADER: usize = 18;
/// RFC 9659: nobody may ask for more in HTTP.
const ZSTD_WINDOW: u64 = 8 << 20;

pub(crate) struct Coding {
    name: String,
    kind: Decoder,
    /// Whether anything came: no body at all is no broken one.
    begun: bool,
}

enum Decoder {
    Gzip(Box<MultiGzDecoder<Vec<u8>>>),
    /// "deflate" is zlib by the RFC and bare deflate by some servers: the first byte tells.
    Deflate(Option<Box<Inflate>>),
    Brotli(Box<DecompressorWriter<Vec<u8>>>),
    Zstd(Box<Zstd>),
}

enum Inflate {
    Zlib(ZlibDecoder<Vec<u8>>),
    Bare(DeflateDecoder<Vec<u8>>),
}

impl Coding {
    /// For the value of `content-encoding`; None where the bytes are as they are.
    pub(crate) fn of(names: &str) -> Result<Option<Self>, Error> {
        let mut codings = names.split(',').map(str::trim).filter(|name| !name.is_empty() && *name != "identity");
        let Some(name) = codings.next().map(str::to_ascii_lowercase) else { return Ok(None) };
        let kind = match name.as_str() {
            "gzip" | "x-gzip" => Decoder::Gzip(Box::new(MultiGzDecoder::new(Vec::new()))),
            "deflate" => Decoder::Deflate(None),
            "br" => Decoder::Brotli(Box::new(DecompressorWriter::new(Vec::new(), STEP))),
            "zstd" => Decoder::Zstd(Box::default()),
            _ => return Err(Error::new(Kind::Coding, format!("content-encoding {names:?} is none of {ACCEPTED}"))),
        };
        if codings.next().is_some() {
            return Err(Error::new(Kind::Coding, format!("content-encoding {names:?}: one coding at a time")));
        }
        Ok(Some(Self { name, kind, begun: false }))
    }

    /// Decodes from the front of `coded` onto `plain`, and tells how many bytes that took.
    pub(crate) fn decode(&mut self, coded: &[u8], plain: &mut Vec<u8>) -> Result<usize, Error> {
        let step = coded.get(..STEP).unwrap_or(coded);
        self.begun |= !step.is_empty();
        let outcome = match &mut self.kind {
            Decoder::Gzip(decoder) => push(&mut **decoder, step, plain, |decoder| decoder.get_mut()),
            Decoder::Deflate(decoder) => {
                let Some(first) = step.first() else { return Ok(0) };
                let decoder = decoder.get_or_insert_with(|| {
                    let zlib = first & 0x0f == 8;
                    Box::new(if zlib {
                        Inflate::Zlib(ZlibDecoder::new(Vec::new()))
                    } else {
                        Inflate::Bare(DeflateDecoder::new(Vec::new()))
                    })
                });
                match &mut **decoder {
                    Inflate::Zlib(decoder) => push(decoder, step, plain, |decoder| decoder.get_mut()),
                    Inflate::Bare(decoder) => push(decoder, step, plain, |decoder| decoder.get_mut()),
                }
            }
            Decoder::Brotli(decoder) => push(&mut **decoder, step, plain, |decoder| decoder.get_mut()),
            Decoder::Zstd(decoder) => decoder.push(step, plain),
        };
        outcome.map_err(|reason| self.broken(&reason))?;
        Ok(step.len())
    }

    /// At the end of the body.
    pub(crate) fn finish(&mut self) -> Result<(), Error> {
        let whole = match &mut self.kind {
            _ if !self.begun => true,
            Decoder::Gzip(decoder) => decoder.try_finish().is_ok(),
            Decoder::Deflate(Some(decoder)) => match &mut **decoder {
                Inflate::Zlib(decoder) => decoder.try_finish().is_ok(),
                Inflate::Bare(decoder) => decoder.try_finish().is_ok(),
            },
            Decoder::Deflate(None) => true,
            Decoder::Brotli(decoder) => decoder.close().is_ok(),
            Decoder::Zstd(decoder) => decoder.is_whole(),
        };
        if whole { Ok(()) } else { Err(self.broken("it ends in the middle")) }
    }

    fn broken(&self, reason: &str) -> Error {
        Error::new(Kind::Coding, format!("{}: {reason}", self.name))
    }
}

/// Pushes through one of the writers that decode.
fn push<W: Write>(
    writer: &mut W,
    coded: &[u8],
    plain: &mut Vec<u8>,
    inner: impl Fn(&mut W) -> &mut Vec<u8>,
) -> Result<(), String> {
    writer.write_all(coded).and_then(|()| writer.flush()).map_err(|error| error.to_string())?;
    plain.append(inner(writer));
    Ok(())
}

/// Whole blocks only, and what the window may still need is held back to the frame's end: for bodies that are read
/// whole. No stream asks for it.
#[derive(Default)]
struct Zstd {
    frame: Option<FrameDecoder>,
    carry: Vec<u8>,
}

impl Zstd {
    fn push(&mut self, coded: &[u8], plain: &mut Vec<u8>) -> Result<(), String> {
        self.carry.extend_from_slice(coded);
        let mut room = vec![0; 64 << 10];
        loop {
            let frame = match &mut self.frame {
                Some(frame) => frame,
                none => {
                    if self.carry.is_empty() {
                        return Ok(());
                    }
                    let mut frame = FrameDecoder::new();
                    frame.set_max_window_size(ZSTD_WINDOW);
                    let mut rest = self.carry.as_slice();
                    match frame.init(&mut rest) {
                        Ok(()) => {}
                        Err(_) if self.carry.len() < ZSTD_HEADER => return Ok(()),
                        Err(error) => return Err(error.to_string()),
                    }
                    let used = self.carry.len() - rest.len();
                    self.carry.drain(..used);
                    none.insert(frame)
                }
            };
            let (used, written) = frame.decode_from_to(&self.carry, &mut room).map_err(|error| error.to_string())?;
            if used > self.carry.len() {
                return Ok(()); // the checksum is not all there
            }
            self.carry.drain(..used);
            plain.extend_from_slice(room.get(..written).unwrap_or_default());
            if frame.is_finished() && frame.can_collect() == 0 {
                self.frame = None;
            } else if used == 0 && written == 0 {
                return Ok(());
            }
        }
    }

    fn is_whole(&self) -> bool {
        self.frame.is_none() && self.carry.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::Compression;
    use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};

    fn plain() -> Vec<u8> {
        (0..30_000u32).flat_map(|number| (number % 700).to_le_bytes()).collect()
    }

    fn coded() -> Vec<(&'static str, Vec<u8>)> {
        let data = plain();
        let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
        let mut zlib = ZlibEncoder::new(Vec::new(), Compression::fast());
        let mut bare = DeflateEncoder::new(Vec::new(), Compression::fast());
        gzip.write_all(&data).unwrap();
        zlib.write_all(&data).unwrap();
        bare.write_all(&data).unwrap();
        let zstd = ruzstd::encoding::compress_to_vec(&data[..], ruzstd::encoding::CompressionLevel::Fastest);
        vec![
            ("gzip", gzip.finish().unwrap()),
            ("deflate", zlib.finish().unwrap()),
            ("deflate", bare.finish().unwrap()),
            ("zstd", zstd),
        ]
    }

    fn decode(name: &str, coded: &[u8], size: usize) -> Result<Vec<u8>, Error> {
        let mut coding = Coding::of(name)?.unwrap();
        let mut plain = Vec::new();
        for mut piece in coded.chunks(size) {
            while !piece.is_empty() {
                let used = coding.decode(piece, &mut plain)?;
                piece = &piece[used..];
            }
        }
        coding.finish()?;
        Ok(plain)
    }

    #[test]
    fn every_coding_however_it_is_cut() {
        for (name, coded) in coded() {
            for size in [1, 7, 5000, coded.len()] {
                assert!(decode(name, &coded, size).unwrap() == plain(), "{name} by {size}");
            }
            let cut = decode(name, &coded[..coded.len() / 2], 100).unwrap_err();
            assert_eq!(cut.kind, Kind::Coding, "{name}");
            assert!(decode(name, b"this is no such thing, whatever its head says", 100).is_err(), "{name}");
        }
    }

    #[test]
    fn brotli() {
        // An uncompressed metablock: header, "Hello", the end.
        let hello = [0x0b, 0x02, 0x80, b'H', b'e', b'l', b'l', b'o', 0x03];
        for size in [1, 9] {
            assert_eq!(decode("br", &hello, size).unwrap(), b"Hello");
        }
        assert!(decode("br", &hello[..6], 2).is_err());
    }

    #[test]
    fn identity_is_no_coding_and_strangers_are_refused() {
        assert!(Coding::of("identity").unwrap().is_none());
        assert!(Coding::of("").unwrap().is_none());
        assert!(Coding::of("rot13").is_err());
        assert!(Coding::of("gzip, br").is_err());
        assert!(Coding::of("gzip").unwrap().unwrap().finish().is_ok());
    }
}
