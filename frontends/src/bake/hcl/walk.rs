//! What an expression refers to: the names outside of it, and the functions it calls.

use std::rc::Rc;

use super::ast::{Expression, Key, Kind, Step};
use crate::bake::source::Span;

/// A name that must come from the scope around an expression, and the steps taken from it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reference<'e> {
    pub(crate) name: &'e Rc<str>,
    pub(crate) steps: &'e [Step],
    pub(crate) span: Span,
}

/// What [`collect`] finds.
#[derive(Debug, Default)]
pub(crate) struct Uses<'e> {
    pub(crate) references: Vec<Reference<'e>>,
    pub(crate) functions: Vec<(&'e Rc<str>, Span)>,
}

/// Names bound inside (by `for`) are left out.
pub(crate) fn collect(expression: &Expression) -> Uses<'_> {
    let mut walker = Walker {
        uses: Uses::default(),
        bound: Vec::new(),
    };
    walker.visit(expression);
    walker.uses
}

struct Walker<'e> {
    uses: Uses<'e>,
    bound: Vec<&'e Rc<str>>,
}

impl<'e> Walker<'e> {
    fn visit(&mut self, expression: &'e Expression) {
        match &expression.kind {
            Kind::Literal(_) | Kind::SplatItem | Kind::Invalid(_) => {}
            Kind::Template(parts) | Kind::Tuple(parts) => parts.iter().for_each(|part| self.visit(part)),
            Kind::Interpolation(inner)
            | Kind::Join(inner)
            | Kind::Parentheses(inner)
            | Kind::Unary(_, inner)
            | Kind::Traversal(inner, _)
            | Kind::Json(_, inner) => self.visit(inner),
            Kind::Variable(name, steps) => {
                if !self.bound.contains(&name) {
                    self.uses.references.push(Reference {
                        name,
                        steps,
                        span: expression.span,
                    });
                }
            }
            Kind::Index(collection, key) => {
                self.visit(collection);
                self.visit(key);
            }
            Kind::Splat(source, each) => {
                self.visit(source);
                self.visit(each);
            }
            Kind::Call(call) => {
                self.uses.functions.push((&call.name, call.name_span));
                // The second argument of `convert` is a type, whose keywords are no variables.
                let values = if &*call.name == "convert" {
                    1
                } else {
                    call.arguments.len()
                };
                call.arguments
                    .iter()
                    .take(values)
                    .for_each(|argument| self.visit(argument));
            }
            Kind::Conditional(parts) => parts.iter().for_each(|part| self.visit(part)),
            Kind::Binary(_, operands) => operands.iter().for_each(|operand| self.visit(operand)),
            Kind::Object(items) => {
                for (key, value) in items {
                    if let Key::Expression(key) = key {
                        self.visit(key);
                    }
                    self.visit(value);
                }
            }
            Kind::For(iteration) => {
                self.visit(&iteration.collection);
                let outer = self.bound.len();
                self.bound.extend(iteration.key_name.iter());
                self.bound.push(&iteration.value_name);
                for part in iteration
                    .key
                    .iter()
                    .chain([&iteration.value])
                    .chain(iteration.condition.iter())
                {
                    self.visit(part);
                }
                self.bound.truncate(outer);
            }
        }
    }
}
