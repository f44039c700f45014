//! The end of the log, and where the next entry goes.
//!
//! Pure: positions follow from the entries before and the segment size alone, so every replica
//! lays out the same bytes.

use bytes::Bytes;

use crate::config::GroupId;
use crate::frame::{FRAME_HEADER, FrameHeader, FrameKind, HEADER_LEN, frame_len};
use crate::header::{SEGMENT_HEADER, SegmentHeader};
use crate::position::{LogId, LogIndex, LogOffset};
use crate::record::Record;

/// The end of what is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tail {
    /// Where the next frame goes, if it fits the segment. A multiple of the segment size only as
    /// long as there is no segment at all.
    pub(crate) end: LogOffset,
    /// The last entry that is physically there.
    pub(crate) last: Option<LogId>,
    /// The index that may follow in this segment; `None` as long as there is no segment.
    pub(crate) next: Option<LogIndex>,
    /// Checksum that the next frame carries.
    pub(crate) chain: u32,
}

/// One thing to write. A sequence of them is contiguous in log offsets.
#[derive(Clone, Debug)]
pub(crate) enum Op {
    /// Go on in a new segment.
    Segment(SegmentHeader),
    /// Fill up to the segment's end.
    Pad {
        offset: LogOffset,
        len: u64,
        header: Option<[u8; HEADER_LEN]>,
    },
    Frame {
        offset: LogOffset,
        header: [u8; HEADER_LEN],
        body: Bytes,
    },
}

/// What is the same for all entries of a log.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Geometry {
    pub(crate) group_id: GroupId,
    pub(crate) segment_size: u64,
}

impl Tail {
    /// Of a log without segments.
    pub(crate) const EMPTY: Self = Self { end: LogOffset(0), last: None, next: None, chain: 0 };

    /// Of a log that ends with this segment's header.
    pub(crate) fn at_start_of(header: &SegmentHeader) -> Self {
        Self {
            end: header.base + SEGMENT_HEADER,
            last: header.prev,
            next: Some(header.first_index),
            chain: header.chain,
        }
    }

    /// The tail behind this frame, which stands at `self.end`.
    pub(crate) fn behind(&self, header: &FrameHeader, chain: u32) -> Self {
        Self {
            end: self.end + header.frame_len(),
            last: Some(header.log_id),
            next: Some(header.log_id.index.next()),
            chain,
        }
    }

    /// Lays out `record`, which follows the entry `prev`, and answers where its frame starts.
    ///
    /// `prev` differs from `self.last` when the log was purged past its end; the entry then goes to
    /// a segment of its own, whose header bears the gap.
    pub(crate) fn place(
        &mut self,
        geometry: Geometry,
        prev: Option<LogId>,
        record: &Record,
        ops: &mut Vec<Op>,
    ) -> LogOffset {
        let size = geometry.segment_size;
        let body_len = u32::try_from(record.body.len()).expect("bodies are checked on entry");
        let filled = self.end.0 % size;
        let joins = self.last == prev && self.next == Some(record.log_id.index);
        if filled == 0 || !joins || filled + frame_len(body_len) > size {
            self.roll(geometry, prev, record.log_id.index, ops);
        }
        let offset = self.end;
        let header = FrameHeader {
            kind: FrameKind::Entry(record.kind),
            body_len,
            log_id: record.log_id,
            offset,
            stamp: record.stamp,
            body_crc: record.body_crc,
            prev: self.chain,
        };
        let encoded = header.encode();
        *self = self.behind(&header, FrameHeader::chain_of(&encoded));
        assert!(self.end.0 <= offset.0 - offset.0 % size + size, "frame at {offset} fits");
        ops.push(Op::Frame { offset, header: encoded, body: record.body.clone() });
        offset
    }

    fn roll(
        &mut self,
        geometry: Geometry,
        prev: Option<LogId>,
        first_index: LogIndex,
        ops: &mut Vec<Op>,
    ) {
        let size = geometry.segment_size;
        let filled = self.end.0 % size;
        if filled != 0 {
            ops.push(self.pad(size - filled));
        }
        let joins = self.last == prev && self.next.is_none_or(|next| next == first_index);
        let header = SegmentHeader {
            group_id: geometry.group_id,
            base: LogOffset(self.end.0.next_multiple_of(size)),
            segment_size: size,
            first_index,
            prev,
            chain: if joins { self.chain } else { 0 },
        };
        ops.push(Op::Segment(header));
        *self = Self::at_start_of(&header);
    }

    fn pad(&self, len: u64) -> Op {
        let header = (len >= FRAME_HEADER).then(|| {
            FrameHeader {
                kind: FrameKind::Pad,
                body_len: u32::try_from(len - FRAME_HEADER).expect("segments are below 4 GiB"),
                log_id: LogId::default(),
                offset: self.end,
                stamp: 0,
                body_crc: 0,
                prev: self.chain,
            }
            .encode()
        });
        Op::Pad { offset: self.end, len, header }
    }
}
