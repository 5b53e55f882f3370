//! Git repositories over http as large hosts serve them: `git http-backend` behind a small server that may want a password.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::Stdio;
use std::sync::{Arc, Mutex};

use crate::env::TestEnv;

/// A running server. It ends with the test's process; nobody else knows its port.
pub(crate) struct SmartGit {
    port: u16,
    log: Arc<Mutex<Vec<String>>>,
    up: Arc<Mutex<bool>>,
}

/// What a connection needs to know.
struct Serving {
    backend: String,
    root: String,
    wanted: Option<String>,
    log: Arc<Mutex<Vec<String>>>,
}

/// A request as CGI has it.
#[derive(Default)]
struct Asked {
    method: String,
    path: String,
    query: String,
    kind: String,
    protocol: String,
    encoding: String,
    authorization: Option<String>,
    body: Vec<u8>,
}

impl SmartGit {
    /// Serves the repositories below a folder of the world; with `authorization` to those only who send exactly that.
    pub(crate) fn serve(env: &TestEnv, folder: &str, authorization: Option<&str>) -> Self {
        let programs = env.tool("git", &["--exec-path"]).ok().stdout;
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        let port = listener.local_addr().expect("address").port();
        let log = Arc::<Mutex<Vec<String>>>::default();
        let serving = Arc::new(Serving {
            backend: format!("{}/git-http-backend", programs.trim()),
            root: env.at(folder),
            wanted: authorization.map(str::to_owned),
            log: Arc::clone(&log),
        });
        let up = Arc::new(Mutex::new(true));
        let is_up = Arc::clone(&up);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let serving = Arc::clone(&serving);
                if *is_up.lock().expect("up") {
                    std::thread::spawn(move || {
                        // A client that goes away early is its own business.
                        answer(stream, &serving).unwrap_or_default();
                    });
                }
            }
        });
        Self { port, log, up }
    }

    /// `127.0.0.1:PORT`.
    pub(crate) fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The address of a repository that [`repository`](crate::repositories::repository) made.
    pub(crate) fn url(&self, name: &str) -> String {
        format!("http://{}/{name}/.git", self.host())
    }

    /// The paths that were asked for since the last call.
    pub(crate) fn asked(&self) -> Vec<String> {
        std::mem::take(&mut *self.log.lock().expect("log"))
    }

    /// From now on connections are dropped.
    pub(crate) fn go_down(&self) {
        *self.up.lock().expect("up") = false;
    }
}

fn answer(mut stream: TcpStream, serving: &Serving) -> std::io::Result<()> {
    let asked = read(&mut BufReader::new(stream.try_clone()?))?;
    serving.log.lock().expect("log").push(asked.path.clone());
    if serving.wanted.is_some() && asked.authorization != serving.wanted {
        return stream.write_all(
            b"HTTP/1.1 401 x\r\nConnection: close\r\nContent-Length: 0\r\nWWW-Authenticate: Basic realm=\"x\"\r\n\r\n",
        );
    }
    let mut child = std::process::Command::new(&serving.backend)
        .env("GIT_PROJECT_ROOT", &serving.root)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_COUNT", "1")
        .env("GIT_CONFIG_KEY_0", "safe.directory")
        .env("GIT_CONFIG_VALUE_0", "*")
        .env("REQUEST_METHOD", &asked.method)
        .env("PATH_INFO", &asked.path)
        .env("QUERY_STRING", &asked.query)
        .env("CONTENT_TYPE", &asked.kind)
        .env("CONTENT_LENGTH", asked.body.len().to_string())
        .env("GIT_PROTOCOL", &asked.protocol)
        .env("HTTP_CONTENT_ENCODING", &asked.encoding)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let mut stdin = child.stdin.take().expect("piped");
    let body = asked.body;
    let feeding = std::thread::spawn(move || stdin.write_all(&body));
    let output = child.wait_with_output()?;
    // A backend that has seen enough says the rest by its answer.
    feeding.join().expect("no panic").unwrap_or_default();
    let split = output.stdout.windows(4).position(|window| window == b"\r\n\r\n");
    let (head, body) = output.stdout.split_at(split.unwrap_or(0));
    let head = String::from_utf8_lossy(head);
    let status = head.lines().find_map(|line| line.strip_prefix("Status: "));
    let others: Vec<&str> = head.lines().filter(|line| !line.starts_with("Status: ")).collect();
    let body = body.get(4..).unwrap_or_default();
    write!(
        stream,
        "HTTP/1.1 {}\r\nConnection: close\r\nContent-Length: {}\r\n{}\r\n\r\n",
        status.unwrap_or("200 OK"),
        body.len(),
        others.join("\r\n")
    )?;
    stream.write_all(body)
}

fn read(reader: &mut BufReader<TcpStream>) -> std::io::Result<Asked> {
    let mut first = String::new();
    reader.read_line(&mut first)?;
    let mut words = first.split(' ');
    let mut asked = Asked {
        method: words.next().unwrap_or_default().to_owned(),
        ..Asked::default()
    };
    let target = words.next().unwrap_or("/");
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    (asked.path, asked.query) = (path.to_owned(), query.to_owned());
    let (mut length, mut is_chunked) = (0, false);
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim().split_once(": ") else {
            break;
        };
        let slot = match name.to_ascii_lowercase().as_str() {
            "content-type" => &mut asked.kind,
            "git-protocol" => &mut asked.protocol,
            "content-encoding" => &mut asked.encoding,
            "authorization" => asked.authorization.insert(String::new()),
            "content-length" => {
                length = value.parse().unwrap_or(0);
                continue;
            }
            "transfer-encoding" => {
                is_chunked = true;
                continue;
            }
            _ => continue,
        };
        value.clone_into(slot);
    }
    loop {
        if is_chunked {
            let mut line = String::new();
            reader.read_line(&mut line)?;
            length = usize::from_str_radix(line.trim(), 16).unwrap_or(0);
        }
        let start = asked.body.len();
        asked.body.resize(start + length, 0);
        reader.read_exact(&mut asked.body[start..])?;
        if !is_chunked || length == 0 {
            return Ok(asked);
        }
        // The end of the chunk's line.
        reader.read_line(&mut String::new())?;
    }
}
