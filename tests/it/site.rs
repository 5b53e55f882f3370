//! A web server that answers as a test tells it to: any status and headers, bodies that break off, answers that never come.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// A request.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    /// The path and what follows it.
    pub(crate) path: String,
    /// By names in lower case.
    pub(crate) headers: BTreeMap<String, String>,
}

impl Asked {
    /// A header, or nothing.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }
}

/// How much of an answer is sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum End {
    /// All of it.
    #[default]
    Whole,
    /// The connection ends in the middle of the body.
    Torn,
    /// The same in the middle of a chunk.
    TornChunk,
    /// Nothing is sent, and the connection stays.
    Never,
}

/// An answer.
#[derive(Clone, Debug, Default)]
pub(crate) struct Answer {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
    end: End,
}

impl Answer {
    /// A status without more.
    pub(crate) fn status(status: u16) -> Self {
        Self {
            status,
            ..Self::default()
        }
    }

    /// A body.
    pub(crate) fn ok(body: impl Into<Vec<u8>>) -> Self {
        Self {
            body: body.into(),
            ..Self::status(200)
        }
    }

    /// Another place.
    pub(crate) fn moved(status: u16, to: &str) -> Self {
        Self::status(status).with("Location", to)
    }

    /// A body of which half arrives.
    pub(crate) fn torn(body: impl Into<Vec<u8>>) -> Self {
        Self {
            end: End::Torn,
            ..Self::ok(body)
        }
    }

    /// The same, without a length.
    pub(crate) fn torn_chunk(body: impl Into<Vec<u8>>) -> Self {
        Self {
            end: End::TornChunk,
            ..Self::ok(body)
        }
    }

    /// No answer at all.
    pub(crate) fn never() -> Self {
        Self {
            end: End::Never,
            ..Self::default()
        }
    }

    /// With a header.
    pub(crate) fn with(mut self, name: &'static str, value: &str) -> Self {
        self.headers.push((name, value.to_owned()));
        self
    }

    fn send(&self, stream: &mut TcpStream) -> std::io::Result<()> {
        if self.end == End::Never {
            // Until the client goes away.
            return std::io::copy(stream, &mut std::io::sink()).map(drop);
        }
        write!(stream, "HTTP/1.1 {} x\r\nConnection: close\r\n", self.status)?;
        for (name, value) in &self.headers {
            write!(stream, "{name}: {value}\r\n")?;
        }
        if self.end == End::TornChunk {
            write!(stream, "Transfer-Encoding: chunked\r\n\r\n{:x}\r\n", self.body.len())?;
        } else {
            write!(stream, "Content-Length: {}\r\n\r\n", self.body.len())?;
        }
        let sent = match self.end {
            End::Whole => self.body.len(),
            _ => self.body.len() / 2,
        };
        stream.write_all(&self.body[..sent])
    }
}

/// A running server. It ends with the test's process; nobody else knows its port.
pub(crate) struct Site {
    port: u16,
    log: Arc<Mutex<Vec<Asked>>>,
}

impl Site {
    /// Answers every request by `answer`.
    pub(crate) fn serve(answer: impl Fn(&Asked) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        let port = listener.local_addr().expect("address").port();
        let log = Arc::<Mutex<Vec<Asked>>>::default();
        let (seen, answer) = (Arc::clone(&log), Arc::new(answer));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (seen, answer) = (Arc::clone(&seen), Arc::clone(&answer));
                std::thread::spawn(move || {
                    // A client that goes away early is its own business.
                    talk(stream, &*answer, &seen).unwrap_or_default();
                });
            }
        });
        Self { port, log }
    }

    /// The address of a path.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    /// What was asked since the last call.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        std::mem::take(&mut *self.log.lock().expect("log"))
    }

    /// Whether a path was asked for, without forgetting it.
    pub(crate) fn was_asked_for(&self, path: &str) -> bool {
        self.log.lock().expect("log").iter().any(|asked| asked.path == path)
    }
}

fn talk(
    mut stream: TcpStream,
    answer: &(dyn Fn(&Asked) -> Answer + Send + Sync),
    log: &Mutex<Vec<Asked>>,
) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut first = String::new();
    reader.read_line(&mut first)?;
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim().split_once(": ") else {
            break;
        };
        headers.insert(name.to_ascii_lowercase(), value.to_owned());
    }
    let asked = Asked {
        path: first.split(' ').nth(1).unwrap_or("/").to_owned(),
        headers,
    };
    let answer = answer(&asked);
    log.lock().expect("log").push(asked);
    answer.send(&mut stream)
}
