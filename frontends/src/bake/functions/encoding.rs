//! Text encodings, JSON and UUIDs.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha1::{Digest as _, Sha1};

use super::{CallError, CallResult, Environment, Function, function, text};
use crate::bake::value::{Value, implied_from_json, to_json};

pub(super) const FUNCTIONS: &[Function] = &[
    function!("base64decode", [("str", String)], |_, args| {
        let bytes = decode_base64(text(&args[0]))?;
        match std::str::from_utf8(&bytes) {
            Ok(decoded) => Ok(Value::string(decoded)),
            Err(_) => Err(CallError::from("the decoded bytes are not UTF-8 text")),
        }
    }),
    function!("base64encode", [("str", String)], |_, args| Ok(Value::string(
        &STANDARD.encode(text(&args[0]))
    ))),
    function!("jsondecode", [("str", String)], |environment, args| {
        environment.charge(text(&args[0]).len() * 8)?;
        implied_from_json(text(&args[0])).map_err(|error| CallError::Argument(0, error.to_string()))
    }),
    function!("jsonencode", [("val", AnyOrNull)], |environment, args| {
        let encoded = to_json(&args[0]).map_err(|error| CallError::Argument(0, error.to_string()))?;
        environment.charge(encoded.len())?;
        Ok(Value::string(&encoded))
    }),
    function!("urlencode", [("str", String)], |_, args| Ok(Value::string(&urlencode(
        text(&args[0])
    )))),
    function!("uuidv4", [], |environment, _| {
        let mut bytes = [0; 16];
        (environment.random)(&mut bytes);
        Ok(Value::string(&uuid(bytes, 4)))
    }),
    function!("uuidv5", [("namespace", String), ("name", String)], uuidv5),
];

pub(super) fn decode_base64(encoded: &str) -> Result<Vec<u8>, CallError> {
    let plain: String = encoded.chars().filter(|char| !matches!(char, '\r' | '\n')).collect();
    STANDARD
        .decode(plain)
        .map_err(|error| CallError::Argument(0, format!("{encoded:?} is no base64: {error}")))
}

/// As in the query of a URL: a blank becomes a plus sign.
fn urlencode(source: &str) -> String {
    let mut encoded = String::with_capacity(source.len());
    for byte in source.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => encoded.push(char::from(byte)),
            b' ' => encoded.push('+'),
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

fn uuid(mut bytes: [u8; 16], version: u8) -> String {
    bytes[6] = (bytes[6] & 0x0f) | (version << 4);
    bytes[8] = (bytes[8] & 0x3f) | 0x80;
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!(
        "{}-{}-{}-{}-{}",
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..]
    )
}

fn uuidv5(_: &Environment<'_>, args: &[Value]) -> CallResult {
    let name = match text(&args[0]) {
        "dns" => "6ba7b810-9dad-11d1-80b4-00c04fd430c8",
        "url" => "6ba7b811-9dad-11d1-80b4-00c04fd430c8",
        "oid" => "6ba7b812-9dad-11d1-80b4-00c04fd430c8",
        "x500" => "6ba7b814-9dad-11d1-80b4-00c04fd430c8",
        other => other,
    };
    let Some(namespace) = parse_uuid(name) else {
        let message = format!("namespace {name:?} is neither dns, url, oid, x500 nor a UUID");
        return Err(CallError::Argument(0, message));
    };
    let digest = Sha1::new()
        .chain_update(namespace)
        .chain_update(text(&args[1]))
        .finalize();
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest[..16]);
    Ok(Value::string(&uuid(bytes, 5)))
}

/// The usual form, also in braces, behind `urn:uuid:`, or without dashes.
fn parse_uuid(text: &str) -> Option<[u8; 16]> {
    let text = match text.len() {
        45 => text
            .get(..9)
            .filter(|prefix| prefix.eq_ignore_ascii_case("urn:uuid:"))
            .and(text.get(9..))?,
        38 => text.get(1..37)?,
        _ => text,
    };
    let hex: String = match text.len() {
        36 => {
            let dashes_fit = text
                .char_indices()
                .all(|(at, char)| (char == '-') == matches!(at, 8 | 13 | 18 | 23));
            dashes_fit.then(|| text.replace('-', ""))?
        }
        32 => String::from(text),
        _ => return None,
    };
    let mut bytes = [0; 16];
    for (index, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(hex.get(index * 2..index * 2 + 2)?, 16).ok()?;
    }
    Some(bytes)
}
