//! From an expression and a message to yes or no.
//!
//! Every property is a text. It counts as a number where it is compared with one. What cannot be
//! compared makes the whole expression say no, even under a NOT.

use std::cmp::Ordering;

use super::{Comparison, Expression, Match, Node};
use crate::v2;

/// The value of a part. `Null` is neither true nor false.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Value<'a> {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(&'a str),
}

/// Two values that cannot be compared: the message is not wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Incomparable;

type Valued<'a> = Result<Value<'a>, Incomparable>;

impl Expression {
    /// Whether the expression is true for this message.
    #[must_use]
    pub fn matches(&self, message: &v2::Message) -> bool {
        self.matches_properties(|name| property(message, name))
    }

    /// The same for whatever gives the value of a property.
    pub fn matches_properties<'a>(&'a self, properties: impl Fn(&str) -> Option<&'a str>) -> bool {
        truth(&self.0, &properties) == Ok(Some(true))
    }
}

/// `TAGS` is the tag; every other name is a user property.
fn property<'a>(message: &'a v2::Message, name: &str) -> Option<&'a str> {
    match name {
        "TAGS" => super::super::tag(message),
        _ => message.user_properties.get(name).map(String::as_str),
    }
}

/// True, false, or neither. A property by itself is not true, whatever it holds.
fn truth<'a>(
    node: &'a Node,
    properties: &impl Fn(&str) -> Option<&'a str>,
) -> Result<Option<bool>, Incomparable> {
    Ok(match value(node, properties)? {
        Value::Null => None,
        Value::Bool(truth) => Some(truth),
        Value::Int(_) | Value::Float(_) | Value::Text(_) => Some(false),
    })
}

fn value<'a>(node: &'a Node, properties: &impl Fn(&str) -> Option<&'a str>) -> Valued<'a> {
    let of_property = |name: &str| properties(name).map_or(Value::Null, Value::Text);
    Ok(match node {
        Node::Text(text) => Value::Text(text),
        Node::Int(number) => Value::Int(*number),
        Node::Float(number) => Value::Float(*number),
        Node::Bool(truth) => Value::Bool(*truth),
        Node::Null => Value::Null,
        Node::Property(name) => of_property(name),
        Node::Negate(of) => match value(of, properties)? {
            Value::Int(number) => Value::Int(-number),
            Value::Float(number) => Value::Float(-number),
            Value::Null | Value::Bool(_) | Value::Text(_) => Value::Null,
        },
        Node::Not(of) => from_truth(truth(of, properties)?.map(|truth| !truth)),
        Node::And(parts) => from_truth(decided_by(false, parts, properties)?),
        Node::Or(parts) => from_truth(decided_by(true, parts, properties)?),
        Node::Compare(comparison, parts) => {
            let [left, right] = &**parts;
            compare(*comparison, value(left, properties)?, value(right, properties)?)?
        }
        Node::IsNull { of, not } => Value::Bool((value(of, properties)? == Value::Null) != *not),
        Node::Between { parts, not } => {
            let [of, low, high] = &**parts;
            let bound = |node| value(node, properties);
            between(bound(of)?, || bound(low), || bound(high), *not)?
        }
        Node::In { property, list, not } => match properties(property) {
            None => Value::Null,
            Some(text) => Value::Bool(list.iter().any(|one| **one == *text) != *not),
        },
        // What is missing neither contains nor lacks anything.
        Node::Match { property, how, text, not } => {
            Value::Bool(properties(property).is_some_and(|found| how.holds(found, text) != *not))
        }
    })
}

fn from_truth<'a>(truth: Option<bool>) -> Value<'a> {
    truth.map_or(Value::Null, Value::Bool)
}

/// The first part that is `decisive` settles it; else it is undecided if any part is.
fn decided_by<'a>(
    decisive: bool,
    parts: &'a [Node],
    properties: &impl Fn(&str) -> Option<&'a str>,
) -> Result<Option<bool>, Incomparable> {
    let mut result = Some(!decisive);
    for part in parts {
        match truth(part, properties)? {
            Some(truth) if truth == decisive => return Ok(Some(decisive)),
            Some(_) => (),
            None => result = None,
        }
    }
    Ok(result)
}

/// As `value >= low AND value <= high`, and the opposite as `value < low OR value > high`.
fn between<'a>(
    value: Value<'a>,
    low: impl FnOnce() -> Valued<'a>,
    high: impl FnOnce() -> Valued<'a>,
    not: bool,
) -> Valued<'a> {
    let (first, second) = match not {
        false => (Comparison::GreaterOrEqual, Comparison::LessOrEqual),
        true => (Comparison::Less, Comparison::Greater),
    };
    let decisive = Value::Bool(not);
    let low = compare(first, value, low()?)?;
    if low == decisive {
        return Ok(decisive);
    }
    let high = compare(second, value, high()?)?;
    Ok(match (low, high) {
        (_, high) if high == decisive => decisive,
        (Value::Null, _) | (_, Value::Null) => Value::Null,
        _ => Value::Bool(!not),
    })
}

fn compare<'a>(comparison: Comparison, left: Value<'a>, right: Value<'a>) -> Valued<'a> {
    let test: fn(Ordering) -> bool = match comparison {
        Comparison::Equal => return equal(left, right),
        Comparison::NotEqual => {
            return Ok(match equal(left, right)? {
                Value::Bool(equal) => Value::Bool(!equal),
                other => other,
            });
        }
        Comparison::Less => Ordering::is_lt,
        Comparison::LessOrEqual => Ordering::is_le,
        Comparison::Greater => Ordering::is_gt,
        Comparison::GreaterOrEqual => Ordering::is_ge,
    };
    let ordering = match (left, right) {
        (Value::Null, _) | (_, Value::Null) => return Ok(Value::Null),
        // Texts have no order but that of the numbers that they are.
        (Value::Text(left), Value::Text(right)) => floats(float(left)?, float(right)?),
        (left, right) => numbers(left, right)?,
    };
    Ok(Value::Bool(test(ordering)))
}

/// Unknown when the left one is missing, false when the right one is, true when both are.
fn equal<'a>(left: Value<'a>, right: Value<'a>) -> Valued<'a> {
    Ok(match (left, right) {
        (Value::Null, Value::Null) => Value::Bool(true),
        (Value::Null, _) => Value::Null,
        (_, Value::Null) => Value::Bool(false),
        (Value::Text(left), Value::Text(right)) => Value::Bool(left == right),
        (Value::Bool(left), Value::Bool(right)) => Value::Bool(left == right),
        (Value::Text(left), Value::Bool(right)) => {
            Value::Bool(left.eq_ignore_ascii_case("true") == right)
        }
        (Value::Bool(_), Value::Text(_)) => return Err(Incomparable),
        (Value::Bool(_), Value::Int(_) | Value::Float(_))
        | (Value::Int(_) | Value::Float(_), Value::Bool(_)) => Value::Bool(false),
        (left, right) => Value::Bool(numbers(left, right)?.is_eq()),
    })
}

/// The order of two values of which at least one is a number: a text becomes what the other is.
fn numbers(left: Value<'_>, right: Value<'_>) -> Result<Ordering, Incomparable> {
    #[expect(clippy::cast_precision_loss, reason = "whole numbers become floats beside floats")]
    Ok(match (left, right) {
        (Value::Int(left), Value::Int(right)) => left.cmp(&right),
        (Value::Text(left), Value::Int(right)) => int(left)?.cmp(&right),
        (Value::Int(left), Value::Text(right)) => left.cmp(&int(right)?),
        (Value::Int(left), Value::Float(right)) => floats(left as f64, right),
        (Value::Float(left), Value::Int(right)) => floats(left, right as f64),
        (Value::Float(left), Value::Float(right)) => floats(left, right),
        (Value::Text(left), Value::Float(right)) => floats(float(left)?, right),
        (Value::Float(left), Value::Text(right)) => floats(left, float(right)?),
        (Value::Null | Value::Bool(_), _)
        | (_, Value::Null | Value::Bool(_))
        | (Value::Text(_), Value::Text(_)) => return Err(Incomparable),
    })
}

fn floats(left: f64, right: f64) -> Ordering {
    left.partial_cmp(&right).expect("texts that are no numbers were refused")
}

fn int(text: &str) -> Result<i64, Incomparable> {
    text.parse().map_err(|_| Incomparable)
}

/// Digits, a point, an exponent and signs; no words such as `inf` and `nan`.
fn float(text: &str) -> Result<f64, Incomparable> {
    let text = text.trim_ascii();
    let is_figure = |c: char| c.is_ascii_digit() || matches!(c, '.' | '+' | '-' | 'e' | 'E');
    if !text.chars().all(is_figure) {
        return Err(Incomparable);
    }
    text.parse().map_err(|_| Incomparable)
}

impl Match {
    fn holds(self, found: &str, text: &str) -> bool {
        match self {
            Self::Contains => found.contains(text),
            Self::StartsWith => found.starts_with(text),
            Self::EndsWith => found.ends_with(text),
        }
    }
}
