//! Expressions that were parsed before: consumers send theirs with every receive call.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use proto::{
    Filter, InvalidFilter,
    filter::Expression,
    v2::{FilterExpression, FilterType},
};

/// Expressions kept, as many as RocketMQ keeps. A consumer group has one for each topic.
const KEPT: usize = 100;

/// SQL expressions, parsed once each while they are in use.
#[derive(Debug, Default)]
pub struct Compiled {
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    by_text: HashMap<Box<str>, Used>,
    uses: u64,
}

#[derive(Debug)]
struct Used {
    expression: Arc<Expression>,
    /// Number of its last use.
    last: u64,
}

impl Compiled {
    /// The filter that the wire carries.
    ///
    /// # Errors
    /// As [`Filter::from_expression`]. What is wrong is not kept.
    pub fn filter(&self, wire: Option<&FilterExpression>) -> Result<Filter, InvalidFilter> {
        match wire {
            Some(sql) if sql.r#type == i32::from(FilterType::Sql) => self.sql(&sql.expression),
            other => Filter::from_expression(other),
        }
    }

    fn sql(&self, text: &str) -> Result<Filter, InvalidFilter> {
        if let Some(known) = self.find(text) {
            return Ok(Filter::Sql(known));
        }
        // Not under the lock: it takes a while, and two that do it twice do no harm.
        let expression: Arc<Expression> = Arc::new(text.parse()?);
        self.keep(text, &expression);
        Ok(Filter::Sql(expression))
    }

    fn find(&self, text: &str) -> Option<Arc<Expression>> {
        let mut kept = self.kept.lock().expect("no holder panics");
        kept.uses += 1;
        let last = kept.uses;
        let found = kept.by_text.get_mut(text)?;
        found.last = last;
        Some(Arc::clone(&found.expression))
    }

    /// In place of the one whose last use was longest ago, if there is no room.
    fn keep(&self, text: &str, expression: &Arc<Expression>) {
        let mut kept = self.kept.lock().expect("no holder panics");
        if kept.by_text.len() >= KEPT {
            let oldest = kept.by_text.iter().min_by_key(|(_, used)| used.last);
            let oldest = oldest.map(|(text, _)| text.clone()).expect("it is full");
            kept.by_text.remove(&oldest);
        }
        let used = Used { expression: Arc::clone(expression), last: kept.uses };
        kept.by_text.insert(text.into(), used);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sql(text: &str) -> FilterExpression {
        FilterExpression { r#type: FilterType::Sql.into(), expression: text.into() }
    }

    fn compiled(cache: &Compiled, text: &str) -> Arc<Expression> {
        match cache.filter(Some(&sql(text))).expect("an expression") {
            Filter::Sql(expression) => expression,
            Filter::Tags(_) => panic!("SQL was asked for"),
        }
    }

    #[test]
    fn an_expression_is_parsed_once_while_it_is_in_use() {
        let cache = Compiled::default();
        let first = compiled(&cache, "a > 1");
        for n in 0..2 * KEPT {
            compiled(&cache, &format!("a > {n}"));
            assert!(Arc::ptr_eq(&first, &compiled(&cache, "a > 1")), "after {n}");
        }
        assert_eq!(cache.kept.lock().unwrap().by_text.len(), KEPT);
        let early = compiled(&cache, "a > 2");
        assert!(Arc::ptr_eq(&early, &compiled(&cache, "a > 2")));
    }

    #[test]
    fn what_is_wrong_is_refused_every_time() {
        let cache = Compiled::default();
        for _ in 0..2 {
            let refused = cache.filter(Some(&sql("a >")));
            assert!(matches!(refused, Err(InvalidFilter::Sql(_))), "{refused:?}");
        }
        assert!(cache.kept.lock().unwrap().by_text.is_empty());
    }
}
