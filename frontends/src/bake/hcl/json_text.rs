//! A JSON reader that keeps positions, property order and repeated properties, which bake files in JSON need.

use std::fmt;
use std::ops::Range;

/// Arrays and objects nested deeper than this are refused.
const MAX_DEPTH: usize = 1000;

/// One JSON value and the bytes it was read from.
#[derive(Clone, Debug)]
pub(crate) struct JsonNode {
    pub(crate) value: JsonValue,
    pub(crate) span: Range<usize>,
}

#[derive(Clone, Debug)]
pub(crate) enum JsonValue {
    Null,
    Bool(bool),
    /// The literal as written: a float would lose digits.
    Number(String),
    String(String),
    Array(Vec<JsonNode>),
    Object(Vec<JsonProperty>),
}

#[derive(Clone, Debug)]
pub(crate) struct JsonProperty {
    pub(crate) name: String,
    pub(crate) name_span: Range<usize>,
    pub(crate) value: JsonNode,
}

/// Where a text stops being JSON, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct JsonSyntaxError {
    pub(crate) at: usize,
    pub(crate) message: String,
}

impl fmt::Display for JsonSyntaxError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "invalid JSON at byte {}: {}", self.at, self.message)
    }
}

/// Reads one document; nothing but blanks may follow it.
pub(crate) fn parse(text: &str) -> Result<JsonNode, JsonSyntaxError> {
    let mut reader = Reader { text, at: 0, depth: 0 };
    let node = reader.value()?;
    reader.blanks();
    if reader.at < text.len() {
        return reader.fail("extra characters after the document");
    }
    Ok(node)
}

struct Reader<'t> {
    text: &'t str,
    at: usize,
    depth: usize,
}

impl Reader<'_> {
    fn fail<T>(&self, message: impl Into<String>) -> Result<T, JsonSyntaxError> {
        Err(JsonSyntaxError {
            at: self.at,
            message: message.into(),
        })
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn blanks(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\r' | b'\n')) {
            self.at += 1;
        }
    }

    fn value(&mut self) -> Result<JsonNode, JsonSyntaxError> {
        self.blanks();
        let start = self.at;
        let value = match self.peek() {
            None => return self.fail("a value is missing at the end of the text"),
            Some(b'{') => self.nested(Reader::object)?,
            Some(b'[') => self.nested(Reader::array)?,
            Some(b'"') => JsonValue::String(self.string()?),
            Some(b'-' | b'0'..=b'9') => JsonValue::Number(self.number()?),
            Some(_) => self.keyword()?,
        };
        Ok(JsonNode {
            value,
            span: start..self.at,
        })
    }

    fn nested(
        &mut self,
        read: fn(&mut Self) -> Result<JsonValue, JsonSyntaxError>,
    ) -> Result<JsonValue, JsonSyntaxError> {
        if self.depth >= MAX_DEPTH {
            return self.fail(format!("nested deeper than {MAX_DEPTH} levels"));
        }
        self.depth += 1;
        self.at += 1;
        let value = read(self)?;
        self.depth -= 1;
        Ok(value)
    }

    fn object(&mut self) -> Result<JsonValue, JsonSyntaxError> {
        let mut properties = Vec::new();
        loop {
            self.blanks();
            match self.peek() {
                Some(b'}') if properties.is_empty() => {
                    self.at += 1;
                    return Ok(JsonValue::Object(properties));
                }
                Some(b'"') => {}
                _ => return self.fail("expected a property name in double quotes"),
            }
            let start = self.at;
            let name = self.string()?;
            let name_span = start..self.at;
            self.blanks();
            if self.peek() != Some(b':') {
                return self.fail(format!("expected a colon after the property name {name:?}"));
            }
            self.at += 1;
            let value = self.value()?;
            properties.push(JsonProperty { name, name_span, value });
            self.blanks();
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b'}') => {
                    self.at += 1;
                    return Ok(JsonValue::Object(properties));
                }
                _ => return self.fail("expected a comma or a closing brace after the property"),
            }
        }
    }

    fn array(&mut self) -> Result<JsonValue, JsonSyntaxError> {
        let mut items = Vec::new();
        loop {
            self.blanks();
            if self.peek() == Some(b']') && items.is_empty() {
                self.at += 1;
                return Ok(JsonValue::Array(items));
            }
            items.push(self.value()?);
            self.blanks();
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b']') => {
                    self.at += 1;
                    return Ok(JsonValue::Array(items));
                }
                _ => return self.fail("expected a comma or a closing bracket after the element"),
            }
        }
    }

    fn keyword(&mut self) -> Result<JsonValue, JsonSyntaxError> {
        let rest = &self.text[self.at..];
        for (word, value) in [
            ("null", JsonValue::Null),
            ("true", JsonValue::Bool(true)),
            ("false", JsonValue::Bool(false)),
        ] {
            if rest.starts_with(word) && !rest[word.len()..].starts_with(|next: char| next.is_alphanumeric()) {
                self.at += word.len();
                return Ok(value);
            }
        }
        self.fail("expected a value: an object, an array, a string, a number, true, false or null")
    }

    fn digits(&mut self) -> Result<(), JsonSyntaxError> {
        let start = self.at;
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        if self.at == start {
            self.fail("expected a digit")
        } else {
            Ok(())
        }
    }

    fn number(&mut self) -> Result<String, JsonSyntaxError> {
        let start = self.at;
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        let whole = self.at;
        self.digits()?;
        if self.text.as_bytes()[whole] == b'0' && self.at - whole > 1 {
            self.at = whole;
            return self.fail("a number cannot start with a zero");
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.digits()?;
        }
        Ok(String::from(&self.text[start..self.at]))
    }

    fn string(&mut self) -> Result<String, JsonSyntaxError> {
        self.at += 1;
        let mut value = String::new();
        loop {
            let rest = &self.text[self.at..];
            let Some(stop) = rest.find(|char: char| matches!(char, '"' | '\\') || char < ' ') else {
                self.at = self.text.len();
                return self.fail("the string is not closed");
            };
            value.push_str(&rest[..stop]);
            self.at += stop;
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(value);
                }
                Some(b'\\') => value.push(self.escape()?),
                _ => return self.fail("control characters must be escaped inside a string"),
            }
        }
    }

    fn escape(&mut self) -> Result<char, JsonSyntaxError> {
        self.at += 1;
        let letter = self.peek();
        self.at += 1;
        Ok(match letter {
            Some(b'"') => '"',
            Some(b'\\') => '\\',
            Some(b'/') => '/',
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => {
                let high = self.hex()?;
                if (0xd800..0xdc00).contains(&high) && self.text[self.at..].starts_with("\\u") {
                    let before = self.at;
                    self.at += 2;
                    let low = self.hex()?;
                    if (0xdc00..0xe000).contains(&low) {
                        let code = 0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00);
                        return Ok(char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER));
                    }
                    self.at = before;
                }
                // Half a surrogate pair stands for nothing.
                char::from_u32(high).unwrap_or(char::REPLACEMENT_CHARACTER)
            }
            _ => {
                self.at -= 2;
                return self.fail("unknown escape sequence");
            }
        })
    }

    fn hex(&mut self) -> Result<u32, JsonSyntaxError> {
        let digits = self
            .text
            .get(self.at..self.at + 4)
            .filter(|text| text.bytes().all(|b| b.is_ascii_hexdigit()));
        match digits.map(|digits| u32::from_str_radix(digits, 16)) {
            Some(Ok(code)) => {
                self.at += 4;
                Ok(code)
            }
            _ => self.fail("expected four hexadecimal digits"),
        }
    }
}
