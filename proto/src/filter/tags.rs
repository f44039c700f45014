//! Messages that are wanted for their tags.

use std::{collections::BTreeSet, fmt, str::FromStr};

use super::InvalidFilter;
use crate::limits;

/// `*` or nothing for every message, or tags with `||` between them.
///
/// A tag matches exactly, case included. Two filters are equal when they want the same messages.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct TagFilter {
    /// `None` wants everything.
    tags: Option<BTreeSet<Box<str>>>,
}

impl TagFilter {
    /// Every message, whether it has a tag or not.
    pub const ALL: Self = Self { tags: None };

    /// Whether every message is wanted.
    pub fn is_all(&self) -> bool {
        self.tags.is_none()
    }

    /// Whether a message with this tag is wanted. An empty tag is no tag.
    pub fn matches(&self, tag: Option<&str>) -> bool {
        match &self.tags {
            None => true,
            Some(tags) => tag.is_some_and(|tag| tags.contains(tag)),
        }
    }

    /// The [`tag_hash`]es of the tags wanted, in no special order; `None` when every message is.
    /// What has none of these hashes does not match; what has one still needs [`Self::matches`].
    pub fn hashes(&self) -> Option<Vec<u64>> {
        self.tags.as_ref().map(|tags| tags.iter().map(|tag| tag_hash(tag)).collect())
    }
}

impl FromStr for TagFilter {
    type Err = InvalidFilter;

    fn from_str(expression: &str) -> Result<Self, InvalidFilter> {
        let (found, max) = (expression.len(), limits::FILTER_BYTES);
        if found > max {
            return Err(InvalidFilter::TooLong { found, max });
        }
        if matches!(expression.trim(), "" | "*") {
            return Ok(Self::ALL);
        }
        let tags: BTreeSet<Box<str>> = expression
            .split("||")
            .map(str::trim)
            .filter(|t| !t.is_empty())
            .map(Into::into)
            .collect();
        let (found, max) = (tags.len(), limits::FILTER_TAGS);
        if found == 0 {
            return Err(InvalidFilter::NoTag);
        }
        // `|| *`: a star that stands alone, however it got there.
        if found == 1 && tags.contains("*") {
            return Ok(Self::ALL);
        }
        if found > max {
            return Err(InvalidFilter::TooManyTags { found, max });
        }
        Ok(Self { tags: Some(tags) })
    }
}

/// An expression for the same filter, the tags in order.
impl fmt::Display for TagFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(tags) = &self.tags else { return f.write_str("*") };
        for (n, tag) in tags.iter().enumerate() {
            if n > 0 {
                f.write_str(" || ")?;
            }
            f.write_str(tag)?;
        }
        Ok(())
    }
}

/// The hash of a tag that consume queues hold. 0 for no tag, never 0 for a tag.
///
/// FNV-1a of 64 bits. It is on disk: it must never change.
pub fn tag_hash(tag: &str) -> u64 {
    const OFFSET_BASIS: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    if tag.is_empty() {
        return 0;
    }
    let hash = tag.bytes().fold(OFFSET_BASIS, |h, byte| (h ^ u64::from(byte)).wrapping_mul(PRIME));
    hash.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn filter(expression: &str) -> TagFilter {
        expression.parse().unwrap()
    }

    #[test]
    fn a_star_or_nothing_wants_every_message() {
        for all in ["*", "", " ", " * "] {
            assert!(filter(all).is_all(), "{all:?}");
            assert!(filter(all).matches(None));
            assert!(filter(all).matches(Some("a")));
            assert!(filter(all).matches(Some("*")));
            assert_eq!(filter(all).hashes(), None);
        }
    }

    #[test]
    fn tags_match_exactly() {
        for either in ["a||b", "a || b", " a||  b ", "a||b||a", "a || || b"] {
            assert!(filter(either).matches(Some("a")), "{either:?}");
            assert!(filter(either).matches(Some("b")), "{either:?}");
            assert!(!filter(either).matches(Some("A")), "{either:?}");
            assert!(!filter(either).matches(Some("ab")), "{either:?}");
            assert!(!filter(either).matches(None), "{either:?}");
            assert_eq!(filter(either), filter("b||a"));
        }
        // Java gives these two one hash; we tell them apart.
        assert!(!filter("AaAa").matches(Some("BBBB")));
        assert!(filter("标签 || 🙂").matches(Some("🙂")));
        // Among others a star is a tag like any other.
        assert!(!filter("a || *").matches(Some("b")));
        assert!(filter("a || *").matches(Some("*")));
    }

    #[test]
    fn a_filter_is_bounded() {
        assert_eq!("||".parse::<TagFilter>(), Err(InvalidFilter::NoTag));
        let tags = |n: usize| (0..n).map(|i| i.to_string()).collect::<Vec<_>>().join("||");
        assert!(tags(1024).parse::<TagFilter>().is_ok());
        assert_eq!(
            tags(1025).parse::<TagFilter>(),
            Err(InvalidFilter::TooManyTags { found: 1025, max: 1024 })
        );
        assert!("t".repeat(65_536).parse::<TagFilter>().is_ok());
        assert_eq!(
            "t".repeat(65_537).parse::<TagFilter>(),
            Err(InvalidFilter::TooLong { found: 65_537, max: 65_536 })
        );
    }

    /// These are in consume queues on disk.
    #[test]
    fn tag_hashes_never_change() {
        assert_eq!(tag_hash(""), 0);
        assert_eq!(tag_hash("a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(tag_hash("foobar"), 0x8594_4171_f739_67e8);
    }

    proptest! {
        #[test]
        fn a_filter_survives_its_own_text(text in "[a-c*| ]{0,12}") {
            if let Ok(filter) = text.parse::<TagFilter>() {
                prop_assert_eq!(&filter.to_string().parse::<TagFilter>().unwrap(), &filter);
            }
        }

        #[test]
        fn what_matches_has_one_of_the_hashes(text in "[a-d]{1,2}(\\|\\|[a-d]{1,2}){0,4}", tag in "[a-d]{1,2}") {
            let filter = filter(&text);
            let hashes = filter.hashes().unwrap();
            prop_assert!(!filter.matches(Some(&tag)) || hashes.contains(&tag_hash(&tag)));
        }

        #[test]
        fn only_the_empty_tag_has_hash_zero(tag in ".+") {
            prop_assert_ne!(tag_hash(&tag), 0);
        }
    }
}
