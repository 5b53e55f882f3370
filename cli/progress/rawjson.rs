//! One JSON object a line: BuildKit's `SolveStatus`, as `--progress=rawjson` prints it.

use std::collections::HashMap;
use std::io::Write;
use std::time::SystemTime;

use cbs_solver::llb::VertexDigest;
use cbs_solver::{Event, Outcome};
use serde_json::{Map, Value, json};

use super::{Renderer, emit};

/// The renderer; keeps each vertex's record, since BuildKit repeats it whole with every change.
pub(super) struct RawJson<W> {
    out: W,
    vertices: HashMap<VertexDigest, Map<String, Value>>,
}

impl<W: Write> RawJson<W> {
    pub(super) fn new(out: W) -> Self {
        Self {
            out,
            vertices: HashMap::new(),
        }
    }

    fn vertex(&mut self, vertex: VertexDigest, changes: impl IntoIterator<Item = (&'static str, Value)>) {
        let record = self.vertices.entry(vertex).or_default();
        record.insert("digest".into(), vertex.to_string().into());
        for (name, value) in changes {
            record.insert(name.into(), value);
        }
        emit(&mut self.out, &json!({ "vertexes": [record] }).to_string());
    }
}

impl<W: Write + Send> Renderer for RawJson<W> {
    fn event(&mut self, event: Event) {
        match event {
            Event::Added(added) => {
                let inputs: Vec<String> = added.inputs.iter().map(ToString::to_string).collect();
                let mut fields = vec![("name", Value::from(added.name))];
                if !inputs.is_empty() {
                    fields.push(("inputs", inputs.into()));
                }
                if let Some(group) = added.group {
                    fields.push((
                        "progressGroup",
                        json!({ "id": group.id, "name": group.name, "weak": group.weak }),
                    ));
                }
                self.vertex(added.vertex, fields);
            }
            Event::Started { vertex, time } => self.vertex(vertex, [("started", rfc3339(time).into())]),
            Event::Ended { vertex, time, outcome } => {
                let mut fields = vec![("completed", rfc3339(time).into())];
                match outcome {
                    Outcome::Ran => {}
                    Outcome::Cached => fields.push(("cached", true.into())),
                    Outcome::Failed(message) => fields.push(("error", message.into())),
                    Outcome::Cancelled => fields.push(("error", "context canceled".into())),
                }
                self.vertex(vertex, fields);
            }
            Event::Status(status) => {
                let mut record = json!({
                    "id": status.id, "vertex": status.vertex.to_string(), "current": status.current,
                    "timestamp": rfc3339(status.completed.unwrap_or(status.started)), "started": rfc3339(status.started),
                });
                if status.total > 0 {
                    record["total"] = status.total.into();
                }
                if let Some(completed) = status.completed {
                    record["completed"] = rfc3339(completed).into();
                }
                emit(&mut self.out, &json!({ "statuses": [record] }).to_string());
            }
            Event::Log {
                vertex,
                time,
                stream,
                bytes,
            } => {
                let record = json!({
                    "vertex": vertex.to_string(), "stream": stream.number(), "data": base64(&bytes),
                    "timestamp": rfc3339(time),
                });
                emit(&mut self.out, &json!({ "logs": [record] }).to_string());
            }
            Event::Warning(warning) => {
                let detail: Vec<String> = warning.detail.iter().map(|line| base64(line.as_bytes())).collect();
                let record = json!({
                    "vertex": warning.vertex.to_string(), "level": 1, "short": base64(warning.short.as_bytes()),
                    "detail": detail, "url": warning.url,
                });
                emit(&mut self.out, &json!({ "warnings": [record] }).to_string());
            }
            Event::LogDropped { .. } => {}
        }
    }

    fn finish(&mut self) {
        self.out.flush().unwrap_or_default();
    }
}

/// A time as Go's `encoding/json` writes it.
pub(crate) fn rfc3339(time: SystemTime) -> String {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let seconds = i64::try_from(since.as_secs()).unwrap_or(i64::MAX);
    let text = cbs_image::config::format_timestamp(seconds).unwrap_or_default();
    format!("{}.{:09}Z", text.trim_end_matches('Z'), since.subsec_nanos())
}

/// Standard base64 with padding.
pub(crate) fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let group = u32::from(chunk[0]) << 16
            | u32::from(chunk.get(1).copied().unwrap_or(0)) << 8
            | u32::from(chunk.get(2).copied().unwrap_or(0));
        for place in 0..4 {
            if place <= chunk.len() {
                text.push(char::from(ALPHABET[(group >> (18 - 6 * place) & 63) as usize]));
            } else {
                text.push('=');
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_as_rfc_4648() {
        for (bytes, text) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
        ] {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
    }
}
