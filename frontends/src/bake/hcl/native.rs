//! The native syntax: hcl-edit parses, this turns its tree into ours.
//!
//! String pieces are read again from the source, because hcl-edit leaves escapes inside template directives as they
//! are and trims heredocs in another way than HCL; numbers too, because it keeps them as 64 bit floats.

use std::rc::Rc;

use hcl_edit::expr as tree;
use hcl_edit::structure as tree_body;
use hcl_edit::template::Template;
use hcl_edit::{Ident, Span as TreeSpan};

use super::ast::{
    Attribute, BinaryOperator, Block, Body, Call, Expression, For, Key, Kind, Step, StepKind, UnaryOperator,
};
use super::repeated_keys::{Marked, parse_marked};
use super::template::{Quoting, lower_template};
use crate::bake::source::{Diagnostic, Diagnostics, Span};
use crate::bake::value::{Number, Value};

/// Steps such as `[*]` nest, and what looks at expressions follows the nesting.
const MAX_STEPS: usize = 256;

/// Reads a whole file.
///
/// # Errors
/// The syntax error, or every string that is malformed inside.
pub(crate) fn parse_body(file: u32, text: &str) -> Result<Body, Diagnostics> {
    let (marked, parsed) = parse_marked(text, str::parse::<tree_body::Body>);
    match parsed {
        Ok(body) => {
            let mut lowering = Lowering::new(file, &marked, 0);
            let body = lowering.body(&body);
            if lowering.diagnostics.is_empty() {
                Ok(body)
            } else {
                Err(lowering.diagnostics)
            }
        }
        Err(error) => Err(vec![syntax_error(file, &marked, 0, &error)]),
    }
}

/// Reads the text of a JSON string as a template, which starts at `base` in its file.
pub(crate) fn parse_template(file: u32, base: usize, text: &str) -> Result<Expression, Diagnostic> {
    let span = Span::new(file, base, base + text.len());
    if !text.contains("${") && !text.contains("%{") {
        return Ok(Expression::new(Kind::Literal(Value::string(text)), span));
    }
    let (marked, parsed) = parse_marked(text, str::parse::<Template>);
    match parsed {
        Ok(template) => {
            let mut lowering = Lowering::new(file, &marked, base);
            let expression = lower_template(&mut lowering, &template, Quoting::Bare, span);
            match lowering.diagnostics.pop() {
                None => Ok(expression),
                Some(diagnostic) => Err(diagnostic),
            }
        }
        Err(error) => Err(syntax_error(file, &marked, base, &error)),
    }
}

/// Reads a text as an expression; `None` when it is none.
pub(crate) fn parse_expression(file: u32, base: usize, text: &str) -> Option<Expression> {
    let (marked, parsed) = parse_marked(text, str::parse::<tree::Expression>);
    let mut lowering = Lowering::new(file, &marked, base);
    let expression = lowering.expression(&parsed.ok()?);
    lowering.diagnostics.is_empty().then_some(expression)
}

fn syntax_error(file: u32, marked: &Marked, base: usize, error: &hcl_edit::parser::Error) -> Diagnostic {
    let at = base + marked.original(error.location().offset());
    Diagnostic::new(
        Span::new(file, at, at + 1),
        format!("syntax error: {}", error.message()),
    )
}

/// The state of turning one parsed text into expressions.
pub(super) struct Lowering<'t> {
    file: u32,
    pub(super) marked: &'t Marked,
    base: usize,
    pub(super) diagnostics: Diagnostics,
}

impl<'t> Lowering<'t> {
    fn new(file: u32, marked: &'t Marked, base: usize) -> Lowering<'t> {
        Lowering {
            file,
            marked,
            base,
            diagnostics: Vec::new(),
        }
    }

    pub(super) fn span(&self, node: &impl TreeSpan) -> Span {
        let range = node.span().unwrap_or(0..0);
        self.range(range.start, range.end)
    }

    pub(super) fn range(&self, start: usize, end: usize) -> Span {
        let (start, end) = (self.marked.original(start), self.marked.original(end));
        Span::new(self.file, self.base + start, self.base + end)
    }

    fn body(&mut self, body: &tree_body::Body) -> Body {
        let mut lowered = Body::default();
        for structure in body {
            match structure {
                tree_body::Structure::Attribute(attribute) => lowered.attributes.push(Attribute {
                    name: Rc::from(attribute.key.as_str()),
                    name_span: self.span(&attribute.key),
                    expression: Rc::new(self.expression(&attribute.value)),
                }),
                tree_body::Structure::Block(block) => {
                    let kind_span = self.span(&block.ident);
                    let mut span = kind_span;
                    let mut labels = Vec::with_capacity(block.labels.len());
                    for label in &block.labels {
                        let label_span = match label {
                            tree_body::BlockLabel::Ident(ident) => self.span(ident),
                            tree_body::BlockLabel::String(string) => self.span(string),
                        };
                        // Labels carry no span of their own in every case; the block's name stands in.
                        let label_span = if label_span.end == 0 { kind_span } else { label_span };
                        span = span.to(label_span);
                        labels.push((Rc::from(label.as_str()), label_span));
                    }
                    let body = Rc::new(self.body(&block.body));
                    lowered.blocks.push(Block {
                        kind: Rc::from(block.ident.as_str()),
                        labels,
                        body,
                        span,
                    });
                }
            }
        }
        lowered
    }

    pub(super) fn expression(&mut self, expression: &tree::Expression) -> Expression {
        let span = self.span(expression);
        let kind = match expression {
            tree::Expression::Null(_) => Kind::Literal(Value::null()),
            tree::Expression::Bool(value) => Kind::Literal(Value::Bool(**value)),
            tree::Expression::Number(number) => self.number(number, span),
            tree::Expression::String(string) => {
                self.check_quoted(string.span());
                Kind::Literal(Value::string(string))
            }
            tree::Expression::StringTemplate(template) => {
                self.check_quoted(template.span());
                return lower_template(self, template, Quoting::Quoted, span);
            }
            tree::Expression::HeredocTemplate(heredoc) => {
                let text = heredoc
                    .span()
                    .and_then(|range| self.marked.text.get(range))
                    .unwrap_or("");
                let quoting = if text.starts_with("<<-") {
                    Quoting::FlushHeredoc
                } else {
                    Quoting::Heredoc
                };
                return lower_template(self, &heredoc.template, quoting, span);
            }
            tree::Expression::Array(array) => {
                Kind::Tuple(array.iter().map(|element| self.expression(element)).collect())
            }
            tree::Expression::Object(object) => Kind::Object(
                object
                    .iter()
                    .map(|(key, value)| (self.key(key), self.expression(value.expr())))
                    .collect(),
            ),
            tree::Expression::Parenthesis(inner) => Kind::Parentheses(Box::new(self.expression(inner.inner()))),
            tree::Expression::Variable(name) => Kind::Variable(self.name(name), Vec::new()),
            tree::Expression::Conditional(conditional) => Kind::Conditional(Box::new([
                self.expression(&conditional.cond_expr),
                self.expression(&conditional.true_expr),
                self.expression(&conditional.false_expr),
            ])),
            tree::Expression::FuncCall(call) => self.call(call),
            tree::Expression::Traversal(traversal) => return self.traversal(traversal),
            tree::Expression::UnaryOp(operation) => {
                let operator = match *operation.operator {
                    tree::UnaryOperator::Neg => UnaryOperator::Negate,
                    tree::UnaryOperator::Not => UnaryOperator::Not,
                };
                Kind::Unary(operator, Box::new(self.expression(&operation.expr)))
            }
            tree::Expression::BinaryOp(operation) => Kind::Binary(
                binary_operator(*operation.operator),
                Box::new([
                    self.expression(&operation.lhs_expr),
                    self.expression(&operation.rhs_expr),
                ]),
            ),
            tree::Expression::ForExpr(for_expression) => self.for_expression(for_expression),
        };
        Expression::new(kind, span)
    }

    fn name(&self, ident: &Ident) -> Rc<str> {
        Rc::from(ident.as_str())
    }

    /// HCL has no line breaks inside quotes; hcl-edit lets them pass.
    fn check_quoted(&mut self, range: Option<std::ops::Range<usize>>) {
        let Some(range) = range else { return };
        let text = self.marked.text.get(range.clone()).unwrap_or("");
        // Inside an interpolation a line break is fine, so only text without one is judged.
        if text.contains('\n') && !text.contains("${") && !text.contains("%{") {
            let at = range.start + text.find('\n').unwrap_or(0);
            let span = self.range(at, at + 1);
            let message = "a quoted string cannot span lines; use \\n, or a heredoc (<<EOF)";
            self.diagnostics.push(Diagnostic::new(span, message));
        }
    }

    fn number(&mut self, number: &hcl_edit::Formatted<hcl_edit::Number>, span: Span) -> Kind {
        let source = number
            .span()
            .and_then(|range| self.marked.text.get(range))
            .unwrap_or("");
        let text: String = source.chars().filter(|char| !char.is_whitespace()).collect();
        // A sign belongs to the literal for hcl-edit only; a comment may stand between.
        let digits = text.rfind(|char: char| matches!(char, '-' | '/') && !text.contains('e') && !text.contains('E'));
        let digits = match digits {
            Some(at) => &text[at + 1..],
            None => text.trim_start_matches('-'),
        };
        match Number::parse(digits) {
            Some(Ok(value)) if text.starts_with('-') => Kind::Literal(Value::number(value.negate())),
            Some(Ok(value)) => Kind::Literal(Value::number(value)),
            _ => Kind::Invalid(Box::new(Diagnostic::new(span, "the number is out of range"))),
        }
    }

    fn key(&mut self, key: &tree::ObjectKey) -> Key {
        match key {
            tree::ObjectKey::Ident(name) => Key::Name(Rc::from(self.marked.strip(name.as_str()))),
            tree::ObjectKey::Expression(expression) => {
                let mut lowered = self.expression(expression);
                if let Kind::Literal(Value::String(text)) = &lowered.kind {
                    lowered.kind = Kind::Literal(Value::string(self.marked.strip(text)));
                }
                match (&lowered.kind, lowered.keyword()) {
                    (Kind::Variable(..), _) => Key::Expression(Expression::invalid(
                        Diagnostic::new(
                            lowered.span,
                            "the key is ambiguous: put it in parentheses to refer to a value, or in quotes to name it",
                        ),
                        lowered.span,
                    )),
                    (Kind::Literal(_), Some(keyword)) => Key::Name(keyword),
                    _ => Key::Expression(lowered),
                }
            }
        }
    }

    fn call(&mut self, call: &tree::FuncCall) -> Kind {
        let mut name = String::new();
        for part in &call.name.namespace {
            name.push_str(part.as_str());
            name.push_str("::");
        }
        name.push_str(call.name.name.as_str());
        let mut name_span = self.span(&call.name.name);
        if let Some(first) = call.name.namespace.first() {
            name_span = self.span(first).to(name_span);
        }
        Kind::Call(Box::new(Call {
            name: Rc::from(name),
            name_span,
            arguments: call.args.iter().map(|argument| self.expression(argument)).collect(),
            expand: call.args.expand_final(),
        }))
    }

    fn for_expression(&mut self, expression: &tree::ForExpr) -> Kind {
        Kind::For(Box::new(For {
            key_name: expression.intro.key_var.as_ref().map(|name| self.name(name)),
            value_name: self.name(&expression.intro.value_var),
            collection: self.expression(&expression.intro.collection_expr),
            key: expression.key_expr.as_ref().map(|key| self.expression(key)),
            value: self.expression(&expression.value_expr),
            condition: expression
                .cond
                .as_ref()
                .map(|condition| self.expression(&condition.expr)),
            group: expression.grouping,
        }))
    }

    fn traversal(&mut self, traversal: &tree::Traversal) -> Expression {
        let source = self.expression(&traversal.expr);
        if traversal.operators.len() > MAX_STEPS {
            let span = self.span(traversal);
            let message = format!("more than {MAX_STEPS} steps in one expression");
            return Expression::invalid(Diagnostic::fatal(Some(span), message), span);
        }
        let operators: Vec<&tree::TraversalOperator> = traversal.operators.iter().map(|step| &**step).collect();
        let spans: Vec<Span> = traversal.operators.iter().map(|step| self.span(step)).collect();
        self.steps(source, &operators, &spans)
    }

    fn steps(&mut self, source: Expression, operators: &[&tree::TraversalOperator], spans: &[Span]) -> Expression {
        let mut current = source;
        let mut at = 0;
        while let (Some(operator), Some(&span)) = (operators.get(at), spans.get(at)) {
            at += 1;
            match operator {
                tree::TraversalOperator::FullSplat(_) => {
                    // Everything that follows happens to each element.
                    let item = Expression::new(Kind::SplatItem, span);
                    let each = self.steps(item, &operators[at..], &spans[at..]);
                    let whole = current.span.to(each.span);
                    return Expression::new(Kind::Splat(Box::new(current), Box::new(each)), whole);
                }
                tree::TraversalOperator::AttrSplat(_) => {
                    // Only attributes and old-style indexes happen to each element.
                    let end = operators[at..]
                        .iter()
                        .position(|operator| {
                            !matches!(
                                operator,
                                tree::TraversalOperator::GetAttr(_) | tree::TraversalOperator::LegacyIndex(_)
                            )
                        })
                        .map_or(operators.len(), |count| at + count);
                    let item = Expression::new(Kind::SplatItem, span);
                    let each = self.steps(item, &operators[at..end], &spans[at..end]);
                    let whole = current.span.to(each.span);
                    current = Expression::new(Kind::Splat(Box::new(current), Box::new(each)), whole);
                    at = end;
                }
                tree::TraversalOperator::GetAttr(name) => {
                    let kind = StepKind::Attribute(self.name(name));
                    current = add_step(current, Step { kind, span });
                }
                tree::TraversalOperator::LegacyIndex(index) => {
                    if at > 1 && matches!(operators[at - 2], tree::TraversalOperator::LegacyIndex(_)) {
                        // The lexer of HCL reads `0.1` as one number.
                        let message = "two indexes with dots cannot follow each other; write [0][1]";
                        self.diagnostics.push(Diagnostic::new(span, message));
                    }
                    let number = Number::parse(&index.to_string())
                        .and_then(Result::ok)
                        .unwrap_or_else(Number::zero);
                    current = add_step(
                        current,
                        Step {
                            kind: StepKind::Index(Value::number(number)),
                            span,
                        },
                    );
                }
                tree::TraversalOperator::Index(key) => {
                    let key = self.expression(key);
                    current = match key.kind {
                        Kind::Literal(value) => add_step(
                            current,
                            Step {
                                kind: StepKind::Index(value),
                                span,
                            },
                        ),
                        _ => {
                            let whole = current.span.to(span);
                            Expression::new(Kind::Index(Box::new(current), Box::new(key)), whole)
                        }
                    };
                }
            }
        }
        current
    }
}

fn add_step(expression: Expression, step: Step) -> Expression {
    let span = expression.span.to(step.span);
    let kind = match expression.kind {
        Kind::Variable(name, mut steps) => {
            steps.push(step);
            Kind::Variable(name, steps)
        }
        Kind::Traversal(source, mut steps) => {
            steps.push(step);
            Kind::Traversal(source, steps)
        }
        kind => Kind::Traversal(Box::new(Expression::new(kind, expression.span)), vec![step]),
    };
    Expression::new(kind, span)
}

fn binary_operator(operator: tree::BinaryOperator) -> BinaryOperator {
    match operator {
        tree::BinaryOperator::Eq => BinaryOperator::Equal,
        tree::BinaryOperator::NotEq => BinaryOperator::NotEqual,
        tree::BinaryOperator::LessEq => BinaryOperator::LessOrEqual,
        tree::BinaryOperator::GreaterEq => BinaryOperator::GreaterOrEqual,
        tree::BinaryOperator::Less => BinaryOperator::Less,
        tree::BinaryOperator::Greater => BinaryOperator::Greater,
        tree::BinaryOperator::Plus => BinaryOperator::Add,
        tree::BinaryOperator::Minus => BinaryOperator::Subtract,
        tree::BinaryOperator::Mul => BinaryOperator::Multiply,
        tree::BinaryOperator::Div => BinaryOperator::Divide,
        tree::BinaryOperator::Mod => BinaryOperator::Modulo,
        tree::BinaryOperator::And => BinaryOperator::And,
        tree::BinaryOperator::Or => BinaryOperator::Or,
    }
}
