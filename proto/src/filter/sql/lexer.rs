//! From text to tokens.

use super::{Flaw, InvalidSql};

/// A token and where it begins.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Placed {
    pub(super) at: usize,
    pub(super) token: Token,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Token {
    Word(Keyword),
    Name(Box<str>),
    /// Without its quotes, doubled ones made single.
    Text(Box<str>),
    Int(i64),
    Float(f64),
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    Plus,
    Minus,
    Open,
    Close,
    Comma,
}

/// Words that are no names, in capitals or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keyword {
    Not,
    And,
    Or,
    Between,
    In,
    True,
    False,
    Null,
    Is,
    Contains,
    StartsWith,
    EndsWith,
}

const KEYWORDS: [(&str, Keyword); 12] = [
    ("NOT", Keyword::Not),
    ("AND", Keyword::And),
    ("OR", Keyword::Or),
    ("BETWEEN", Keyword::Between),
    ("IN", Keyword::In),
    ("TRUE", Keyword::True),
    ("FALSE", Keyword::False),
    ("NULL", Keyword::Null),
    ("IS", Keyword::Is),
    ("CONTAINS", Keyword::Contains),
    ("STARTSWITH", Keyword::StartsWith),
    ("ENDSWITH", Keyword::EndsWith),
];

/// All tokens of a text. Every step takes at least one byte off its front.
pub(super) fn tokens(text: &str) -> Result<Vec<Placed>, InvalidSql> {
    let mut tokens = Vec::new();
    let mut rest = text;
    loop {
        rest = skip_blank(rest, text.len())?;
        let at = text.len() - rest.len();
        let Some(first) = rest.chars().next() else { return Ok(tokens) };
        let (token, after) = token(first, rest).map_err(|what| InvalidSql { at, what })?;
        tokens.push(Placed { at, token });
        rest = after;
    }
}

/// Without the white space and comments in front.
fn skip_blank(mut rest: &str, whole: usize) -> Result<&str, InvalidSql> {
    loop {
        rest = rest.trim_start_matches([' ', '\t', '\n', '\r', '\x0c']);
        if let Some(comment) = rest.strip_prefix("/*") {
            let at = whole - rest.len();
            let end = comment.find("*/").ok_or(InvalidSql { at, what: Flaw::OpenComment })?;
            rest = &comment[end + 2..];
        } else if let Some(end) = line_comment(rest) {
            rest = &rest[end..];
        } else {
            return Ok(rest);
        }
    }
}

/// Where the comment up to the end of the line ends. The last line has no end: there `--` is the
/// sign of a sign.
fn line_comment(rest: &str) -> Option<usize> {
    rest.starts_with("--").then(|| rest.find(['\n', '\r'])).flatten()
}

fn token(first: char, rest: &str) -> Result<(Token, &str), Flaw> {
    let symbol = |token, len: usize| Ok((token, &rest[len..]));
    match first {
        '\'' => quoted(&rest[1..]),
        '0'..='9' => number(rest),
        '.' if rest[1..].starts_with(|c: char| c.is_ascii_digit()) => number(rest),
        'a'..='z' | 'A'..='Z' | '_' | '$' => Ok(word(rest)),
        '<' if rest.starts_with("<>") => symbol(Token::NotEqual, 2),
        '<' if rest.starts_with("<=") => symbol(Token::LessOrEqual, 2),
        '<' => symbol(Token::Less, 1),
        '>' if rest.starts_with(">=") => symbol(Token::GreaterOrEqual, 2),
        '>' => symbol(Token::Greater, 1),
        '=' => symbol(Token::Equal, 1),
        '+' => symbol(Token::Plus, 1),
        '-' => symbol(Token::Minus, 1),
        '(' => symbol(Token::Open, 1),
        ')' => symbol(Token::Close, 1),
        ',' => symbol(Token::Comma, 1),
        other => Err(Flaw::Character(other)),
    }
}

/// A text, whose opening quote is taken already.
fn quoted(mut rest: &str) -> Result<(Token, &str), Flaw> {
    let mut text = String::new();
    loop {
        let end = rest.find('\'').ok_or(Flaw::OpenText)?;
        text.push_str(&rest[..end]);
        rest = &rest[end + 1..];
        match rest.strip_prefix('\'') {
            Some(after) => {
                text.push('\'');
                rest = after;
            }
            None => return Ok((Token::Text(text.into()), rest)),
        }
    }
}

fn word(rest: &str) -> (Token, &str) {
    let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '$');
    let end = rest.find(|c| !is_part(c)).unwrap_or(rest.len());
    let (word, after) = rest.split_at(end);
    let keyword = KEYWORDS.iter().find(|(text, _)| word.eq_ignore_ascii_case(text));
    match keyword {
        Some((_, keyword)) => (Token::Word(*keyword), after),
        None => (Token::Name(word.into()), after),
    }
}

/// A whole number without needless zeros in front, `L` behind it if one likes; or one with a point
/// or an exponent, which must not be zero.
fn number(rest: &str) -> Result<(Token, &str), Flaw> {
    let whole = digits(rest);
    let point = rest[whole..].starts_with('.');
    let mantissa = whole + if point { 1 + digits(&rest[whole + 1..]) } else { 0 };
    let end = mantissa + exponent(&rest[mantissa..]);
    if end > whole {
        let value: f64 = rest[..end].parse().map_err(|_| Flaw::Number)?;
        let usable = value.is_finite() && value > 0.0;
        return if usable { Ok((Token::Float(value), &rest[end..])) } else { Err(Flaw::Number) };
    }
    // A zero is a number by itself: what follows it does not belong to it.
    let end = if rest.starts_with('0') { 1 } else { whole };
    let value = rest[..end].parse().map_err(|_| Flaw::Number)?;
    let long = end == whole && !rest.starts_with('0') && rest[end..].starts_with(['l', 'L']);
    Ok((Token::Int(value), &rest[end + usize::from(long)..]))
}

fn digits(rest: &str) -> usize {
    rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len())
}

/// Length of an exponent in front of `rest`; 0 when there is none.
fn exponent(rest: &str) -> usize {
    if !rest.starts_with(['e', 'E']) {
        return 0;
    }
    let sign = usize::from(rest[1..].starts_with(['+', '-']));
    match digits(&rest[1 + sign..]) {
        0 => 0,
        digits => 1 + sign + digits,
    }
}
