//! From tokens to an expression.
//!
//! ```text
//! or          = and { OR and }
//! and         = equality { AND equality }
//! equality    = comparison { ( "=" | "<>" ) comparison | IS [ NOT ] NULL }
//! comparison  = unary { ( ">" | ">=" | "<" | "<=" ) unary
//!                     | [ NOT ] BETWEEN unary AND unary
//!                     | [ NOT ] IN "(" text { "," text } ")"
//!                     | [ NOT ] ( CONTAINS | STARTSWITH | ENDSWITH ) text }
//! unary       = ( "+" | "-" | NOT ) unary | primary
//! primary     = text | number | TRUE | FALSE | NULL | name | "(" or ")"
//! ```

use super::lexer::{Keyword, Placed, Token};
use super::{Comparison, Flaw, InvalidSql, Match, Node};
use crate::limits;

/// The expression that `tokens` are, all of them. `end` is where the text ends.
pub(super) fn parse(tokens: &[Placed], end: usize) -> Result<Node, InvalidSql> {
    let mut parser = Parser { tokens, end, depth: 0 };
    let tree = parser.or()?;
    match parser.tokens {
        [] => Ok(boolean(tree)?.node),
        [_, ..] => Err(parser.expected("an operator or the end")),
    }
}

struct Parser<'a> {
    /// What is left.
    tokens: &'a [Placed],
    end: usize,
    /// Parentheses and signs that are open.
    depth: usize,
}

/// A part of the expression, where it begins, and how many levels it has.
struct Tree {
    node: Node,
    at: usize,
    levels: usize,
}

type Parsed = Result<Tree, InvalidSql>;

impl Parser<'_> {
    fn or(&mut self) -> Parsed {
        self.chain(Keyword::Or, Self::and, Node::Or)
    }

    fn and(&mut self) -> Parsed {
        self.chain(Keyword::And, Self::equality, Node::And)
    }

    /// One or more parts with the same word between them.
    fn chain(
        &mut self,
        word: Keyword,
        part: impl Fn(&mut Self) -> Parsed,
        all: impl Fn(Vec<Node>) -> Node,
    ) -> Parsed {
        let first = part(self)?;
        if !self.comes(&Token::Word(word)) {
            return Ok(first);
        }
        let first = boolean(first)?;
        let (at, mut levels, mut nodes) = (first.at, first.levels, vec![first.node]);
        while self.takes(&Token::Word(word)) {
            let next = part(self)?;
            let next = boolean(next)?;
            levels = levels.max(next.levels);
            nodes.push(next.node);
        }
        tree(all(nodes), at, levels)
    }

    fn equality(&mut self) -> Parsed {
        let mut left = self.comparison()?;
        loop {
            if self.takes(&Token::Equal) {
                left = equal(Comparison::Equal, left, self.comparison()?)?;
            } else if self.takes(&Token::NotEqual) {
                left = equal(Comparison::NotEqual, left, self.comparison()?)?;
            } else if self.takes_word(Keyword::Is) {
                let not = self.takes_word(Keyword::Not);
                if !self.takes_word(Keyword::Null) {
                    return Err(self.expected("NULL"));
                }
                let of = Box::new(left.node);
                left = tree(Node::IsNull { of, not }, left.at, left.levels)?;
            } else {
                return Ok(left);
            }
        }
    }

    fn comparison(&mut self) -> Parsed {
        let mut left = self.unary()?;
        loop {
            if let Some(comparison) = self.takes_order() {
                left = ordered(comparison, left, self.unary()?)?;
                continue;
            }
            let not = self.negates_what_follows();
            if not {
                self.takes_word(Keyword::Not);
            }
            if self.takes_word(Keyword::Between) {
                left = self.between(left, not)?;
            } else if self.takes_word(Keyword::In) {
                left = self.is_in(left, not)?;
            } else if let Some(how) = self.takes_match() {
                left = self.matching(left, how, not)?;
            } else {
                return Ok(left);
            }
        }
    }

    fn takes_order(&mut self) -> Option<Comparison> {
        let comparison = match self.tokens.first()?.token {
            Token::Less => Comparison::Less,
            Token::LessOrEqual => Comparison::LessOrEqual,
            Token::Greater => Comparison::Greater,
            Token::GreaterOrEqual => Comparison::GreaterOrEqual,
            _ => return None,
        };
        self.tokens = &self.tokens[1..];
        Some(comparison)
    }

    /// Whether a NOT belongs to the operator behind it.
    fn negates_what_follows(&self) -> bool {
        use Keyword::{Between, Contains, EndsWith, In, Not, StartsWith};
        let [first, second, ..] = self.tokens else { return false };
        first.token == Token::Word(Not)
            && matches!(second.token, Token::Word(Between | In | Contains | StartsWith | EndsWith))
    }

    fn between(&mut self, value: Tree, not: bool) -> Parsed {
        let low = self.unary()?;
        if !self.takes_word(Keyword::And) {
            return Err(self.expected("AND"));
        }
        let high = self.unary()?;
        for part in [&value, &low, &high] {
            check_ordered(part)?;
        }
        if !not && is_above(&low.node, &high.node) {
            return Err(InvalidSql { at: low.at, what: Flaw::Bounds });
        }
        let levels = value.levels.max(low.levels).max(high.levels);
        let parts = Box::new([value.node, low.node, high.node]);
        tree(Node::Between { parts, not }, value.at, levels)
    }

    fn is_in(&mut self, left: Tree, not: bool) -> Parsed {
        let property = property(left.node, left.at)?;
        self.must_take(&Token::Open, "(")?;
        let mut list = vec![self.text()?];
        while self.takes(&Token::Comma) {
            list.push(self.text()?);
        }
        self.must_take(&Token::Close, ") or ,")?;
        tree(Node::In { property, list, not }, left.at, left.levels)
    }

    fn takes_match(&mut self) -> Option<Match> {
        let how = match self.tokens.first()?.token {
            Token::Word(Keyword::Contains) => Match::Contains,
            Token::Word(Keyword::StartsWith) => Match::StartsWith,
            Token::Word(Keyword::EndsWith) => Match::EndsWith,
            _ => return None,
        };
        self.tokens = &self.tokens[1..];
        Some(how)
    }

    fn matching(&mut self, left: Tree, how: Match, not: bool) -> Parsed {
        let property = property(left.node, left.at)?;
        let at = self.at();
        let text = self.text()?;
        if text.is_empty() {
            return Err(InvalidSql { at, what: Flaw::EmptyText });
        }
        tree(Node::Match { property, how, text, not }, left.at, left.levels)
    }

    fn unary(&mut self) -> Parsed {
        let at = self.at();
        if self.takes(&Token::Plus) {
            return self.deeper(Self::unary);
        }
        if self.takes(&Token::Minus) {
            let of = self.deeper(Self::unary)?;
            return tree(Node::Negate(Box::new(of.node)), at, of.levels);
        }
        if self.takes_word(Keyword::Not) {
            let of = self.deeper(Self::unary)?;
            let of = boolean(of)?;
            return tree(Node::Not(Box::new(of.node)), at, of.levels);
        }
        self.primary()
    }

    fn primary(&mut self) -> Parsed {
        let at = self.at();
        let [first, rest @ ..] = self.tokens else {
            return Err(self.expected("a value, a property or ("));
        };
        let node = match &first.token {
            Token::Text(text) => Node::Text(text.clone()),
            Token::Int(number) => Node::Int(*number),
            Token::Float(number) => Node::Float(*number),
            Token::Name(name) => Node::Property(name.clone()),
            Token::Word(Keyword::True) => Node::Bool(true),
            Token::Word(Keyword::False) => Node::Bool(false),
            Token::Word(Keyword::Null) => Node::Null,
            Token::Open => {
                self.tokens = rest;
                let inner = self.deeper(Self::or)?;
                self.must_take(&Token::Close, ") or an operator")?;
                return Ok(inner);
            }
            _ => return Err(self.expected("a value, a property or (")),
        };
        self.tokens = rest;
        Ok(Tree { node, at, levels: 1 })
    }

    /// Bounds how deep the parser itself recurses.
    fn deeper(&mut self, part: impl Fn(&mut Self) -> Parsed) -> Parsed {
        self.depth += 1;
        if self.depth > limits::FILTER_DEPTH {
            return Err(InvalidSql { at: self.at(), what: too_deep() });
        }
        let parsed = part(self)?;
        self.depth -= 1;
        Ok(parsed)
    }

    fn text(&mut self) -> Result<Box<str>, InvalidSql> {
        match self.tokens {
            [Placed { token: Token::Text(text), .. }, rest @ ..] => {
                self.tokens = rest;
                Ok(text.clone())
            }
            _ => Err(self.expected("a text in single quotes")),
        }
    }

    fn comes(&self, token: &Token) -> bool {
        self.tokens.first().is_some_and(|next| next.token == *token)
    }

    fn takes(&mut self, token: &Token) -> bool {
        let comes = self.comes(token);
        if comes {
            self.tokens = &self.tokens[1..];
        }
        comes
    }

    fn takes_word(&mut self, word: Keyword) -> bool {
        self.takes(&Token::Word(word))
    }

    fn must_take(&mut self, token: &Token, what: &'static str) -> Result<(), InvalidSql> {
        if self.takes(token) { Ok(()) } else { Err(self.expected(what)) }
    }

    fn at(&self) -> usize {
        self.tokens.first().map_or(self.end, |next| next.at)
    }

    fn expected(&self, what: &'static str) -> InvalidSql {
        InvalidSql { at: self.at(), what: Flaw::Expected(what) }
    }
}

/// The same part, if it can be true or false. A property by itself can.
fn boolean(tree: Tree) -> Parsed {
    match tree.node {
        Node::Text(_) | Node::Int(_) | Node::Float(_) | Node::Negate(_) => {
            Err(InvalidSql { at: tree.at, what: Flaw::NotBoolean })
        }
        _ => Ok(tree),
    }
}

/// One level above parts that have `levels`.
fn tree(node: Node, at: usize, levels: usize) -> Parsed {
    let levels = levels + 1;
    if levels > limits::FILTER_DEPTH {
        return Err(InvalidSql { at, what: too_deep() });
    }
    Ok(Tree { node, at, levels })
}

fn too_deep() -> Flaw {
    Flaw::TooDeep { max: limits::FILTER_DEPTH }
}

fn equal(comparison: Comparison, left: Tree, right: Tree) -> Parsed {
    for part in [&left, &right] {
        if part.node == Node::Null {
            return Err(InvalidSql { at: part.at, what: Flaw::NullCompared });
        }
    }
    let constant = matches!(right.node, Node::Text(_) | Node::Int(_) | Node::Float(_));
    if matches!(left.node, Node::Bool(_)) && constant {
        return Err(InvalidSql { at: left.at, what: Flaw::Incompatible });
    }
    compare(comparison, left, right)
}

fn ordered(comparison: Comparison, left: Tree, right: Tree) -> Parsed {
    check_ordered(&left)?;
    check_ordered(&right)?;
    compare(comparison, left, right)
}

fn compare(comparison: Comparison, left: Tree, right: Tree) -> Parsed {
    let (at, levels) = (left.at, left.levels.max(right.levels));
    tree(Node::Compare(comparison, Box::new([left.node, right.node])), at, levels)
}

/// Numbers have an order, and properties that may hold some.
fn check_ordered(part: &Tree) -> Result<(), InvalidSql> {
    match part.node {
        Node::Int(_) | Node::Float(_) | Node::Property(_) | Node::Negate(_) => Ok(()),
        _ => Err(InvalidSql { at: part.at, what: Flaw::NotOrdered }),
    }
}

/// Whether both are plain numbers, and the first is greater.
fn is_above(low: &Node, high: &Node) -> bool {
    #[expect(clippy::cast_precision_loss, reason = "as when it is evaluated")]
    match (low, high) {
        (Node::Int(low), Node::Int(high)) => low > high,
        (Node::Int(low), Node::Float(high)) => (*low as f64) > *high,
        (Node::Float(low), Node::Int(high)) => *low > (*high as f64),
        (Node::Float(low), Node::Float(high)) => low > high,
        _ => false,
    }
}

fn property(node: Node, at: usize) -> Result<Box<str>, InvalidSql> {
    match node {
        Node::Property(name) => Ok(name),
        _ => Err(InvalidSql { at, what: Flaw::NotProperty }),
    }
}
