//! Templates: text with `${ }` interpolations and `%{ }` directives.
//!
//! The tree of hcl-edit is first made flat again, because trimming (`~`) and the indentation of a `<<-` heredoc look
//! at neighbours in the text, not in the tree:
//!
//! ```text
//! tree ── flatten ──► tokens ── trim, unindent ──► tokens ── build ──► expressions
//! ```

use std::rc::Rc;

use hcl_edit::Span as TreeSpan;
use hcl_edit::template::{Directive, Element, Strip, Template};
use unicode_segmentation::UnicodeSegmentation;

use super::ast::{Expression, For, Kind};
use super::native::Lowering;
use crate::bake::source::{Diagnostic, Span};
use crate::bake::value::Value;

/// How the text of a template is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Quoting {
    /// Between double quotes, with backslash escapes.
    Quoted,
    Heredoc,
    /// A heredoc whose common indentation is removed.
    FlushHeredoc,
    /// A string of a JSON file, whose escapes are gone already.
    Bare,
}

enum Token {
    Text(String, Span),
    Value(Expression),
    If(Expression, Span),
    Else,
    EndIf,
    For(Box<ForHead>, Span),
    EndFor,
}

struct ForHead {
    key_name: Option<Rc<str>>,
    value_name: Rc<str>,
    collection: Expression,
}

pub(super) fn lower_template(
    lowering: &mut Lowering<'_>,
    template: &Template,
    quoting: Quoting,
    span: Span,
) -> Expression {
    let mut flat = Flat {
        lowering,
        quoting,
        tokens: Vec::new(),
        trim_next: false,
    };
    flat.template(template);
    let mut tokens = flat.tokens;
    if quoting == Quoting::FlushHeredoc {
        unindent(&mut tokens);
    }
    if let [Token::Value(_)] = &tokens[..]
        && let Some(Token::Value(value)) = tokens.pop()
    {
        return Expression::new(Kind::Interpolation(Box::new(value)), span);
    }
    let mut builder = Builder {
        tokens: tokens.into_iter().peekable(),
    };
    let parts = builder.parts();
    match &parts[..] {
        [] => Expression::new(Kind::Literal(Value::string("")), span),
        [
            Expression {
                kind: Kind::Literal(value),
                ..
            },
        ] => Expression::new(Kind::Literal(value.clone()), span),
        _ => Expression::new(Kind::Template(parts), span),
    }
}

struct Flat<'l, 't> {
    lowering: &'l mut Lowering<'t>,
    quoting: Quoting,
    tokens: Vec<Token>,
    /// Set by `~}` for the text right behind it.
    trim_next: bool,
}

impl Flat<'_, '_> {
    fn template(&mut self, template: &Template) {
        for element in template {
            match element {
                Element::Literal(text) => self.text(text.value(), text.span()),
                Element::Interpolation(interpolation) => {
                    let value = self.lowering.expression(&interpolation.expr);
                    self.sequence(interpolation.strip, Token::Value(value));
                }
                Element::Directive(directive) => self.directive(directive),
            }
        }
    }

    fn directive(&mut self, directive: &Directive) {
        match directive {
            Directive::If(directive) => {
                let span = self.lowering.span(directive);
                let condition = self.lowering.expression(&directive.if_expr.cond_expr);
                self.sequence(directive.if_expr.strip, Token::If(condition, span));
                self.template(&directive.if_expr.template);
                if let Some(otherwise) = &directive.else_expr {
                    self.sequence(otherwise.strip, Token::Else);
                    self.template(&otherwise.template);
                }
                self.sequence(directive.endif_expr.strip, Token::EndIf);
            }
            Directive::For(directive) => {
                let span = self.lowering.span(directive);
                let head = &directive.for_expr;
                let lowered = ForHead {
                    key_name: head.key_var.as_ref().map(|name| Rc::from(name.as_str())),
                    value_name: Rc::from(head.value_var.as_str()),
                    collection: self.lowering.expression(&head.collection_expr),
                };
                self.sequence(head.strip, Token::For(Box::new(lowered), span));
                self.template(&head.template);
                self.sequence(directive.endfor_expr.strip, Token::EndFor);
            }
        }
    }

    /// Adds an interpolation or directive; `~` trims the text directly before and behind it.
    fn sequence(&mut self, strip: Strip, token: Token) {
        if matches!(strip, Strip::Start | Strip::Both)
            && let Some(Token::Text(text, _)) = self.tokens.last_mut()
        {
            text.truncate(text.trim_end().len());
        }
        self.tokens.push(token);
        self.trim_next = matches!(strip, Strip::End | Strip::Both);
    }

    fn text(&mut self, value: &str, range: Option<std::ops::Range<usize>>) {
        let range = range.unwrap_or(0..0);
        let source = self.lowering.marked.text.get(range.clone()).unwrap_or(value);
        let source = self.lowering.marked.strip(source);
        let span = self.lowering.range(range.start, range.end);
        let text = if self.quoting == Quoting::Quoted {
            match unescape(source) {
                Ok(text) => text,
                Err((at, message)) => {
                    let at = range.start + at;
                    let span = self.lowering.range(at, at + 1);
                    self.lowering.diagnostics.push(Diagnostic::new(span, message));
                    return;
                }
            }
        } else {
            source.replace("$${", "${").replace("%%{", "%{")
        };
        // Outside of quotes each line is a piece of its own for trimming and indentation.
        let pieces: Vec<&str> = if self.quoting == Quoting::Quoted {
            vec![&text]
        } else {
            text.split_inclusive('\n').collect()
        };
        for piece in pieces {
            let piece = if std::mem::take(&mut self.trim_next) {
                piece.trim_start()
            } else {
                piece
            };
            self.tokens.push(Token::Text(String::from(piece), span));
        }
    }
}

fn unescape(source: &str) -> Result<String, (usize, &'static str)> {
    let mut text = String::with_capacity(source.len());
    let mut chars = source.char_indices().peekable();
    while let Some((at, char)) = chars.next() {
        match char {
            '$' | '%' if source[at + 1..].starts_with(char) && source[at + 2..].starts_with('{') => {
                // The doubled sign stands for one, without opening anything.
                chars.next();
                text.push(char);
            }
            '\n' => return Err((at, "a quoted string cannot span lines; use \\n, or a heredoc (<<EOF)")),
            '\\' => {
                let Some((_, letter)) = chars.next() else {
                    return Err((at, "invalid escape sequence"));
                };
                let digits = match letter {
                    'n' => {
                        text.push('\n');
                        continue;
                    }
                    'r' => {
                        text.push('\r');
                        continue;
                    }
                    't' => {
                        text.push('\t');
                        continue;
                    }
                    '"' | '\\' => {
                        text.push(letter);
                        continue;
                    }
                    'u' => 4,
                    'U' => 8,
                    _ => {
                        return Err((
                            at,
                            "invalid escape sequence; known are \\n \\r \\t \\\" \\\\, \\u with 4 and \\U with 8 hex digits",
                        ));
                    }
                };
                let code = source
                    .get(at + 2..at + 2 + digits)
                    .and_then(|hex| u32::from_str_radix(hex, 16).ok());
                match code.and_then(char::from_u32) {
                    Some(char) => text.push(char),
                    None => return Err((at, "invalid unicode escape sequence")),
                }
                for _ in 0..digits {
                    chars.next();
                }
            }
            other => text.push(other),
        }
    }
    Ok(text)
}

/// Removes the indentation that all lines have in common; blank lines do not count.
fn unindent(tokens: &mut [Token]) {
    let mut least = usize::MAX;
    let mut first_of_line = Vec::new();
    let mut line_starts = true;
    for (index, token) in tokens.iter().enumerate() {
        if std::mem::take(&mut line_starts) {
            match token {
                Token::Text(text, _) => {
                    let trimmed = text.trim_start();
                    if !(trimmed.is_empty() && text.ends_with('\n')) {
                        let blanks = text[..text.len() - trimmed.len()].graphemes(true).count();
                        first_of_line.push(index);
                        least = least.min(blanks);
                    }
                }
                _ => least = 0,
            }
        }
        line_starts = matches!(token, Token::Text(text, _) if text.ends_with('\n'));
    }
    for index in first_of_line {
        if let Token::Text(text, _) = &mut tokens[index] {
            let cut = text.grapheme_indices(true).nth(least).map_or(text.len(), |(at, _)| at);
            text.drain(..cut);
        }
    }
}

struct Builder {
    tokens: std::iter::Peekable<std::vec::IntoIter<Token>>,
}

impl Builder {
    /// Expressions up to the directive that closes this level. The tree was balanced, so the tokens are.
    fn parts(&mut self) -> Vec<Expression> {
        let mut parts: Vec<Expression> = Vec::new();
        while let Some(token) = self
            .tokens
            .next_if(|token| !matches!(token, Token::Else | Token::EndIf | Token::EndFor))
        {
            match token {
                Token::Text(text, span) => {
                    if let Some(Expression {
                        kind: Kind::Literal(Value::String(before)),
                        span: whole,
                    }) = parts.last_mut()
                    {
                        *before = crate::bake::value::normalize(&format!("{before}{text}"));
                        *whole = whole.to(span);
                    } else {
                        parts.push(Expression::new(Kind::Literal(Value::string(&text)), span));
                    }
                }
                // A literal that is interpolated must not melt into the text around it before it is converted.
                Token::Value(value) => {
                    let span = value.span;
                    parts.push(Expression::new(Kind::Interpolation(Box::new(value)), span));
                }
                Token::If(condition, span) => {
                    let yes = template_of(self.parts(), span);
                    let no = if self.tokens.next_if(|token| matches!(token, Token::Else)).is_some() {
                        template_of(self.parts(), span)
                    } else {
                        template_of(Vec::new(), span)
                    };
                    self.tokens.next_if(|token| matches!(token, Token::EndIf));
                    parts.push(Expression::new(Kind::Conditional(Box::new([condition, yes, no])), span));
                }
                Token::For(head, span) => {
                    let value = template_of(self.parts(), span);
                    self.tokens.next_if(|token| matches!(token, Token::EndFor));
                    let tuple = For {
                        key_name: head.key_name,
                        value_name: head.value_name,
                        collection: head.collection,
                        key: None,
                        value,
                        condition: None,
                        group: false,
                    };
                    let tuple = Expression::new(Kind::For(Box::new(tuple)), span);
                    parts.push(Expression::new(Kind::Join(Box::new(tuple)), span));
                }
                Token::Else | Token::EndIf | Token::EndFor => {}
            }
        }
        parts
    }
}

fn template_of(parts: Vec<Expression>, span: Span) -> Expression {
    if parts.is_empty() {
        return Expression::new(Kind::Literal(Value::string("")), span);
    }
    Expression::new(Kind::Template(parts), span)
}
