//! SQL92 filter expressions: RocketMQ's dialect, which has the properties of a message as its only
//! names and no arithmetic.
//!
//! `lexer` makes tokens of text, `parser` makes an [`Expression`] of tokens, `eval` applies it to a
//! message, `print` writes it down again. Nothing here recurses deeper than
//! [`limits::FILTER_DEPTH`](crate::limits::FILTER_DEPTH), whatever the text.

mod eval;
mod lexer;
mod parser;
mod print;
#[cfg(test)]
mod tests;

use std::str::FromStr;

use thiserror::Error;

use super::InvalidFilter;
use crate::limits;

/// A parsed expression, ready to be applied to any number of messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expression(Node);

/// Where and why a text is no expression.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{what} at byte {at}")]
pub struct InvalidSql {
    /// Where the part at fault begins.
    pub at: usize,
    pub what: Flaw,
}

/// What is wrong with an expression.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Flaw {
    #[error("expected {0}")]
    Expected(&'static str),
    #[error("unexpected character {0:?}")]
    Character(char),
    #[error("a text without a closing quote")]
    OpenText,
    #[error("a comment without an end")]
    OpenComment,
    #[error("a number out of range")]
    Number,
    #[error("nested deeper than {max} levels")]
    TooDeep { max: usize },
    #[error("a value that is neither true nor false")]
    NotBoolean,
    #[error("a value without an order")]
    NotOrdered,
    #[error("NULL does not compare; IS NULL asks for it")]
    NullCompared,
    #[error("a truth value compared with something else")]
    Incompatible,
    #[error("the lower bound of BETWEEN is above the upper one")]
    Bounds,
    #[error("something else than a property before IN, CONTAINS, STARTSWITH or ENDSWITH")]
    NotProperty,
    #[error("an empty text to look for")]
    EmptyText,
}

/// One operator or operand. The parser has made sure that operands fit their operators.
#[derive(Clone, Debug, PartialEq)]
enum Node {
    Text(Box<str>),
    /// Never negative: a sign is an operator.
    Int(i64),
    /// Positive and finite.
    Float(f64),
    Bool(bool),
    Null,
    Property(Box<str>),
    Negate(Box<Node>),
    Not(Box<Node>),
    /// At least two.
    And(Vec<Node>),
    /// At least two.
    Or(Vec<Node>),
    Compare(Comparison, Box<[Node; 2]>),
    IsNull {
        of: Box<Node>,
        not: bool,
    },
    /// The value, the lower and the upper bound.
    Between {
        parts: Box<[Node; 3]>,
        not: bool,
    },
    In {
        property: Box<str>,
        list: Vec<Box<str>>,
        not: bool,
    },
    Match {
        property: Box<str>,
        how: Match,
        text: Box<str>,
        not: bool,
    },
}

// Floats here are finite, so every one equals itself.
impl Eq for Node {}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Match {
    Contains,
    StartsWith,
    EndsWith,
}

impl FromStr for Expression {
    type Err = InvalidFilter;

    fn from_str(text: &str) -> Result<Self, InvalidFilter> {
        let (found, max) = (text.len(), limits::FILTER_BYTES);
        if found > max {
            return Err(InvalidFilter::TooLong { found, max });
        }
        Ok(Self(parser::parse(&lexer::tokens(text)?, text.len())?))
    }
}
