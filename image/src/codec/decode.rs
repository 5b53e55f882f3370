//! A reader that decompresses whatever it recognises.

use std::io::{self, BufRead, BufReader, Read};

use flate2::bufread::MultiGzDecoder;

use super::Compression;

/// Bytes read from the source at once.
const BUFFER: usize = 128 << 10;

/// Decompresses a stream recognised by its first bytes; gzip members and zstd frames may follow one another.
pub struct Decoder<R: Read>(Kind<R>);

enum Kind<R: Read> {
    None(BufReader<R>),
    Gzip(Box<MultiGzDecoder<BufReader<R>>>),
    Zstd(Box<zstd::stream::read::Decoder<'static, BufReader<R>>>),
}

impl<R: Read> Decoder<R> {
    /// Looks at the first bytes and sets the decoder up.
    ///
    /// # Errors
    /// What reading says.
    pub fn new(source: R) -> io::Result<Self> {
        let mut source = BufReader::with_capacity(BUFFER, source);
        let head = source.fill_buf()?;
        let head = &head[..head.len().min(4)];
        Ok(Self(match Compression::detect(head) {
            Compression::None => Kind::None(source),
            Compression::Gzip => Kind::Gzip(Box::new(MultiGzDecoder::new(source))),
            Compression::Zstd => Kind::Zstd(Box::new(zstd::stream::read::Decoder::with_buffer(source)?)),
        }))
    }

    /// What was recognised.
    pub fn compression(&self) -> Compression {
        match &self.0 {
            Kind::None(_) => Compression::None,
            Kind::Gzip(_) => Compression::Gzip,
            Kind::Zstd(_) => Compression::Zstd,
        }
    }
}

impl<R: Read> Read for Decoder<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.0 {
            Kind::None(source) => source.read(buffer),
            Kind::Gzip(source) => source.read(buffer),
            Kind::Zstd(source) => source.read(buffer),
        }
    }
}

impl<R: Read> std::fmt::Debug for Decoder<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Decoder").field(&self.compression()).finish()
    }
}
