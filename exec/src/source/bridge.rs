//! From async bytes to a blocking reader: how a download reaches the store's blocking code without being held whole.

use std::io::{self, Read};

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use tokio::sync::mpsc;

/// Chunks in flight between network and disk.
const QUEUE: usize = 16;

/// The reading end; blocks until the next chunk is there.
#[derive(Debug)]
pub(crate) struct ChunkReader {
    chunks: mpsc::Receiver<io::Result<Bytes>>,
    current: Bytes,
}

/// The sending end.
pub(crate) type ChunkSender = mpsc::Sender<io::Result<Bytes>>;

/// A connected pair.
pub(crate) fn chunk_channel() -> (ChunkSender, ChunkReader) {
    let (sender, chunks) = mpsc::channel(QUEUE);
    (
        sender,
        ChunkReader {
            chunks,
            current: Bytes::new(),
        },
    )
}

/// Moves a stream into the channel. Ends early when the reader is gone.
///
/// # Errors
/// That of the stream; the reader has an error, too, but does not know why.
pub(crate) async fn pump<E>(stream: impl Stream<Item = Result<Bytes, E>>, sender: ChunkSender) -> Result<(), E> {
    let mut stream = std::pin::pin!(stream);
    while let Some(chunk) = stream.next().await {
        let (chunk, failure) = match chunk {
            Ok(chunk) => (Ok(chunk), None),
            Err(err) => (Err(io::ErrorKind::UnexpectedEof.into()), Some(err)),
        };
        let is_gone = sender.send(chunk).await.is_err();
        match failure {
            Some(err) => return Err(err),
            None if is_gone => return Ok(()),
            None => {}
        }
    }
    Ok(())
}

impl Read for ChunkReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            match self.chunks.blocking_recv() {
                None => return Ok(0),
                Some(chunk) => self.current = chunk?,
            }
        }
        let count = buffer.len().min(self.current.len());
        buffer[..count].copy_from_slice(&self.current.split_to(count));
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_arrive_in_order_and_errors_end_the_stream() {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .build()
            .expect("runtime");
        let (sender, mut reader) = chunk_channel();
        let chunks = [
            Ok(Bytes::from_static(b"ab")),
            Ok(Bytes::new()),
            Ok(Bytes::from_static(b"c")),
        ];
        runtime.spawn(pump::<io::Error>(futures_util::stream::iter(chunks), sender));
        let mut text = String::new();
        reader.read_to_string(&mut text).expect("read");
        assert_eq!(text, "abc");

        let (sender, mut reader) = chunk_channel();
        let chunks = [Ok(Bytes::from_static(b"ab")), Err(io::Error::other("torn"))];
        runtime.spawn(pump(futures_util::stream::iter(chunks), sender));
        assert!(reader.read_to_string(&mut String::new()).is_err());
    }
}
