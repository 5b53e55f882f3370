//! Expressions and bodies, the same for the native and the JSON syntax, every node with its place in the source.

use std::rc::Rc;

use crate::bake::source::{Diagnostic, Span};
use crate::bake::value::Value;

/// The content of a file or a block.
#[derive(Clone, Debug, Default)]
pub(crate) struct Body {
    pub(crate) attributes: Vec<Attribute>,
    pub(crate) blocks: Vec<Block>,
}

impl Body {
    pub(crate) fn attribute(&self, name: &str) -> Option<&Attribute> {
        self.attributes.iter().find(|attribute| &*attribute.name == name)
    }
}

/// `name = expression`.
#[derive(Clone, Debug)]
pub(crate) struct Attribute {
    pub(crate) name: Rc<str>,
    pub(crate) name_span: Span,
    pub(crate) expression: Rc<Expression>,
}

/// `kind "label" { … }`.
#[derive(Clone, Debug)]
pub(crate) struct Block {
    pub(crate) kind: Rc<str>,
    pub(crate) labels: Vec<(Rc<str>, Span)>,
    pub(crate) body: Rc<Body>,
    /// The header, without the body.
    pub(crate) span: Span,
}

#[derive(Clone, Debug)]
pub(crate) struct Expression {
    pub(crate) kind: Kind,
    pub(crate) span: Span,
}

#[derive(Clone, Debug)]
pub(crate) enum Kind {
    Literal(Value),
    /// Text and interpolations, joined to one string.
    Template(Vec<Expression>),
    /// A template that is nothing but one interpolation: the value keeps its type.
    Interpolation(Box<Expression>),
    /// The text of a `%{ for }` directive: the elements of a tuple, joined.
    Join(Box<Expression>),
    /// A name and the steps after it.
    Variable(Rc<str>, Vec<Step>),
    /// Steps into the value of any expression.
    Traversal(Box<Expression>, Vec<Step>),
    Index(Box<Expression>, Box<Expression>),
    /// `source[*]…`: the second expression for each element, which it sees as [`Kind::SplatItem`].
    Splat(Box<Expression>, Box<Expression>),
    SplatItem,
    Call(Box<Call>),
    Conditional(Box<[Expression; 3]>),
    Tuple(Vec<Expression>),
    Object(Vec<(Key, Expression)>),
    For(Box<For>),
    Unary(UnaryOperator, Box<Expression>),
    Binary(BinaryOperator, Box<[Expression; 2]>),
    Parentheses(Box<Expression>),
    /// A string of a JSON file: a template, but in some places read as a name or a call.
    Json(Rc<str>, Box<Expression>),
    /// Text that is no valid expression. It fails only when it is evaluated.
    Invalid(Box<Diagnostic>),
}

/// One step of a traversal.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    pub(crate) kind: StepKind,
    pub(crate) span: Span,
}

#[derive(Clone, Debug)]
pub(crate) enum StepKind {
    Attribute(Rc<str>),
    /// An index written as a literal.
    Index(Value),
}

/// The key of an item of an object constructor.
#[derive(Clone, Debug)]
pub(crate) enum Key {
    Name(Rc<str>),
    Expression(Expression),
}

#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) name: Rc<str>,
    pub(crate) name_span: Span,
    pub(crate) arguments: Vec<Expression>,
    /// Whether the last argument stands for all of its elements (`...`).
    pub(crate) expand: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct For {
    pub(crate) key_name: Option<Rc<str>>,
    pub(crate) value_name: Rc<str>,
    pub(crate) collection: Expression,
    /// Present when an object is made.
    pub(crate) key: Option<Expression>,
    pub(crate) value: Expression,
    pub(crate) condition: Option<Expression>,
    /// Whether values of equal keys are gathered (`...`).
    pub(crate) group: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum UnaryOperator {
    Negate,
    Not,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BinaryOperator {
    Or,
    And,
    Equal,
    NotEqual,
    Greater,
    GreaterOrEqual,
    Less,
    LessOrEqual,
    Add,
    Subtract,
    Multiply,
    Divide,
    Modulo,
}

impl BinaryOperator {
    pub(crate) fn symbol(self) -> &'static str {
        match self {
            BinaryOperator::Or => "||",
            BinaryOperator::And => "&&",
            BinaryOperator::Equal => "==",
            BinaryOperator::NotEqual => "!=",
            BinaryOperator::Greater => ">",
            BinaryOperator::GreaterOrEqual => ">=",
            BinaryOperator::Less => "<",
            BinaryOperator::LessOrEqual => "<=",
            BinaryOperator::Add => "+",
            BinaryOperator::Subtract => "-",
            BinaryOperator::Multiply => "*",
            BinaryOperator::Divide => "/",
            BinaryOperator::Modulo => "%",
        }
    }
}

impl Expression {
    pub(crate) fn new(kind: Kind, span: Span) -> Expression {
        Expression { kind, span }
    }

    pub(crate) fn invalid(diagnostic: Diagnostic, span: Span) -> Expression {
        Expression {
            kind: Kind::Invalid(Box::new(diagnostic)),
            span,
        }
    }

    /// The single name this expression consists of, if it does; `null`, `true` and `false` count as names.
    pub(crate) fn keyword(&self) -> Option<Rc<str>> {
        match &self.kind {
            Kind::Variable(name, steps) if steps.is_empty() => Some(name.clone()),
            Kind::Literal(Value::Null(_)) => Some(Rc::from("null")),
            Kind::Literal(Value::Bool(value)) => Some(Rc::from(if *value { "true" } else { "false" })),
            Kind::Json(text, _) if is_identifier(text) => Some(text.clone()),
            _ => None,
        }
    }
}

/// Whether a text is one identifier of the language.
pub(crate) fn is_identifier(text: &str) -> bool {
    let mut chars = text.chars();
    chars.next().is_some_and(|first| first == '_' || first.is_alphabetic())
        && chars.all(|char| char == '_' || char == '-' || char.is_alphanumeric())
}
