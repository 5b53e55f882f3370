//! Evaluating expressions.
//!
//! Complaints of independent parts (the elements of a list, the arguments of a call) are gathered, so that one run
//! shows them all. Depth and memory are bounded, whatever the input.

mod calls;
mod iterate;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;

use super::ast::{Call, Expression, Key, Kind, Step, StepKind};
use super::operators::{Operand, binary, unary};
use super::scope::Scope;
use super::traversal::{attribute, hint, index};
use crate::bake::functions::{CallError, EXPRESSION_FUNCTIONS, Environment, Function, table};
use crate::bake::source::{Diagnostic, Diagnostics, Span};
use crate::bake::value::{Members, Type, Value, convert, unify};

/// Expressions, calls and definitions nested deeper than this are refused. The stack is sized for it.
pub(crate) const MAX_DEPTH: u32 = 8000;

/// A function that the file defines.
#[derive(Debug)]
pub(crate) struct UserFunction {
    pub(crate) parameters: Vec<Rc<str>>,
    pub(crate) variadic: Option<Rc<str>>,
    pub(crate) result: Rc<Expression>,
}

/// Evaluates expressions against the globals it holds.
pub(crate) struct Evaluator<'h> {
    pub(crate) environment: Environment<'h>,
    builtins: HashMap<&'static str, &'static Function>,
    globals: RefCell<HashMap<Rc<str>, Value>>,
    functions: RefCell<HashMap<Rc<str>, Rc<UserFunction>>>,
    blocks: RefCell<HashMap<&'static str, Blocks>>,
    depth: Cell<u32>,
}

/// The blocks of one kind that expressions can refer to as `kind.name`.
#[derive(Debug, Default)]
struct Blocks {
    values: HashMap<Rc<str>, Value>,
    /// All names, also of blocks whose value nobody asked for yet.
    names: Vec<Rc<str>>,
}

/// Gives the level of depth back when it goes.
pub(crate) struct Level<'e>(&'e Cell<u32>);

impl Drop for Level<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

impl<'h> Evaluator<'h> {
    pub(crate) fn new(environment: Environment<'h>) -> Evaluator<'h> {
        Evaluator {
            environment,
            builtins: table(),
            globals: RefCell::default(),
            functions: RefCell::default(),
            blocks: RefCell::default(),
            depth: Cell::new(0),
        }
    }

    /// Goes one level deeper for as long as the result lives.
    pub(crate) fn enter(&self, span: Option<Span>) -> Result<Level<'_>, Diagnostics> {
        if self.depth.get() >= MAX_DEPTH {
            return Err(vec![Diagnostic::fatal(
                span,
                format!("nested deeper than {MAX_DEPTH} levels"),
            )]);
        }
        self.depth.set(self.depth.get() + 1);
        Ok(Level(&self.depth))
    }

    pub(crate) fn global(&self, name: &str) -> Option<Value> {
        self.globals.borrow().get(name).cloned()
    }

    pub(crate) fn set_global(&self, name: Rc<str>, value: Value) {
        self.globals.borrow_mut().insert(name, value);
    }

    /// Makes a block of a kind readable.
    pub(crate) fn set_block(&self, kind: &'static str, name: Rc<str>, value: Value) {
        self.blocks
            .borrow_mut()
            .entry(kind)
            .or_default()
            .values
            .insert(name, value);
    }

    /// Says which blocks of a kind there are.
    pub(crate) fn set_block_names(&self, kind: &'static str, names: Vec<Rc<str>>) {
        self.blocks.borrow_mut().entry(kind).or_default().names = names;
    }

    /// A block by the first step behind its kind; `None` when the name is that of no kind.
    fn block(&self, kind: &str, steps: &[Step], span: Span) -> Option<Result<Value, Diagnostics>> {
        let blocks = self.blocks.borrow();
        let of_kind = blocks.get(kind)?;
        let Some(Step {
            kind: StepKind::Attribute(name),
            ..
        }) = steps.first()
        else {
            return Some(Err(vec![Diagnostic::new(
                span,
                format!("{kind} needs a name behind it"),
            )]));
        };
        Some(of_kind.values.get(name).cloned().ok_or_else(|| {
            let hint = hint(name, of_kind.names.iter().map(|name| &**name));
            vec![Diagnostic::new(
                steps[0].span,
                format!("there is no {kind} named {name:?}{hint}"),
            )]
        }))
    }

    pub(crate) fn is_builtin(&self, name: &str) -> bool {
        self.builtins.contains_key(name) || EXPRESSION_FUNCTIONS.contains(&name)
    }

    pub(crate) fn has_function(&self, name: &str) -> bool {
        self.is_builtin(name) || self.functions.borrow().contains_key(name)
    }

    pub(crate) fn define(&self, name: Rc<str>, function: UserFunction) {
        self.functions.borrow_mut().insert(name, Rc::new(function));
    }

    pub(crate) fn evaluate(&self, expression: &Expression, scope: &Scope<'_>) -> Result<Value, Diagnostics> {
        let _level = self.enter(Some(expression.span))?;
        let span = expression.span;
        match &expression.kind {
            Kind::Literal(value) => Ok(value.clone()),
            Kind::Template(parts) => self.template(parts, scope),
            Kind::Interpolation(inner) | Kind::Parentheses(inner) | Kind::Json(_, inner) => self.evaluate(inner, scope),
            Kind::Join(tuple) => self.join(tuple, scope),
            Kind::Variable(name, steps) => {
                if scope.lookup(name).is_none()
                    && let Some(block) = self.block(name, steps, span)
                {
                    return follow(block?, &steps[1..]);
                }
                follow(self.variable(name, scope, span)?, steps)
            }
            Kind::Traversal(source, steps) => follow(self.evaluate(source, scope)?, steps),
            Kind::Index(collection, key) => {
                let (collection, key) = gather2(self.evaluate(collection, scope), self.evaluate(key, scope))?;
                index(&collection, &key).map_err(|message| vec![Diagnostic::new(span, message)])
            }
            Kind::Splat(source, each) => self.splat(source, each, scope),
            Kind::SplatItem => Ok(scope.splat_item().unwrap_or_else(Value::null)),
            Kind::Call(call) => self.call(call, span, scope),
            Kind::Conditional(parts) => self.conditional(parts, span, scope),
            Kind::Tuple(elements) => {
                self.charge_elements(elements.len(), span)?;
                let values = gather(elements.iter().map(|element| self.evaluate(element, scope)))?;
                Ok(Value::tuple(values))
            }
            Kind::Object(items) => self.object(items, scope, span),
            Kind::For(iteration) => self.iterate(iteration, span, scope),
            Kind::Unary(operator, operand) => {
                let value = self.evaluate(operand, scope);
                unary(
                    *operator,
                    Operand {
                        value,
                        expression: operand,
                    },
                )
            }
            Kind::Binary(operator, operands) => {
                let [left, right] = &**operands;
                let left = Operand {
                    value: self.evaluate(left, scope),
                    expression: left,
                };
                let right = Operand {
                    value: self.evaluate(right, scope),
                    expression: right,
                };
                binary(*operator, left, right, span)
            }
            Kind::Invalid(diagnostic) => Err(vec![(**diagnostic).clone()]),
        }
    }

    fn charge_elements(&self, count: usize, span: Span) -> Result<(), Diagnostics> {
        self.environment
            .charge_elements(count)
            .map_err(|error| too_much(span, &error))
    }

    fn variable(&self, name: &Rc<str>, scope: &Scope<'_>, span: Span) -> Result<Value, Diagnostics> {
        if let Some(value) = scope.lookup(name).or_else(|| self.global(name)) {
            return Ok(value);
        }
        let globals = self.globals.borrow();
        let mut names = scope.names();
        names.extend(globals.keys().cloned());
        names.sort_unstable();
        let message = format!(
            "there is no variable named {name:?}{}",
            hint(name, names.iter().map(|name| &**name))
        );
        let span = Span {
            end: span.start + u32::try_from(name.len()).unwrap_or(0),
            ..span
        };
        Err(vec![Diagnostic::new(span, message)])
    }

    fn template(&self, parts: &[Expression], scope: &Scope<'_>) -> Result<Value, Diagnostics> {
        let mut text = String::new();
        let mut diagnostics = Vec::new();
        for part in parts {
            match self
                .evaluate(part, scope)
                .and_then(|value| self.append(&value, part.span, &mut text))
            {
                Ok(()) => {}
                Err(more) => diagnostics.extend(more),
            }
        }
        if diagnostics.is_empty() {
            Ok(Value::string(&text))
        } else {
            Err(diagnostics)
        }
    }

    fn append(&self, value: &Value, span: Span, text: &mut String) -> Result<(), Diagnostics> {
        let complain = |message: String| Err(vec![Diagnostic::new(span, message)]);
        if value.is_null() {
            return complain(String::from("null cannot be included in a string template"));
        }
        match convert(value, &Type::String) {
            Ok(Value::String(piece)) => {
                self.environment
                    .charge(piece.len())
                    .map_err(|error| too_much(span, &error))?;
                text.push_str(&piece);
                Ok(())
            }
            Ok(_) => complain(String::from("the value cannot be included in a string template")),
            Err(error) => complain(format!("the value cannot be included in a string template: {error}")),
        }
    }

    fn join(&self, tuple: &Expression, scope: &Scope<'_>) -> Result<Value, Diagnostics> {
        let values = self.evaluate(tuple, scope)?;
        let mut text = String::new();
        for value in values.as_sequence().unwrap_or_default() {
            self.append(value, tuple.span, &mut text)?;
        }
        Ok(Value::string(&text))
    }

    fn conditional(&self, parts: &[Expression; 3], span: Span, scope: &Scope<'_>) -> Result<Value, Diagnostics> {
        let [condition, yes, no] = parts;
        let yes_value = self.evaluate(yes, scope);
        let no_value = self.evaluate(no, scope);
        for arm in [&yes_value, &no_value] {
            if let Err(diagnostics) = arm
                && diagnostics.iter().any(|diagnostic| diagnostic.fatal)
            {
                return Err(diagnostics.clone());
            }
        }
        // What went wrong in the arm that is not taken does not matter, so its type is open.
        let type_of = |arm: &Result<Value, Diagnostics>| arm.as_ref().map_or(Type::Dynamic, Value::type_of);
        let (yes_type, no_type) = (type_of(&yes_value), type_of(&no_value));
        let wanted = if yes_type == Type::Dynamic || no_type == Type::Dynamic {
            // A bare null takes the type of the other arm.
            let literal_null = |arm: &Result<Value, Diagnostics>| matches!(arm, Ok(Value::Null(Type::Dynamic)));
            match (literal_null(&yes_value), literal_null(&no_value)) {
                (true, _) => no_type,
                (_, true) => yes_type,
                _ => Type::Dynamic,
            }
        } else {
            unify(&[yes_type.clone(), no_type.clone()]).ok_or_else(|| {
                let message =
                    format!("the two results of the condition have no type in common: {yes_type} and {no_type}");
                vec![Diagnostic::new(span, message)]
            })?
        };
        let decision = self.evaluate(condition, scope)?;
        let taken = match convert(&decision, &Type::Bool) {
            Ok(Value::Bool(taken)) => taken,
            Ok(_) => {
                return Err(vec![Diagnostic::new(
                    condition.span,
                    "the condition is null, neither true nor false",
                )]);
            }
            Err(_) => {
                let message = format!("the condition must be a bool, not a {}", decision.type_of());
                return Err(vec![Diagnostic::new(condition.span, message)]);
            }
        };
        let (arm, value) = if taken { (yes, yes_value?) } else { (no, no_value?) };
        convert(&value, &wanted).map_err(|error| {
            vec![Diagnostic::new(
                arm.span,
                format!("the results of the condition have different types: {error}"),
            )]
        })
    }

    fn object(&self, items: &[(Key, Expression)], scope: &Scope<'_>, span: Span) -> Result<Value, Diagnostics> {
        self.charge_elements(items.len(), span)?;
        let mut members = Members::new();
        let mut diagnostics = Vec::new();
        for (key, value) in items {
            let name = match key {
                Key::Name(name) => Ok(name.clone()),
                Key::Expression(expression) => self
                    .evaluate(expression, scope)
                    .and_then(|value| key_text(&value, expression.span)),
            };
            match gather2(name, self.evaluate(value, scope)) {
                Ok((name, value)) => {
                    members.insert(name, value);
                }
                Err(more) => diagnostics.extend(more),
            }
        }
        if diagnostics.is_empty() {
            Ok(Value::object(members))
        } else {
            Err(diagnostics)
        }
    }

    fn splat(&self, source: &Expression, each: &Expression, scope: &Scope<'_>) -> Result<Value, Diagnostics> {
        let value = self.evaluate(source, scope)?;
        let (items, typed): (Vec<Value>, bool) = match &value {
            Value::Null(Type::List(_) | Type::Set(_) | Type::Tuple(_)) => {
                return Err(vec![Diagnostic::new(
                    source.span,
                    "a splat (*) cannot be applied to null",
                )]);
            }
            Value::Null(_) => return Ok(Value::tuple(Vec::new())),
            Value::List(_, values) | Value::Set(_, values) => (values.to_vec(), true),
            Value::Tuple(values) => (values.to_vec(), false),
            single => (vec![single.clone()], false),
        };
        self.charge_elements(items.len(), source.span)?;
        let values = gather(
            items
                .into_iter()
                .map(|item| self.evaluate(each, &scope.child_splat(item))),
        )?;
        if !typed {
            return Ok(Value::tuple(values));
        }
        let element = values.first().map_or(Type::Dynamic, Value::type_of);
        if values.iter().any(|value| !value.is_of(&element)) {
            let message = "the elements of the splat have different types; use a for expression instead";
            return Err(vec![Diagnostic::new(each.span, message)]);
        }
        Ok(Value::list(element, values))
    }
}

fn key_text(value: &Value, span: Span) -> Result<Rc<str>, Diagnostics> {
    if value.is_null() {
        return Err(vec![Diagnostic::new(span, "null cannot be a key")]);
    }
    match convert(value, &Type::String) {
        Ok(Value::String(name)) => Ok(name),
        Ok(_) => Err(vec![Diagnostic::new(span, "the value cannot be a key")]),
        Err(error) => Err(vec![Diagnostic::new(
            span,
            format!("the value cannot be a key: {error}"),
        )]),
    }
}

fn follow(mut value: Value, steps: &[Step]) -> Result<Value, Diagnostics> {
    for step in steps {
        value = match &step.kind {
            StepKind::Attribute(name) => attribute(&value, name),
            StepKind::Index(key) => index(&value, key),
        }
        .map_err(|message| vec![Diagnostic::new(step.span, message)])?;
    }
    Ok(value)
}

/// All results, or all complaints.
fn gather<T>(results: impl Iterator<Item = Result<T, Diagnostics>>) -> Result<Vec<T>, Diagnostics> {
    let mut values = Vec::with_capacity(results.size_hint().0);
    let mut diagnostics = Vec::new();
    for result in results {
        match result {
            Ok(value) => values.push(value),
            Err(more) => diagnostics.extend(more),
        }
        if diagnostics.len() > 20 {
            break;
        }
    }
    if diagnostics.is_empty() {
        Ok(values)
    } else {
        Err(diagnostics)
    }
}

fn gather2<A, B>(left: Result<A, Diagnostics>, right: Result<B, Diagnostics>) -> Result<(A, B), Diagnostics> {
    match (left, right) {
        (Ok(left), Ok(right)) => Ok((left, right)),
        (Err(mut left), Err(right)) => {
            left.extend(right);
            Err(left)
        }
        (Err(error), Ok(_)) | (Ok(_), Err(error)) => Err(error),
    }
}

fn too_much(span: Span, error: &CallError) -> Diagnostics {
    vec![Diagnostic::fatal(Some(span), error.to_string())]
}
