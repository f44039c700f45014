//! Names of topics and groups as labels.

use std::fmt::{self, Write as _};

use prometheus_client::encoding::{EncodeLabelValue, LabelValueEncoder};

/// A name as a label's value.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Name<T>(pub(super) T);

impl<T: AsRef<str>> EncodeLabelValue for Name<T> {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> fmt::Result {
        encoder.write_str(self.0.as_ref())
    }
}
