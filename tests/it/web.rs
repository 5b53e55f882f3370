//! A small web server over a folder: ETags, an optional password, and a log of what it was asked.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

/// A running server. It ends with the test's process; nobody else knows its port.
pub(crate) struct Web {
    port: u16,
    log: Arc<Mutex<Vec<String>>>,
    up: Arc<Mutex<bool>>,
}

impl Web {
    /// Serves a folder; with `authorization`, to those only who send exactly that.
    pub(crate) fn serve(folder: PathBuf, authorization: Option<&str>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        let port = listener.local_addr().expect("address").port();
        let (log, up) = (Arc::<Mutex<Vec<String>>>::default(), Arc::new(Mutex::new(true)));
        let (log_of, up_of, wanted) = (log.clone(), up.clone(), authorization.map(str::to_owned));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if *up_of.lock().expect("up") {
                    // A client that goes away early is its own business.
                    answer(stream, &folder, wanted.as_deref(), &log_of).unwrap_or_default();
                }
            }
        });
        Self { port, log, up }
    }

    /// `http://127.0.0.1:PORT`.
    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// What was asked since the last call: `GET /path 200`, with ` if-none-match` behind it when that was sent.
    pub(crate) fn asked(&self) -> Vec<String> {
        std::mem::take(&mut *self.log.lock().expect("log"))
    }

    /// From now on connections are dropped.
    pub(crate) fn go_down(&self) {
        *self.up.lock().expect("up") = false;
    }
}

fn answer(stream: TcpStream, folder: &Path, wanted: Option<&str>, log: &Mutex<Vec<String>>) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut first = String::new();
    reader.read_line(&mut first)?;
    let (mut given, mut known) = (None, None);
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim().split_once(": ") else {
            break;
        };
        match name.to_ascii_lowercase().as_str() {
            "authorization" => given = Some(value.to_owned()),
            "if-none-match" => known = Some(value.to_owned()),
            _ => {}
        }
    }
    let target = first.split(' ').nth(1).unwrap_or("/");
    let path = target.split('?').next().unwrap_or("/");
    let found = fs::read(folder.join(path.trim_start_matches('/')));
    let (status, body, tag) = match (found, wanted) {
        (_, Some(wanted)) if given.as_deref() != Some(wanted) => (401, Vec::new(), String::new()),
        (Err(_), _) => (404, b"no such file\n".to_vec(), String::new()),
        (Ok(body), _) => {
            let sum = body
                .iter()
                .fold(7_u64, |sum, &byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
            let tag = format!("\"{sum:x}\"");
            match known.as_deref() == Some(&tag) {
                true => (304, Vec::new(), tag),
                false => (200, body, tag),
            }
        }
    };
    let revalidates = if known.is_some() { " if-none-match" } else { "" };
    log.lock()
        .expect("log")
        .push(format!("GET {target} {status}{revalidates}"));
    let mut stream = stream;
    write!(
        stream,
        "HTTP/1.1 {status} x\r\nConnection: close\r\nContent-Length: {}\r\nETag: {tag}\r\n",
        body.len()
    )?;
    if status == 401 {
        stream.write_all(b"WWW-Authenticate: Basic realm=\"x\"\r\n")?;
    }
    stream.write_all(b"\r\n")?;
    stream.write_all(&body)
}
