//! Which messages a consumer wants: by their tags, or by an SQL92 expression over their properties.
//!
//! What an expression means is told in `docs/semantics.md`.

pub mod sql;
mod tags;

use std::{fmt, sync::Arc};

use thiserror::Error;

pub use sql::{Expression, InvalidSql};
pub use tags::{TagFilter, tag_hash};

use crate::v2;

/// An expression that cannot be a filter.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum InvalidFilter {
    #[error("the filter expression has {found} bytes, over the limit of {max}")]
    TooLong { found: usize, max: usize },
    #[error("the filter expression has {found} tags, over the limit of {max}")]
    TooManyTags { found: usize, max: usize },
    #[error("the filter expression names no tag")]
    NoTag,
    #[error("the SQL filter expression is wrong: {0}")]
    Sql(#[from] InvalidSql),
    #[error("the filter type {0} is unknown")]
    UnknownType(i32),
}

/// What a subscription or a receive call asks for. Two filters are equal when they are written for
/// the same: tags in any order, or SQL that differs in spaces and comments only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Filter {
    Tags(TagFilter),
    Sql(Arc<Expression>),
}

impl Filter {
    /// The filter that the wire carries; without one, every message. An unspecified type is TAG.
    ///
    /// # Errors
    /// The type is unknown, or the expression breaks a rule of its language.
    pub fn from_expression(wire: Option<&v2::FilterExpression>) -> Result<Self, InvalidFilter> {
        let Some(wire) = wire else { return Ok(Self::Tags(TagFilter::ALL)) };
        match v2::FilterType::try_from(wire.r#type) {
            Ok(v2::FilterType::Tag | v2::FilterType::Unspecified) => {
                wire.expression.parse().map(Self::Tags)
            }
            Ok(v2::FilterType::Sql) => Ok(Self::Sql(Arc::new(wire.expression.parse()?))),
            Err(_) => Err(InvalidFilter::UnknownType(wire.r#type)),
        }
    }

    /// Whether this message is wanted.
    #[must_use]
    pub fn matches(&self, message: &v2::Message) -> bool {
        match self {
            Self::Tags(tags) => tags.matches(tag(message)),
            Self::Sql(expression) => expression.matches(message),
        }
    }
}

/// An empty tag is no tag.
fn tag(message: &v2::Message) -> Option<&str> {
    let tag = message.system_properties.as_ref()?.tag.as_deref()?;
    (!tag.is_empty()).then_some(tag)
}

/// An expression for the same filter.
impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tags(tags) => tags.fmt(f),
            Self::Sql(expression) => expression.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_type_of_the_wire_counts() {
        let wire = |kind: i32| v2::FilterExpression { r#type: kind, expression: "a || b".into() };
        let parse = |kind| Filter::from_expression(Some(&wire(kind)));
        let tags = Filter::Tags("a||b".parse().unwrap());
        assert_eq!(parse(v2::FilterType::Tag as i32), Ok(tags.clone()));
        assert_eq!(parse(v2::FilterType::Unspecified as i32), Ok(tags));
        assert!(matches!(parse(v2::FilterType::Sql as i32), Err(InvalidFilter::Sql(_))));
        assert_eq!(parse(9), Err(InvalidFilter::UnknownType(9)));
        assert_eq!(Filter::from_expression(None), Ok(Filter::Tags(TagFilter::ALL)));
        let wire = v2::FilterExpression {
            r#type: v2::FilterType::Sql.into(),
            expression: "price>20".into(),
        };
        assert_eq!(Filter::from_expression(Some(&wire)).unwrap().to_string(), "price > 20");
    }
}
