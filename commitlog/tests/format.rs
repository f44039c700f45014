//! The bytes on disk. A change here is a change of the format: it needs a new version, and the old
//! one must stay readable.

mod common;

use commitlog::position::{LogId, LogIndex};
use commitlog::{Kind, Record, SimDisk};
use common::Node;

fn hex(bytes: &[u8]) -> String {
    let words: Vec<String> = bytes
        .chunks(8)
        .map(|word| word.iter().map(|byte| format!("{byte:02x}")).collect())
        .collect();
    words.join(" ")
}

/// Two entries, a vote and a purge.
fn written() -> SimDisk {
    let disk = SimDisk::new();
    let mut node = Node::open(&disk).unwrap();
    node.append(vec![Record::new(
        LogId::new(0, 0),
        Kind::Membership,
        0,
        b"members".as_slice().into(),
    )])
    .unwrap();
    node.append(vec![Record::new(
        LogId::new(3, 1),
        Kind::Batch,
        0x0102_0304,
        b"commands".as_slice().into(),
    )])
    .unwrap();
    node.log.set_committed(LogIndex(1));
    node.vote(0xab).unwrap();
    node.log.purge_to(LogId::new(0, 0), node.outcomes.named(0)).unwrap();
    node.settle();
    disk
}

#[test]
fn a_segment_header_has_these_bytes() {
    let segment = written().contents("00000000000000000000.seg").unwrap();
    assert_eq!(segment.len(), 8192);
    assert_eq!(
        hex(&segment[..80]),
        concat!(
            "524d515349b52be9 0100000000000000 00ffeeddccbbaa99 8877665544332211 ",
            "0000000000000000 0020000000000000 0000000000000000 0000000000000000 ",
            "0000000000000000 0000000000000000"
        )
    );
    assert!(segment[80..4096].iter().all(|&byte| byte == 0));
}

#[test]
fn frames_have_these_bytes() {
    let segment = written().contents("00000000000000000000.seg").unwrap();
    assert_eq!(
        hex(&segment[4096..4168]),
        concat!(
            "524d51460fc74256 0300000007000000 0000000000000000 0000000000000000 ",
            "0010000000000000 0000000000000000 ffd2a04500000000 0000000000000000 ",
            "6d656d6265727300"
        )
    );
    assert_eq!(
        hex(&segment[4168..4240]),
        concat!(
            "524d51460dc6ebe5 0200000008000000 0300000000000000 0100000000000000 ",
            "4810000000000000 0403020100000000 2c133e9a0fc74256 0000000000000000 ",
            "636f6d6d616e6473"
        )
    );
    assert!(segment[4240..].iter().all(|&byte| byte == 0));
}

#[test]
fn the_hard_state_has_these_bytes_twice() {
    let file = written().contents("hardstate").unwrap();
    assert_eq!(file.len(), 4608);
    assert_eq!(file[..512], file[4096..]);
    assert_eq!(
        hex(&file[..144]),
        concat!(
            "524d5148f1c2104a 010000000f000000 0400000000000000 0100000000000000 ",
            "00ffeeddccbbaa99 8877665544332211 abababababababab abababababababab ",
            "abababababababab 0000000000000000 0000000000000000 0100000000000000 ",
            "9010000000000000 0000000000000000 0000000000000000 0000000000000000 ",
            "0000000000000000 8014000000000000"
        )
    );
    assert!(file[144..4096].iter().all(|&byte| byte == 0));
}
