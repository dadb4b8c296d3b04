//! Captures in every form that is written: byte orders, resolutions, sections, old blocks; and
//! broken in every place.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test, helpers included, ends where it fails"
)]

use conduitfw::replay::{Capture, CaptureError, CaptureTime};
use proptest::prelude::*;

/// Numbers in one of the two byte orders.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Little,
    Big,
}

const ORDERS: [Order; 2] = [Order::Little, Order::Big];

impl Order {
    fn u16(self, number: u16) -> [u8; 2] {
        match self {
            Self::Little => number.to_le_bytes(),
            Self::Big => number.to_be_bytes(),
        }
    }

    fn u32(self, number: u32) -> [u8; 4] {
        match self {
            Self::Little => number.to_le_bytes(),
            Self::Big => number.to_be_bytes(),
        }
    }

    fn u64(self, number: u64) -> [u8; 8] {
        match self {
            Self::Little => number.to_le_bytes(),
            Self::Big => number.to_be_bytes(),
        }
    }

    fn words(self, numbers: &[u32]) -> Vec<u8> {
        numbers
            .iter()
            .flat_map(|number| self.u32(*number))
            .collect()
    }
}

const MICROSECONDS: u32 = 0xa1b2_c3d4;
const NANOSECONDS: u32 = 0xa1b2_3c4d;

fn classic(order: Order, magic: u32, link_type: u32) -> Vec<u8> {
    let mut bytes = order.u32(magic).to_vec();
    bytes.extend(order.u16(2));
    bytes.extend(order.u16(4));
    bytes.extend(order.words(&[0, 0, 65_535, link_type]));
    bytes
}

fn record(order: Order, seconds: u32, fraction: u32, frame: &[u8], original: u32) -> Vec<u8> {
    let length = u32::try_from(frame.len()).unwrap();
    let mut bytes = order.words(&[seconds, fraction, length, original]);
    bytes.extend(frame);
    bytes
}

fn block(order: Order, kind: u32, body: &[u8]) -> Vec<u8> {
    let padded = body.len().next_multiple_of(4);
    let length = u32::try_from(padded + 12).unwrap();
    let mut bytes = order.words(&[kind, length]);
    bytes.extend(body);
    bytes.resize(8 + padded, 0);
    bytes.extend(order.u32(length));
    bytes
}

fn section(order: Order) -> Vec<u8> {
    let mut body = order.u32(0x1a2b_3c4d).to_vec();
    body.extend(order.u16(1));
    body.extend(order.u16(0));
    body.extend(order.u64(u64::MAX));
    block(order, 0x0a0d_0d0a, &body)
}

fn option(order: Order, code: u16, value: &[u8]) -> Vec<u8> {
    let mut bytes = order.u16(code).to_vec();
    bytes.extend(order.u16(u16::try_from(value.len()).unwrap()));
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

fn interface(order: Order, link_type: u16, longest: u32, options: &[Vec<u8>]) -> Vec<u8> {
    let mut body = order.u16(link_type).to_vec();
    body.extend(order.u16(0));
    body.extend(order.u32(longest));
    body.extend(options.concat());
    block(order, 1, &body)
}

fn enhanced(order: Order, interface: u32, ticks: u64, frame: &[u8], original: u32) -> Vec<u8> {
    let high = u32::try_from(ticks >> 32).unwrap();
    let low = u32::try_from(ticks & 0xffff_ffff).unwrap();
    let length = u32::try_from(frame.len()).unwrap();
    let mut body = order.words(&[interface, high, low, length, original]);
    body.extend(frame);
    body.resize(body.len().next_multiple_of(4), 0);
    // A comment and the end of the options.
    body.extend(option(order, 1, b"remark"));
    body.extend(option(order, 0, b""));
    block(order, 6, &body)
}

fn simple(order: Order, frame: &[u8], original: u32) -> Vec<u8> {
    let mut body = order.u32(original).to_vec();
    body.extend(frame);
    block(order, 3, &body)
}

fn obsolete(order: Order, interface: u16, ticks: u64, frame: &[u8]) -> Vec<u8> {
    let mut body = order.u16(interface).to_vec();
    body.extend(order.u16(0xffff));
    body.extend(order.u32(u32::try_from(ticks >> 32).unwrap()));
    body.extend(order.u32(u32::try_from(ticks & 0xffff_ffff).unwrap()));
    let length = u32::try_from(frame.len()).unwrap();
    body.extend(order.words(&[length, length]));
    body.extend(frame);
    block(order, 2, &body)
}

/// A frame, owned.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Read {
    nanoseconds: i128,
    bytes: Vec<u8>,
    is_cut_short: bool,
    interface: Option<String>,
}

fn read(bytes: &[u8]) -> (Vec<Read>, Result<(), CaptureError>) {
    let mut frames = Vec::new();
    let mut capture = match Capture::open(bytes) {
        Ok(capture) => capture,
        Err(error) => return (frames, Err(error)),
    };
    loop {
        match capture.next_frame() {
            Ok(Some(frame)) => frames.push(Read {
                nanoseconds: frame.time.0,
                bytes: frame.bytes.to_vec(),
                is_cut_short: frame.is_cut_short,
                interface: frame.interface.map(str::to_owned),
            }),
            Ok(None) => return (frames, Ok(())),
            Err(error) => return (frames, Err(error)),
        }
    }
}

fn read_whole(bytes: &[u8]) -> Vec<Read> {
    let (frames, end) = read(bytes);
    if let Err(error) = end {
        panic!("{error}");
    }
    frames
}

fn complaint(bytes: &[u8]) -> String {
    let (_, end) = read(bytes);
    end.unwrap_err().to_string()
}

#[test]
fn both_byte_orders_and_both_resolutions() {
    for order in ORDERS {
        for (magic, fraction, nanoseconds) in [
            (MICROSECONDS, 999_999, 999_999_000),
            (NANOSECONDS, 123_456_789, 123_456_789),
        ] {
            let mut bytes = classic(order, magic, 1);
            bytes.extend(record(order, 4_000_000_000, fraction, &[1; 60], 60));
            bytes.extend(record(order, 1, 0, &[2; 20], 1514));
            bytes.extend(record(order, 1, 0, &[], 0));
            let frames = read_whole(&bytes);
            assert_eq!(frames.len(), 3, "{order:?}");
            assert_eq!(
                frames[0].nanoseconds,
                4_000_000_000 * 1_000_000_000 + nanoseconds
            );
            assert_eq!(frames[0].bytes, [1; 60]);
            assert!(!frames[0].is_cut_short && frames[1].is_cut_short);
        }
    }
}

#[test]
fn the_old_variant_with_longer_records() {
    let order = Order::Little;
    let mut bytes = classic(order, 0xa1b2_cd34, 1);
    bytes.extend(order.words(&[7, 5, 3, 3]));
    bytes.extend([0; 8]);
    bytes.extend([9; 3]);
    let frames = read_whole(&bytes);
    assert_eq!(frames[0].bytes, [9; 3]);
    assert_eq!(frames[0].nanoseconds, 7_000_005_000);
}

#[test]
fn what_stands_above_the_link_type_is_not_the_link_type() {
    // A frame check sequence of 4 bytes.
    let bytes = classic(Order::Big, MICROSECONDS, 0x4400_0001);
    assert!(read_whole(&bytes).is_empty());
}

#[test]
fn sections_have_their_own_byte_order_and_interfaces() {
    let mut bytes = Vec::new();
    for order in [Order::Little, Order::Big, Order::Little] {
        bytes.extend(section(order));
        bytes.extend(interface(order, 1, 0, &[option(order, 2, b"eth0")]));
        let offset = option(order, 14, &order.u64(100));
        let coarse = option(order, 9, &[3]);
        bytes.extend(interface(order, 1, 0, &[coarse, offset]));
        // Names, statistics, and what nobody knows.
        bytes.extend(block(order, 4, &[0; 4]));
        bytes.extend(block(order, 0x0bad, &[7; 9]));
        bytes.extend(enhanced(order, 0, 1_000_001, &[1; 61], 61));
        bytes.extend(enhanced(order, 1, 7_005, &[2; 60], 99));
        bytes.extend(obsolete(order, 0, 2_000_000, &[3; 59]));
    }
    let frames = read_whole(&bytes);
    assert_eq!(frames.len(), 9);
    for section in frames.chunks(3) {
        assert_eq!(section[0].nanoseconds, 1_000_001_000);
        assert_eq!(section[0].bytes, [1; 61]);
        assert_eq!(section[0].interface.as_deref(), Some("eth0"));
        assert_eq!(section[1].nanoseconds, 107_005_000_000);
        assert_eq!(section[1].interface, None);
        assert!(section[1].is_cut_short);
        assert_eq!(section[2].bytes, [3; 59]);
        assert!(!section[2].is_cut_short);
    }
}

#[test]
fn times_in_every_resolution() {
    let order = Order::Big;
    for (resolution, ticks, nanoseconds) in [
        (0, 3, 3_000_000_000),
        (9, 1_234_567_890_123_456_789, 1_234_567_890_123_456_789),
        (12, 5_000_000_123_456, 5_000_000_123),
        (127, u64::MAX, 0),
        (0x80, 3, 3_000_000_000),
        (0x8a, 1536, 1_500_000_000),
        (0xa0, u64::MAX, 4_294_967_295_999_999_999),
        (0xff, u64::MAX, 0),
    ] {
        let mut bytes = section(order);
        bytes.extend(interface(order, 1, 0, &[option(order, 9, &[resolution])]));
        bytes.extend(enhanced(order, 0, ticks, &[0; 14], 14));
        assert_eq!(
            read_whole(&bytes)[0].nanoseconds,
            nanoseconds,
            "{resolution}"
        );
    }
}

#[test]
fn a_frame_without_a_time_has_that_of_the_one_before() {
    let order = Order::Little;
    let mut bytes = section(order);
    bytes.extend(interface(order, 1, 20, &[]));
    bytes.extend(enhanced(order, 0, 77, &[0; 14], 14));
    bytes.extend(simple(order, &[5; 18], 18));
    bytes.extend(simple(order, &[6; 20], 1000));
    let frames = read_whole(&bytes);
    assert_eq!(frames[1].nanoseconds, 77_000);
    assert_eq!((frames[1].bytes.len(), frames[1].is_cut_short), (18, false));
    assert_eq!((frames[2].bytes.len(), frames[2].is_cut_short), (20, true));
}

#[test]
fn what_is_cut_off_anywhere_is_read_as_far_as_it_goes() {
    for order in ORDERS {
        let mut plain = classic(order, MICROSECONDS, 1);
        let mut ng = section(order);
        ng.extend(interface(order, 1, 0, &[]));
        let (mut plain_ends, mut ng_ends) = (vec![plain.len()], vec![ng.len()]);
        for number in 0..3 {
            plain.extend(record(order, 1, number, &[1; 33], 33));
            plain_ends.push(plain.len());
            ng.extend(enhanced(order, 0, number.into(), &[1; 33], 33));
            ng_ends.push(ng.len());
        }
        // A file may end between two blocks: here also before the first interface.
        let between = [section(order).len()];
        for (bytes, ends, also) in [(&plain, &plain_ends, &[][..]), (&ng, &ng_ends, &between)] {
            for length in 0..=bytes.len() {
                let (frames, end) = read(&bytes[..length]);
                let whole = ends.iter().filter(|end| **end <= length).count();
                assert_eq!(frames.len(), whole.saturating_sub(1), "{length}");
                let is_end = ends.contains(&length) || also.contains(&length);
                assert_eq!(end.is_ok(), is_end, "{length}: {end:?}");
                if let Err(error) = end {
                    let starts = ends.iter().chain(also).copied().chain([0]);
                    let start = starts.filter(|start| *start <= length).max().unwrap();
                    let said = error.to_string();
                    assert!(said.starts_with(&format!("offset {start}: ")), "{said}");
                }
            }
        }
    }
}

#[test]
fn a_changed_byte_is_survived() {
    for order in ORDERS {
        let mut plain = classic(order, NANOSECONDS, 1);
        plain.extend(record(order, 1, 1, &[1; 30], 30));
        plain.extend(record(order, 1, 1, &[1; 30], 30));
        let mut ng = section(order);
        ng.extend(interface(order, 1, 9, &[option(order, 9, &[6])]));
        ng.extend(enhanced(order, 0, 1, &[1; 30], 30));
        ng.extend(simple(order, &[1; 9], 30));
        ng.extend(obsolete(order, 0, 1, &[1; 30]));
        for bytes in [plain, ng] {
            for at in 0..bytes.len() {
                for value in [0, 1, 0x7f, 0x80, 0xff, bytes[at] ^ 1] {
                    let mut changed = bytes.clone();
                    changed[at] = value;
                    let (frames, _) = read(&changed);
                    assert!(frames.len() <= 3);
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// However a file is broken: an end comes, memory stays small, and every frame that is given
    /// out was in the file.
    #[test]
    fn changed_bytes_are_survived(
        is_big in any::<bool>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..3),
    ) {
        let order = if is_big { Order::Big } else { Order::Little };
        let mut plain = classic(order, MICROSECONDS, 1);
        let mut ng = section(order);
        ng.extend(interface(order, 1, 40, &[option(order, 9, &[9])]));
        for number in 0..4 {
            plain.extend(record(order, 1, number, &[1; 30], 30));
            ng.extend(enhanced(order, 0, number.into(), &[1; 30], 30));
            ng.extend(simple(order, &[1; 9], 30));
            ng.extend(obsolete(order, 0, 1, &[1; 30]));
        }
        for mut bytes in [plain, ng] {
            for (at, value) in &changes {
                let at = at.index(bytes.len());
                bytes[at] = *value;
            }
            for cut in &cuts {
                bytes.remove(cut.index(bytes.len()));
            }
            let (frames, _) = read(&bytes);
            let given: usize = frames.iter().map(|frame| frame.bytes.len()).sum();
            prop_assert!(given <= bytes.len());
        }
    }
}

#[test]
fn what_is_wrong_is_said_with_its_place() {
    let order = Order::Little;
    let plain = |link_type| classic(order, MICROSECONDS, link_type);
    let with = |mut bytes: Vec<u8>, more: &[u8]| {
        bytes.extend(more);
        bytes
    };
    let ng = with(section(order), &interface(order, 1, 0, &[]));
    let mut two_lengths = block(order, 5, &[0; 8]);
    two_lengths[16] = 24;
    for (bytes, wanted) in [
        (Vec::new(), "offset 0: the file is empty"),
        (b"GIF89a".to_vec(), "offset 0: this is neither"),
        (vec![7; 500], "offset 0: this is neither"),
        (
            vec![0x1f, 0x8b, 8, 0],
            "offset 0: the file is compressed (gzip)",
        ),
        (
            plain(113),
            "offset 20: the link type is 113 (Linux \"cooked\"",
        ),
        (plain(101), "offset 20: the link type is 101 (bare IP"),
        (
            plain(147),
            "offset 20: the link type is 147 (of another kind)",
        ),
        (
            with(plain(1), &order.words(&[0, 0, 262_145, 9])),
            "offset 24: record 1 claims a frame of 262145 bytes",
        ),
        (
            with(plain(1), &order.words(&[0, 0, 60, 60, 0])),
            "offset 24: the file ends within record 1: 20 of its 76 bytes are there",
        ),
        (
            with(ng.clone(), &enhanced(order, 1, 0, &[0; 14], 14)),
            "offset 48: a frame of interface 1, which is not described",
        ),
        (
            with(section(order), &simple(order, &[0; 14], 14)),
            "offset 28: a frame of interface 0, which is not described",
        ),
        (
            with(
                with(section(order), &interface(order, 276, 0, &[])),
                &simple(order, &[0; 14], 14),
            ),
            "offset 48: the link type is 276 (Linux \"cooked\"",
        ),
        (
            with(ng.clone(), &two_lengths),
            "offset 48: a block of type 5 gives two",
        ),
        (
            with(ng.clone(), &order.words(&[5, 0xffff_fff0, 0])),
            "offset 48: a block of type 5 claims to be 4294967280 bytes long",
        ),
        (
            with(ng.clone(), &order.words(&[0x0a0d_0d0a, 28, 7])),
            "offset 48: a section without a byte order",
        ),
    ] {
        let said = complaint(&bytes);
        assert!(said.starts_with(wanted), "{said}");
    }
}

#[test]
fn a_time_is_written_with_every_nanosecond() {
    for (nanoseconds, text) in [
        (0, "0.000000000"),
        (1, "0.000000001"),
        (1_700_000_000_123_456_789, "1700000000.123456789"),
        (-1_500_000_000, "-1.500000000"),
    ] {
        assert_eq!(CaptureTime(nanoseconds).to_string(), text);
    }
}
