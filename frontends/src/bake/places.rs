//! Where the definition says what turns out to be wrong only later, once everything is put together.

use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use super::error::BakeError;
use super::hcl::ast::{Expression, Kind};
use super::program::Config;
use super::source::{Sources, Span};
use super::value::Value;

/// The places of targets and groups and of their attributes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Places {
    blocks: HashMap<(&'static str, String), Span>,
    attributes: HashMap<(&'static str, String), HashMap<&'static str, Rc<Expression>>>,
}

impl Places {
    /// Remembers a block; of several with one name, the last one that sets an attribute counts for it.
    pub(crate) fn add(
        &mut self,
        kind: &'static str,
        name: &str,
        span: Span,
        attributes: impl Iterator<Item = (&'static str, Rc<Expression>)>,
    ) {
        let key = (kind, String::from(name));
        self.attributes.entry(key.clone()).or_default().extend(attributes);
        self.blocks.insert(key, span);
    }

    fn attribute(&self, kind: &'static str, name: &str, attribute: &str) -> Option<&Expression> {
        let of_block = self.attributes.get(&(kind, String::from(name)))?;
        of_block.get(attribute).map(|expression| &**expression)
    }

    /// The attribute of a target, or of the one it inherits it from.
    fn inherited(
        &self,
        config: &Config,
        name: &str,
        attribute: &str,
        visited: &mut HashSet<String>,
    ) -> Option<&Expression> {
        if !visited.insert(String::from(name)) || visited.len() > 1000 {
            return None;
        }
        if let Some(found) = self.attribute("target", name, attribute) {
            return Some(found);
        }
        let target = config.targets.iter().find(|target| target.name == name)?;
        let mut parents = target.inherits.iter().rev();
        parents.find_map(|parent| self.inherited(config, parent, attribute, visited))
    }
}

/// Adds to an error the place it is about, as far as the definition has one.
pub(crate) fn place(error: BakeError, config: &Config, sources: &Sources, settings: &[String]) -> BakeError {
    let places = &config.places;
    let span = match &error {
        BakeError::Target { target, attribute, .. } if !is_set(settings, attribute) => {
            let found = places.inherited(config, target, attribute, &mut HashSet::new());
            let block = places.blocks.get(&("target", target.clone()));
            found.map(|expression| expression.span).or(block.copied())
        }
        BakeError::UnknownTarget {
            name,
            needed_by: Some(by),
            ..
        } => [("target", "inherits"), ("target", "contexts"), ("group", "targets")]
            .into_iter()
            .filter_map(|(kind, attribute)| places.attribute(kind, by, attribute))
            .find_map(|expression| mention(expression, name)),
        _ => None,
    };
    match span.and_then(|span| sources.locate(span)) {
        Some(location) => BakeError::Placed {
            location: Box::new(location),
            error: Box::new(error),
        },
        None => error,
    }
}

/// Whether a `--set` changes an attribute, so that the fault may be there.
fn is_set(settings: &[String], attribute: &str) -> bool {
    let stem = attribute.trim_end_matches('s');
    settings.iter().any(|setting| {
        let key = setting.split_once('.').map_or("", |(_, key)| key);
        key.starts_with(stem)
    })
}

/// The part of a list or map that names a target; the whole when the name is made in another way.
fn mention(expression: &Expression, name: &str) -> Option<Span> {
    fn is_it(expression: &Expression, name: &str) -> bool {
        match &expression.kind {
            Kind::Literal(Value::String(text)) => &**text == name || text.strip_prefix("target:") == Some(name),
            Kind::Parentheses(inner) | Kind::Json(_, inner) => is_it(inner, name),
            _ => false,
        }
    }
    match &expression.kind {
        Kind::Json(_, inner) | Kind::Parentheses(inner) => mention(inner, name),
        Kind::Tuple(elements) => {
            let literal = elements.iter().find(|element| is_it(element, name));
            let is_made = |element: &&Expression| !matches!(element.kind, Kind::Literal(_));
            literal
                .or_else(|| elements.iter().find(is_made))
                .map(|element| element.span)
        }
        Kind::Object(items) => {
            let literal = items.iter().find(|(_, value)| is_it(value, name));
            literal.map(|(_, value)| value.span)
        }
        Kind::Literal(_) => None,
        _ => Some(expression.span),
    }
}
