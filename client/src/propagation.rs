//! Traces that go on beyond a message: a W3C `traceparent` travels with it.

use std::{fmt, sync::Arc};

use tracing::Span;

use crate::MessageView;

type Current = dyn Fn() -> Option<String> + Send + Sync;
type Continue = dyn Fn(&Span, &str) + Send + Sync;

/// How this process names the trace it is in, and continues the one that a message names.
///
/// The client itself only makes `tracing` spans and carries the text. With OpenTelemetry, `current`
/// injects the current context by its `TraceContextPropagator`, and `resume` extracts it and calls
/// `span.set_parent`.
///
/// ```
/// use raftmq_client::Propagation;
///
/// let propagation = Propagation::new(
///     || Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".to_owned()),
///     |span, traceparent| {
///         span.record("parent", traceparent);
///     },
/// );
/// # let _ = propagation;
/// ```
#[derive(Clone)]
pub struct Propagation {
    current: Arc<Current>,
    resume: Arc<Continue>,
}

impl Propagation {
    /// `current` gives the `traceparent` that sent messages carry; `resume` is called with the span
    /// in which a received message is processed and the `traceparent` that it carries.
    pub fn new(
        current: impl Fn() -> Option<String> + Send + Sync + 'static,
        resume: impl Fn(&Span, &str) + Send + Sync + 'static,
    ) -> Self {
        Self { current: Arc::new(current), resume: Arc::new(resume) }
    }

    pub(crate) fn current(&self) -> Option<String> {
        (self.current)()
    }

    pub(crate) fn resume(&self, span: &Span, message: &MessageView) {
        if let Some(traceparent) = message.trace_context() {
            (self.resume)(span, traceparent);
        }
    }
}

impl fmt::Debug for Propagation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Propagation")
    }
}
