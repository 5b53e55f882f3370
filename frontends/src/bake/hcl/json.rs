//! The JSON syntax of HCL: which properties are blocks is known from the outside, all others are attributes.

use std::collections::HashSet;
use std::rc::Rc;

use super::ast::{Attribute, Block, Body, Expression, Key, Kind};
use super::json_text::{JsonNode, JsonProperty, JsonValue, parse};
use super::native::parse_template;
use crate::bake::source::{Diagnostic, Diagnostics, Span};
use crate::bake::value::{Number, Value};

/// What is a block, inside which other block, and how many labels it has.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BlockShape {
    pub(crate) kind: &'static str,
    pub(crate) labels: usize,
    pub(crate) inner: &'static [BlockShape],
}

/// Reads a whole file.
///
/// # Errors
/// The syntax error, or everything that cannot be a body.
pub(crate) fn parse_body(file: u32, text: &str, shapes: &[BlockShape]) -> Result<Body, Diagnostics> {
    let node = match parse(text) {
        Ok(node) => node,
        Err(error) => {
            let span = Span::new(file, error.at, error.at + 1);
            return Err(vec![Diagnostic::new(span, format!("syntax error: {}", error.message))]);
        }
    };
    let mut reader = Reader {
        file,
        text,
        diagnostics: Vec::new(),
    };
    if matches!(node.value, JsonValue::Array(_)) {
        reader.complain(&node.span, "the file must hold one object");
    }
    let body = reader.body(&node, shapes);
    if reader.diagnostics.is_empty() {
        Ok(body)
    } else {
        Err(reader.diagnostics)
    }
}

struct Reader<'t> {
    file: u32,
    text: &'t str,
    diagnostics: Diagnostics,
}

impl Reader<'_> {
    fn span(&self, range: &std::ops::Range<usize>) -> Span {
        Span::new(self.file, range.start, range.end)
    }

    fn complain(&mut self, range: &std::ops::Range<usize>, message: impl Into<String>) {
        let span = self.span(range);
        self.diagnostics.push(Diagnostic::new(span, message));
    }

    /// The properties of an object, or of all objects of an array.
    fn properties<'n>(&mut self, node: &'n JsonNode, what: &str) -> Vec<&'n JsonProperty> {
        match &node.value {
            JsonValue::Null => Vec::new(),
            JsonValue::Object(properties) => properties.iter().collect(),
            JsonValue::Array(items) => {
                let mut all = Vec::new();
                for item in items {
                    match &item.value {
                        JsonValue::Object(properties) => all.extend(properties),
                        _ => self.complain(&item.span, format!("an object is required here, with {what}")),
                    }
                }
                all
            }
            _ => {
                self.complain(
                    &node.span,
                    format!("an object or an array of objects is required here, with {what}"),
                );
                Vec::new()
            }
        }
    }

    fn body(&mut self, node: &JsonNode, shapes: &[BlockShape]) -> Body {
        let mut body = Body::default();
        for property in self.properties(node, "attributes and blocks") {
            if property.name == "//" {
                continue;
            }
            if let Some(shape) = shapes.iter().find(|shape| shape.kind == property.name) {
                self.blocks(
                    &property.value,
                    shape,
                    &mut Vec::new(),
                    &property.name_span,
                    &mut body.blocks,
                );
                continue;
            }
            if body.attribute(&property.name).is_some() {
                self.complain(
                    &property.name_span,
                    format!("attribute `{}` is set twice", property.name),
                );
                continue;
            }
            body.attributes.push(Attribute {
                name: Rc::from(&*property.name),
                name_span: self.span(&property.name_span),
                expression: Rc::new(self.expression(&property.value)),
            });
        }
        body
    }

    fn blocks(
        &mut self,
        node: &JsonNode,
        shape: &BlockShape,
        labels: &mut Vec<(Rc<str>, Span)>,
        name: &std::ops::Range<usize>,
        blocks: &mut Vec<Block>,
    ) {
        if labels.len() < shape.labels {
            let properties = self.properties(node, "a property for each label");
            if properties.is_empty() && self.diagnostics.is_empty() {
                self.complain(&node.span, format!("a `{}` needs a label", shape.kind));
            }
            for property in properties {
                labels.push((Rc::from(&*property.name), self.span(&property.name_span)));
                self.blocks(&property.value, shape, labels, name, blocks);
                labels.pop();
            }
            return;
        }
        let span = labels.last().map_or_else(|| self.span(name), |(_, span)| *span);
        let mut add = |reader: &mut Self, node: &JsonNode| {
            let body = Rc::new(reader.body(node, shape.inner));
            blocks.push(Block {
                kind: Rc::from(shape.kind),
                labels: labels.clone(),
                body,
                span,
            });
        };
        match &node.value {
            JsonValue::Null => {}
            JsonValue::Object(_) => add(self, node),
            JsonValue::Array(items) => items.iter().for_each(|item| add(self, item)),
            _ => self.complain(
                &node.span,
                format!(
                    "an object or an array of objects is required here, the content of a `{}`",
                    shape.kind
                ),
            ),
        }
    }

    fn expression(&mut self, node: &JsonNode) -> Expression {
        let span = self.span(&node.span);
        let kind = match &node.value {
            JsonValue::Null => Kind::Literal(Value::null()),
            JsonValue::Bool(value) => Kind::Literal(Value::Bool(*value)),
            JsonValue::Number(literal) => match Number::parse(literal) {
                Some(Ok(number)) => Kind::Literal(Value::number(number)),
                _ => return Expression::invalid(Diagnostic::new(span, "the number is out of range"), span),
            },
            JsonValue::String(text) => return self.string(text, &node.span),
            JsonValue::Array(items) => Kind::Tuple(items.iter().map(|item| self.expression(item)).collect()),
            JsonValue::Object(properties) => Kind::Object(self.items(properties)),
        };
        Expression::new(kind, span)
    }

    fn items(&mut self, properties: &[JsonProperty]) -> Vec<(Key, Expression)> {
        let mut items = Vec::with_capacity(properties.len());
        let mut seen = HashSet::new();
        for property in properties {
            let mut value = self.expression(&property.value);
            if !seen.insert(&*property.name) {
                let span = self.span(&property.name_span);
                let message = format!("property {:?} occurs twice in this object", property.name);
                value = Expression::invalid(Diagnostic::new(span, message), span);
            }
            let key = self.string(&property.name, &property.name_span);
            items.push((Key::Expression(key), value));
        }
        items
    }

    fn string(&self, text: &str, range: &std::ops::Range<usize>) -> Expression {
        let span = self.span(range);
        // Behind the opening quote; escapes before the place make it inexact.
        let base = range.start + usize::from(self.text[range.start..].starts_with('"'));
        let template = match parse_template(self.file, base, text) {
            Ok(template) => template,
            Err(diagnostic) => Expression::invalid(diagnostic, span),
        };
        Expression::new(Kind::Json(Rc::from(text), Box::new(template)), span)
    }
}
