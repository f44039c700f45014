//! Which messages of a topic a consumer wants.

use proto::{Filter, v2};

use crate::Error;

/// A subscription's filter. All members of a consumer group should use the same.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum FilterExpression {
    /// Messages with one of these tags, `a || b`; `*` means all.
    Tag(String),
    /// Messages whose properties make this SQL92 expression true, `price > 20 AND TAGS = 'a'`.
    Sql(String),
}

impl FilterExpression {
    /// Every message.
    #[must_use]
    pub fn all() -> Self {
        Self::Tag("*".to_owned())
    }

    /// By tag: `a || b`.
    pub fn tag(expression: impl Into<String>) -> Self {
        Self::Tag(expression.into())
    }

    /// By property: SQL92.
    pub fn sql(expression: impl Into<String>) -> Self {
        Self::Sql(expression.into())
    }

    pub(crate) fn check(&self) -> Result<(), Error> {
        Filter::from_expression(Some(&self.to_wire()))?;
        Ok(())
    }

    pub(crate) fn to_wire(&self) -> v2::FilterExpression {
        let (kind, expression) = match self {
            Self::Tag(expression) => (v2::FilterType::Tag, expression),
            Self::Sql(expression) => (v2::FilterType::Sql, expression),
        };
        v2::FilterExpression { r#type: kind.into(), expression: expression.clone() }
    }
}

impl Default for FilterExpression {
    fn default() -> Self {
        Self::all()
    }
}

impl From<&str> for FilterExpression {
    /// Tags.
    fn from(expression: &str) -> Self {
        Self::tag(expression)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_expression_is_noticed_here() {
        assert!(FilterExpression::all().check().is_ok());
        assert!(FilterExpression::sql("price > 20").check().is_ok());
        assert!(FilterExpression::sql("price >").check().is_err());
    }
}
