//! From an expression to a text that parses into the same.

use std::fmt::{self, Display, Formatter, Write};

use super::{Comparison, Expression, Match, Node};

impl Display for Expression {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        node(f, &self.0)
    }
}

fn node(f: &mut Formatter<'_>, of: &Node) -> fmt::Result {
    match of {
        Node::Text(text) => quoted(f, text),
        Node::Int(number) => write!(f, "{number}"),
        // With an exponent, or a large one would read as a whole number.
        Node::Float(number) => write!(f, "{number:E}"),
        Node::Bool(true) => f.write_str("TRUE"),
        Node::Bool(false) => f.write_str("FALSE"),
        Node::Null => f.write_str("NULL"),
        Node::Property(name) => f.write_str(name),
        Node::Negate(of) => {
            f.write_str("- ")?;
            signed(f, of)
        }
        Node::Not(of) => {
            f.write_str("NOT ")?;
            signed(f, of)
        }
        Node::And(parts) => chain(f, " AND ", parts),
        Node::Or(parts) => chain(f, " OR ", parts),
        Node::Compare(comparison, parts) => {
            operand(f, &parts[0])?;
            write!(f, " {} ", symbol(*comparison))?;
            operand(f, &parts[1])
        }
        Node::IsNull { of, not } => {
            operand(f, of)?;
            f.write_str(if *not { " IS NOT NULL" } else { " IS NULL" })
        }
        Node::Between { parts, not } => {
            operand(f, &parts[0])?;
            write!(f, "{} BETWEEN ", negation(*not))?;
            operand(f, &parts[1])?;
            f.write_str(" AND ")?;
            operand(f, &parts[2])
        }
        Node::In { property, list, not } => {
            write!(f, "{property}{} IN (", negation(*not))?;
            for (n, text) in list.iter().enumerate() {
                f.write_str(if n > 0 { ", " } else { "" })?;
                quoted(f, text)?;
            }
            f.write_char(')')
        }
        Node::Match { property, how, text, not } => {
            write!(f, "{property}{} {} ", negation(*not), word(*how))?;
            quoted(f, text)
        }
    }
}

fn chain(f: &mut Formatter<'_>, word: &str, parts: &[Node]) -> fmt::Result {
    for (n, part) in parts.iter().enumerate() {
        f.write_str(if n > 0 { word } else { "" })?;
        operand(f, part)?;
    }
    Ok(())
}

/// In parentheses if it has parts itself, and every operator is read as it was meant.
fn operand(f: &mut Formatter<'_>, of: &Node) -> fmt::Result {
    let plain = matches!(
        of,
        Node::Text(_)
            | Node::Int(_)
            | Node::Float(_)
            | Node::Bool(_)
            | Node::Null
            | Node::Property(_)
    );
    if plain {
        return node(f, of);
    }
    f.write_char('(')?;
    node(f, of)?;
    f.write_char(')')
}

/// Signs follow each other without parentheses, so that the text is no deeper than the expression.
fn signed(f: &mut Formatter<'_>, of: &Node) -> fmt::Result {
    match of {
        Node::Negate(_) | Node::Not(_) => node(f, of),
        _ => operand(f, of),
    }
}

fn quoted(f: &mut Formatter<'_>, text: &str) -> fmt::Result {
    write!(f, "'{}'", text.replace('\'', "''"))
}

const fn negation(not: bool) -> &'static str {
    if not { " NOT" } else { "" }
}

const fn symbol(comparison: Comparison) -> &'static str {
    match comparison {
        Comparison::Equal => "=",
        Comparison::NotEqual => "<>",
        Comparison::Less => "<",
        Comparison::LessOrEqual => "<=",
        Comparison::Greater => ">",
        Comparison::GreaterOrEqual => ">=",
    }
}

const fn word(how: Match) -> &'static str {
    match how {
        Match::Contains => "CONTAINS",
        Match::StartsWith => "STARTSWITH",
        Match::EndsWith => "ENDSWITH",
    }
}
