//! What goes to the disk in one write: headers, bodies as they are in memory, and zeros.

use std::io::IoSlice;

use bytes::Bytes;

use crate::error::Error;
use crate::frame::{HEADER_LEN, padding};
use crate::header::segment_name;
use crate::log::op_len;
use crate::position::LogOffset;
use crate::spares::Active;
use crate::tail::Op;

const ZEROS: [u8; 4096] = [0; 4096];

/// Writes that follow each other in one file.
#[derive(Default)]
pub(crate) struct Run {
    start: LogOffset,
    headers: Vec<[u8; HEADER_LEN]>,
    parts: Vec<Part>,
}

/// What one write consists of, in order.
enum Part {
    /// The header with this number.
    Header(usize),
    Body(Bytes),
    Zeros(usize),
}

impl Run {
    pub(crate) fn push(&mut self, op: Op, active: Option<&Active>) {
        let len = op_len(&op);
        match op {
            Op::Segment(_) => unreachable!("segments are begun between runs"),
            Op::Frame { offset, header, body } => {
                self.header(offset, header);
                let zeros = padding(body.len());
                if !body.is_empty() {
                    self.parts.push(Part::Body(body));
                }
                self.zeros(zeros);
            }
            Op::Pad { offset, header, .. } => {
                let rest = match header {
                    Some(header) => {
                        self.header(offset, header);
                        len - HEADER_LEN as u64
                    }
                    None => {
                        self.begin(offset);
                        len
                    }
                };
                // A fresh file has zeros there already.
                if active.is_none_or(|active| active.recycled) {
                    self.zeros(crate::cursor::size(rest));
                }
            }
        }
    }

    fn begin(&mut self, offset: LogOffset) {
        if self.parts.is_empty() {
            self.start = offset;
        }
    }

    fn header(&mut self, offset: LogOffset, header: [u8; HEADER_LEN]) {
        self.begin(offset);
        self.parts.push(Part::Header(self.headers.len()));
        self.headers.push(header);
    }

    fn zeros(&mut self, mut len: usize) {
        while len > 0 {
            let now = len.min(ZEROS.len());
            self.parts.push(Part::Zeros(now));
            len -= now;
        }
    }

    pub(crate) fn flush(&mut self, active: Option<&Active>) -> Result<(), Error> {
        if self.parts.is_empty() {
            return Ok(());
        }
        let active = active.expect("the first frame of a log begins a segment");
        let mut slices: Vec<IoSlice<'_>> = self
            .parts
            .iter()
            .map(|part| match part {
                Part::Header(i) => IoSlice::new(&self.headers[*i]),
                Part::Body(body) => IoSlice::new(body),
                Part::Zeros(len) => IoSlice::new(&ZEROS[..*len]),
            })
            .collect();
        active
            .file
            .write_at(&mut slices, self.start - active.base)
            .map_err(|e| Error::io("write", &segment_name(active.base), e))?;
        *self = Self::default();
        Ok(())
    }
}
