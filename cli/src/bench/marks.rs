//! Which of a run's messages were seen, a bit for each.

/// A set of message numbers.
#[derive(Clone, Debug, Default)]
pub(super) struct Marks {
    words: Vec<u64>,
    count: u64,
}

impl Marks {
    /// Returns whether the number is new.
    pub(super) fn mark(&mut self, number: u64) -> bool {
        let (word, bit) = place(number);
        if word >= self.words.len() {
            self.words.resize(word + 1, 0);
        }
        let new = self.words[word] & bit == 0;
        self.words[word] |= bit;
        self.count += u64::from(new);
        new
    }

    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// How many of these numbers are not among the others.
    pub(super) fn missing_from(&self, others: &Self) -> u64 {
        let other = |at| others.words.get(at).copied().unwrap_or(0);
        let missing = |(at, word): (usize, &u64)| u64::from((word & !other(at)).count_ones());
        self.words.iter().enumerate().map(missing).sum()
    }
}

fn place(number: u64) -> (usize, u64) {
    let word = usize::try_from(number / 64).expect("messages of a run fit the memory as bits");
    (word, 1 << (number % 64))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn marks_are_a_set(sent in prop::collection::vec(0u64..300, 0..60), got in prop::collection::vec(0u64..300, 0..60)) {
            let marks = |numbers: &[u64]| {
                let mut marks = Marks::default();
                let mut set = BTreeSet::new();
                for &number in numbers {
                    assert_eq!(marks.mark(number), set.insert(number));
                }
                (marks, set)
            };
            let ((sent, sent_set), (got, got_set)) = (marks(&sent), marks(&got));
            prop_assert_eq!(sent.count(), sent_set.len() as u64);
            prop_assert_eq!(sent.missing_from(&got), sent_set.difference(&got_set).count() as u64);
        }
    }
}
