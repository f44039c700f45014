use std::collections::HashMap;

use proptest::prelude::*;

use super::*;
use crate::v2;

fn parse(text: &str) -> Expression {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn flaw(text: &str) -> (usize, Flaw) {
    match text.parse::<Expression>() {
        Err(InvalidFilter::Sql(InvalidSql { at, what })) => (at, what),
        other => panic!("{text}: {other:?}"),
    }
}

type Properties = HashMap<String, String>;

fn properties(list: &[(&str, &str)]) -> Properties {
    list.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect()
}

fn wants(text: &str, properties: &Properties) -> bool {
    parse(text).matches_properties(|name| properties.get(name).map(String::as_str))
}

fn check(properties: &Properties, cases: &[(&str, bool)]) {
    for (text, expected) in cases {
        assert_eq!(wants(text, properties), *expected, "{text}");
    }
}

#[test]
fn tags_and_user_properties_are_seen() {
    let system = v2::SystemProperties { tag: Some("a".into()), ..Default::default() };
    let mut message = v2::Message { system_properties: Some(system), ..Default::default() };
    message.user_properties.insert("price".into(), "21".into());
    message.user_properties.insert("TAGS".into(), "nobody can send this".into());
    for (text, expected) in [
        ("TAGS = 'a' AND price > 20", true),
        ("TAGS IN ('b', 'a')", true),
        ("TAGS = 'b' OR price BETWEEN 0 AND 20", false),
        ("price IS NOT NULL AND weight IS NULL", true),
        ("tags = 'a'", false),
    ] {
        assert_eq!(parse(text).matches(&message), expected, "{text}");
    }
    message.system_properties.as_mut().unwrap().tag = Some(String::new());
    assert!(parse("TAGS IS NULL").matches(&message));
}

#[test]
fn numbers_are_compared_as_what_the_literal_is() {
    let of = properties(&[("i", "21"), ("f", "2.5"), ("big", "9007199254740993"), ("t", "x")]);
    check(
        &of,
        &[
            ("i > 20", true),
            ("i >= 21 AND i <= 21 AND NOT (i < 21)", true),
            ("20 < i", true),
            ("i = 21", true),
            ("i = 21L", true),
            ("i = 21.", true),
            ("i = 2.1E1", true),
            ("i <> 21", false),
            ("i > -5", true),
            ("i > + 5", true),
            ("i > - -5", true),
            ("f > 2.4", true),
            // A whole number has no fraction: this does not compare, either way.
            ("f > 2", false),
            ("f <= 2", false),
            ("NOT (f > 2)", false),
            ("i > f", true),
            ("big = 9007199254740993", true),
            ("big = 9007199254740992", false),
            ("t > 1", false),
            ("t = 1", false),
            ("t <> 1", false),
            ("t > t", false),
            ("i BETWEEN 21 AND 22", true),
            ("i NOT BETWEEN 21 AND 22", false),
            ("i NOT BETWEEN 1 AND 2", true),
            ("f BETWEEN .5 AND 1E1", true),
            ("i BETWEEN -1 AND -5", false),
            ("1 < 2", true),
        ],
    );
}

#[test]
fn texts_are_equal_or_not() {
    let of = properties(&[("a", "x'y"), ("b", ""), ("yes", "True"), ("no", "0")]);
    check(
        &of,
        &[
            ("a = 'x''y'", true),
            ("a <> 'x'", true),
            ("'x''y' = a", true),
            ("b = ''", true),
            ("b IS NULL", false),
            ("a IN ('x', 'x''y')", true),
            ("a NOT IN ('x', 'x''y')", false),
            ("a CONTAINS ''''", true),
            ("a NOT CONTAINS ''''", false),
            ("a STARTSWITH 'x' AND a ENDSWITH 'y'", true),
            ("a NOT STARTSWITH 'y'", true),
            ("yes = TRUE AND no = FALSE", true),
            ("yes = FALSE", false),
            ("TRUE = yes", false),
            ("yes", false),
            ("NOT yes", true),
            ("TRUE", true),
            ("FALSE OR TRUE", true),
            ("(a = 'x') = FALSE", true),
            // NOT binds closer than =.
            ("NOT a = 'x'", false),
            ("NOT (a = 'x')", true),
        ],
    );
}

#[test]
fn what_is_missing_is_neither_true_nor_false() {
    let of = properties(&[("a", "1")]);
    check(
        &of,
        &[
            ("gone = 1", false),
            ("NOT (gone = 1)", false),
            ("gone <> 1", false),
            ("gone > 1 OR a = 1", true),
            ("gone > 1 AND a = 1", false),
            ("NOT (gone > 1 AND a = 2)", true),
            ("NOT (gone > 1 OR a = 2)", false),
            ("(gone > 1) IS NULL", true),
            ("gone IN ('1')", false),
            ("gone NOT IN ('1')", false),
            ("gone CONTAINS '1'", false),
            ("gone NOT CONTAINS '1'", false),
            ("NOT (gone CONTAINS '1')", true),
            ("gone IS NULL AND a IS NOT NULL", true),
            ("gone NOT BETWEEN 1 AND 2", false),
            // On the right it makes = false, and leaves an order open.
            ("a = gone", false),
            ("a <> gone", true),
            ("gone = missing", true),
            ("NOT (a > gone)", false),
            ("gone", false),
            ("NOT gone", false),
            ("NULL", false),
        ],
    );
}

#[test]
fn words_blanks_and_comments_are_read_as_sql_reads_them() {
    let of = properties(&[("a", "1"), ("_$b9", "2"), ("A", "3"), ("andy", "4")]);
    check(
        &of,
        &[
            ("a=1and _$b9=2", true),
            ("\ta\r\n=\x0c1 Or FALSE", true),
            ("A = 3 And a = 1", true),
            ("andy = 4", true),
            ("a = /* 'one' * */ 1", true),
            ("a -- not b\n= 1", true),
            ("a = --1", true),
            ("((a)) = (1)", true),
            ("a = 0 OR a = 1 AND A = 3", true),
            ("(a = 0 OR a = 1) AND A = 4", false),
        ],
    );
}

#[test]
fn what_is_no_expression_is_refused_with_its_place() {
    let expected = Flaw::Expected;
    let max = limits::FILTER_DEPTH;
    for (text, at, what) in [
        ("", 0, expected("a value, a property or (")),
        ("a >", 3, expected("a value, a property or (")),
        ("a = 1 b", 6, expected("an operator or the end")),
        ("a = 007", 5, expected("an operator or the end")),
        ("(a = 1", 6, expected(") or an operator")),
        ("a BETWEEN 1, 2", 11, expected("AND")),
        ("a IN ()", 6, expected("a text in single quotes")),
        ("a IN (1)", 6, expected("a text in single quotes")),
        ("a IN 'x'", 5, expected("(")),
        ("a IS 1", 5, expected("NULL")),
        ("a LIKE 'x'", 2, expected("an operator or the end")),
        ("a + 1 > 2", 2, expected("an operator or the end")),
        ("a # 1", 2, Flaw::Character('#')),
        ("ä = 1", 0, Flaw::Character('ä')),
        ("a = 'x", 4, Flaw::OpenText),
        ("a = 'x''", 4, Flaw::OpenText),
        ("a /* = 1", 2, Flaw::OpenComment),
        ("a = 9223372036854775808", 4, Flaw::Number),
        ("a = 1E999", 4, Flaw::Number),
        ("a = 0.0", 4, Flaw::Number),
        ("'a'", 0, Flaw::NotBoolean),
        ("a = 1 AND 5", 10, Flaw::NotBoolean),
        ("NOT 5", 4, Flaw::NotBoolean),
        ("- a", 0, Flaw::NotBoolean),
        ("a > 'x'", 4, Flaw::NotOrdered),
        ("a > TRUE", 4, Flaw::NotOrdered),
        ("a > 1 > 2", 0, Flaw::NotOrdered),
        ("a BETWEEN 'a' AND 'b'", 10, Flaw::NotOrdered),
        ("a = NULL", 4, Flaw::NullCompared),
        ("TRUE = 1", 0, Flaw::Incompatible),
        ("a BETWEEN 2 AND 1", 10, Flaw::Bounds),
        ("'a' IN ('a')", 0, Flaw::NotProperty),
        ("1 CONTAINS 'a'", 0, Flaw::NotProperty),
        ("a CONTAINS ''", 11, Flaw::EmptyText),
    ] {
        assert_eq!(flaw(text), (at, what), "{text:?}");
    }
    assert_eq!(flaw(&"(".repeat(max + 1)).1, Flaw::TooDeep { max });
}

#[test]
fn depth_is_bounded_and_breadth_only_by_length() {
    let max = limits::FILTER_DEPTH;
    let nested = |open: &str, inner: &str, close: &str, n: usize| {
        format!("{}{inner}{}", open.repeat(n), close.repeat(n))
    };
    for (open, close, inner) in [("(", ")", "a = 1"), ("NOT ", "", "a"), ("- ", "", "1 < 2")] {
        assert!(nested(open, inner, close, 60).parse::<Expression>().is_ok(), "{open}");
        for much in [max + 1, 30_000] {
            let deep = nested(open, inner, close, much);
            let error = deep.parse::<Expression>().unwrap_err();
            let too_long = deep.len() > limits::FILTER_BYTES;
            assert_eq!(matches!(error, InvalidFilter::TooLong { .. }), too_long);
        }
    }
    assert_eq!(flaw(&format!("a{}", " = a".repeat(max))).1, Flaw::TooDeep { max });
    let wide = format!("a = 1{}", " OR a = 2".repeat(7000));
    assert!(wants(&wide, &properties(&[("a", "2")])));
    let long = format!("a = '{}'", "x".repeat(limits::FILTER_BYTES));
    assert!(matches!(long.parse::<Expression>(), Err(InvalidFilter::TooLong { .. })));
}

/// Another way to the same answer: straight from the rules, without short cuts but those that the
/// rules have.
mod naive {
    use super::*;

    #[derive(Clone, Debug, PartialEq)]
    pub(super) enum Found {
        Nothing,
        Truth(bool),
        Number(f64, Option<i64>),
        Words(String),
        Nonsense,
    }
    use Found::{Nonsense, Nothing, Number, Truth, Words};

    pub(super) fn wants(node: &Node, of: &Properties) -> bool {
        truth(find(node, of)) == Truth(true)
    }

    fn truth(found: Found) -> Found {
        match found {
            Number(..) | Words(_) => Truth(false),
            other => other,
        }
    }

    fn not(found: Found) -> Found {
        match found {
            Truth(t) => Truth(!t),
            other => other,
        }
    }

    fn either(left: Found, right: impl FnOnce() -> Found) -> Found {
        match truth(left) {
            Truth(true) => Truth(true),
            Nonsense => Nonsense,
            left => match (left, truth(right())) {
                (_, Nonsense) => Nonsense,
                (_, Truth(true)) => Truth(true),
                (Truth(false), Truth(false)) => Truth(false),
                _ => Nothing,
            },
        }
    }

    fn both(left: Found, right: impl FnOnce() -> Found) -> Found {
        not(either(not(truth(left)), || not(truth(right()))))
    }

    #[expect(clippy::cast_precision_loss, reason = "that is the rule")]
    fn number(words: &str, whole: bool) -> Option<Found> {
        if whole {
            return words.parse::<i64>().ok().map(|n| Number(n as f64, Some(n)));
        }
        if words.contains(|c: char| c.is_alphabetic() && c != 'e' && c != 'E') {
            return None;
        }
        words.trim().parse().ok().map(|n| Number(n, None))
    }

    /// Below, equal or above; `None` for what has no such relation.
    fn relation(left: &Found, right: &Found) -> Option<i8> {
        let sign = |less: bool, more: bool| i8::from(more) - i8::from(less);
        match (left, right) {
            (Number(_, Some(l)), Number(_, Some(r))) => Some(sign(l < r, l > r)),
            (Number(l, _), Number(r, _)) => Some(sign(l < r, l > r)),
            (Words(l), Number(_, whole)) => relation(&number(l, whole.is_some())?, right),
            (Number(_, whole), Words(r)) => relation(left, &number(r, whole.is_some())?),
            (Words(l), Words(r)) => relation(&number(l, false)?, &number(r, false)?),
            _ => None,
        }
    }

    fn ordered(left: &Found, right: &Found, holds: &[i8]) -> Found {
        match (left, right) {
            (Nonsense, _) | (_, Nonsense) => Nonsense,
            (Nothing, _) | (_, Nothing) => Nothing,
            _ => relation(left, right).map_or(Nonsense, |r| Truth(holds.contains(&r))),
        }
    }

    fn equal(left: &Found, right: &Found) -> Found {
        match (left, right) {
            (Nonsense, _) | (_, Nonsense) => Nonsense,
            (Nothing, Nothing) => Truth(true),
            (Nothing, _) => Nothing,
            (_, Nothing) => Truth(false),
            (Words(l), Words(r)) => Truth(l == r),
            (Truth(l), Truth(r)) => Truth(l == r),
            (Words(l), Truth(r)) => Truth((l.to_lowercase() == "true") == *r),
            (Truth(_), Words(_)) => Nonsense,
            (Truth(_), _) | (_, Truth(_)) => Truth(false),
            _ => relation(left, right).map_or(Nonsense, |r| Truth(r == 0)),
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "that is the rule")]
    fn find(node: &Node, of: &Properties) -> Found {
        let look_up = |name: &str| of.get(name).map_or(Nothing, |v| Words(v.clone()));
        let found = |node: &Node| find(node, of);
        match node {
            Node::Text(text) => Words(text.to_string()),
            Node::Int(n) => Number(*n as f64, Some(*n)),
            Node::Float(n) => Number(*n, None),
            Node::Bool(t) => Truth(*t),
            Node::Null => Nothing,
            Node::Property(name) => look_up(name),
            Node::Negate(of) => match found(of) {
                Number(n, whole) => Number(-n, whole.map(|n| -n)),
                Nonsense => Nonsense,
                _ => Nothing,
            },
            Node::Not(of) => not(truth(found(of))),
            Node::And(parts) => {
                parts[1..].iter().fold(found(&parts[0]), |all, part| both(all, || found(part)))
            }
            Node::Or(parts) => {
                parts[1..].iter().fold(found(&parts[0]), |all, part| either(all, || found(part)))
            }
            Node::Compare(comparison, parts) => {
                let (left, right) = (found(&parts[0]), found(&parts[1]));
                match comparison {
                    Comparison::Equal => equal(&left, &right),
                    Comparison::NotEqual => not(equal(&left, &right)),
                    Comparison::Less => ordered(&left, &right, &[-1]),
                    Comparison::LessOrEqual => ordered(&left, &right, &[-1, 0]),
                    Comparison::Greater => ordered(&left, &right, &[1]),
                    Comparison::GreaterOrEqual => ordered(&left, &right, &[0, 1]),
                }
            }
            Node::IsNull { of, not } => match found(of) {
                Nonsense => Nonsense,
                found => Truth((found == Nothing) != *not),
            },
            Node::Between { parts, not } => {
                let (value, low) = (found(&parts[0]), found(&parts[1]));
                let high = || found(&parts[2]);
                match not {
                    false => {
                        both(ordered(&value, &low, &[0, 1]), || ordered(&value, &high(), &[-1, 0]))
                    }
                    true => either(ordered(&value, &low, &[-1]), || ordered(&value, &high(), &[1])),
                }
            }
            Node::In { property, list, not } => match look_up(property) {
                Words(words) => Truth(list.iter().any(|one| **one == *words) != *not),
                other => other,
            },
            Node::Match { property, how, text, not } => match look_up(property) {
                Words(words) => {
                    let holds = match how {
                        Match::Contains => words.contains(&**text),
                        Match::StartsWith => words.starts_with(&**text),
                        Match::EndsWith => words.ends_with(&**text),
                    };
                    Truth(holds != *not)
                }
                _ => Truth(false),
            },
        }
    }
}

fn name() -> impl Strategy<Value = Box<str>> {
    "[abc]".prop_map(Into::into)
}

fn text() -> impl Strategy<Value = Box<str>> {
    prop_oneof!["[ab1'.-]{0,3}", "-?[0-3]{1,2}", "[0-3]\\.[05]", "(?i)true|false"]
        .prop_map(Into::into)
}

fn ordered_operand() -> impl Strategy<Value = Node> {
    let leaf = prop_oneof![
        3 => name().prop_map(Node::Property),
        2 => (0..30_i64).prop_map(Node::Int),
        1 => (1..60_u32).prop_map(|n| Node::Float(f64::from(n) / 4.0)),
    ];
    leaf.prop_recursive(2, 3, 1, |inner| inner.prop_map(|node| Node::Negate(Box::new(node))))
}

fn equal_operand(truth: impl Strategy<Value = Node> + 'static) -> impl Strategy<Value = Node> {
    prop_oneof![
        3 => ordered_operand(),
        2 => text().prop_map(Node::Text),
        1 => truth.prop_filter("NULL does not compare", |node| *node != Node::Null),
    ]
}

fn truth() -> impl Strategy<Value = Node> {
    let orders = prop_oneof![
        Just(Comparison::Less),
        Just(Comparison::LessOrEqual),
        Just(Comparison::Greater),
        Just(Comparison::GreaterOrEqual),
    ];
    let pair = |(how, left, right)| Node::Compare(how, Box::new([left, right]));
    let how = prop_oneof![Just(Match::Contains), Just(Match::StartsWith), Just(Match::EndsWith)];
    let leaf = prop_oneof![
        any::<bool>().prop_map(Node::Bool),
        Just(Node::Null),
        name().prop_map(Node::Property),
        (orders, ordered_operand(), ordered_operand()).prop_map(pair),
        (ordered_operand(), ordered_operand(), ordered_operand(), any::<bool>()).prop_map(
            |(value, low, high, not)| Node::Between { parts: Box::new([value, low, high]), not }
        ),
        (name(), prop::collection::vec(text(), 1..4), any::<bool>())
            .prop_map(|(property, list, not)| Node::In { property, list, not }),
        (name(), how, text(), any::<bool>())
            .prop_filter("a text to look for", |(_, _, text, _)| !text.is_empty())
            .prop_map(|(property, how, text, not)| Node::Match { property, how, text, not }),
    ];
    leaf.prop_recursive(4, 24, 3, |inner| {
        let equals = prop_oneof![Just(Comparison::Equal), Just(Comparison::NotEqual)];
        let operands = (equal_operand(inner.clone()), equal_operand(inner.clone()));
        prop_oneof![
            prop::collection::vec(inner.clone(), 2..4).prop_map(Node::And),
            prop::collection::vec(inner.clone(), 2..4).prop_map(Node::Or),
            inner.clone().prop_map(|node| Node::Not(Box::new(node))),
            (equals, operands)
                .prop_map(|(how, (l, r))| Node::Compare(how, Box::new([l, r])))
                .prop_filter("a truth value beside a constant", compatible),
            (equal_operand(inner), any::<bool>())
                .prop_map(|(of, not)| Node::IsNull { of: Box::new(of), not }),
        ]
    })
}

fn compatible(node: &Node) -> bool {
    let Node::Compare(_, parts) = node else { return true };
    let constant = matches!(parts[1], Node::Text(_) | Node::Int(_) | Node::Float(_));
    !(matches!(parts[0], Node::Bool(_)) && constant)
}

/// Bounds that the parser refuses are not part of any expression.
fn legal(node: &Node) -> bool {
    Expression(node.clone()).to_string().parse::<Expression>().is_ok()
}

fn some_properties() -> impl Strategy<Value = Properties> {
    prop::collection::hash_map("[abc]", text().prop_map(String::from), 0..4)
}

proptest! {
    #[test]
    fn an_expression_survives_its_own_text(node in truth()) {
        let text = Expression(node.clone()).to_string();
        match text.parse::<Expression>() {
            Ok(parsed) => prop_assert_eq!(parsed, Expression(node), "{}", text),
            // Nothing else that was made here is refused.
            Err(InvalidFilter::Sql(InvalidSql { what: Flaw::Bounds, .. })) => {}
            Err(error) => prop_assert!(false, "{}: {}", text, error),
        }
    }

    #[test]
    fn a_message_is_wanted_when_the_rules_say_so(node in truth(), of in some_properties()) {
        prop_assume!(legal(&node));
        let expected = naive::wants(&node, &of);
        let expression = Expression(node);
        let found = expression.matches_properties(|name| of.get(name).map(String::as_str));
        prop_assert_eq!(found, expected, "{} of {:?}", expression, of);
    }

    #[test]
    fn arbitrary_text_does_no_harm(text in ".{0,200}", of in some_properties()) {
        if let Ok(expression) = text.parse::<Expression>() {
            let _either_way = expression.matches_properties(|n| of.get(n).map(String::as_str));
        }
    }

    /// Pieces of expressions in any order, and whole ones with a piece replaced or cut off.
    #[test]
    fn almost_expressions_do_no_harm(
        node in truth(),
        pieces in prop::collection::vec(
            "[a-c]|'|[0-9]{1,20}|\\.|E|L|--|/\\*|\\*/|\n|\\(|\\)|,| NOT | AND | IN | IS | NULL |<|>|=|\u{e4}",
            0..30,
        ),
        at: prop::sample::Index,
        of in some_properties(),
    ) {
        let pieces = pieces.concat();
        let whole = Expression(node).to_string();
        let at = (0..=at.index(whole.len() + 1)).rev().find(|i| whole.is_char_boundary(*i));
        let (front, back) = whole.split_at(at.unwrap_or(0));
        for text in [&pieces, &format!("{front}{pieces}{back}"), &format!("{front}{pieces}")] {
            if let Ok(expression) = text.parse::<Expression>() {
                let printed: Expression = expression.to_string().parse().unwrap();
                prop_assert_eq!(&printed, &expression);
                let _either_way = expression.matches_properties(|n| of.get(n).map(String::as_str));
            }
        }
    }
}
