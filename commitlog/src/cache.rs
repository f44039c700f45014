//! The end of the log in memory.
//!
//! Invariants: frames stand in the order of the log; whatever is not written yet is here.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::frame::{FRAME_HEADER, frame_len};
use crate::position::{LogIndex, LogOffset};
use crate::record::Frame;

/// What a frame takes besides its body, about.
const OVERHEAD: u64 = 128;

#[derive(Debug)]
pub(crate) struct TailCache {
    frames: VecDeque<Frame>,
    bytes: u64,
    limit: u64,
}

fn start_of(frame: &Frame) -> LogOffset {
    LogOffset(frame.position.0 - FRAME_HEADER)
}

fn end_of(frame: &Frame) -> LogOffset {
    let body_len = u32::try_from(frame.record.body.len()).expect("bodies are checked on entry");
    start_of(frame) + frame_len(body_len)
}

fn cost(frame: &Frame) -> u64 {
    frame.record.body.len() as u64 + OVERHEAD
}

impl TailCache {
    pub(crate) fn new(limit: u64) -> Self {
        Self { frames: VecDeque::new(), bytes: 0, limit }
    }

    pub(crate) fn push(&mut self, frame: Frame) {
        self.bytes += cost(&frame);
        self.frames.push_back(frame);
    }

    /// Forgets the oldest frames until the bound holds, but none that is not written.
    pub(crate) fn evict(&mut self, written: LogOffset) {
        while self.bytes > self.limit {
            let Some(frame) = self.frames.pop_front_if(|frame| end_of(frame) <= written) else {
                return;
            };
            self.bytes -= cost(&frame);
        }
    }

    /// Forgets what stands at `end` and behind.
    pub(crate) fn truncate(&mut self, end: LogOffset) {
        while let Some(frame) = self.frames.pop_back_if(|frame| start_of(frame) >= end) {
            self.bytes -= cost(&frame);
        }
    }

    /// Frames from the one with this index on; `None` if that one is not here.
    pub(crate) fn starting_at(&self, index: LogIndex) -> Option<impl Iterator<Item = &Frame>> {
        let at = self.frames.partition_point(|frame| frame.record.log_id.index < index);
        let found = self.frames.get(at).is_some_and(|frame| frame.record.log_id.index == index);
        found.then(|| self.frames.range(at..))
    }

    /// A part of a body; `None` if it is not here.
    pub(crate) fn slice(&self, offset: LogOffset, len: u64) -> Option<Bytes> {
        let behind = self.frames.partition_point(|frame| frame.position <= offset);
        let frame = self.frames.get(behind.checked_sub(1)?)?;
        let from = usize::try_from(offset - frame.position).ok()?;
        let to = from.checked_add(usize::try_from(len).ok()?)?;
        (to <= frame.record.body.len()).then(|| frame.record.body.slice(from..to))
    }
}
