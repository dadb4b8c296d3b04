//! The frames of a capture in one of the two formats that everybody writes, one after the other.
//!
//! What a record says is `pcap-parser`'s part. Where a record begins and ends is found here, so that
//! the place of whatever is broken is known, and no length in the file can make the memory grow.

use std::{fmt, io, io::Read};

use pcap_parser::{PcapHeader, parse_pcap_header, pcap};
use thiserror::Error;

use super::{ng::Section, source::Source};

/// The longest frame that is believed: what capturing programs write at most.
pub(super) const LONGEST_FRAME: u32 = 262_144;
/// `LINKTYPE_ETHERNET` (www.tcpdump.org/linktypes.html).
pub(super) const ETHERNET: i32 = 1;
/// The fields above the link type say whether frames have check sequences at their end.
const LINK_TYPE: i32 = 0xffff;
const FILE_HEADER: usize = 24;
const RECORD_HEADER: usize = 16;
const VERSION: u16 = 2;
const NANOSECONDS_OF_A_SECOND: i128 = 1_000_000_000;

/// Why a capture cannot be read on.
#[derive(Debug, Error)]
pub enum CaptureError {
    /// The system did not give the bytes.
    #[error("offset {offset}: cannot read on: {source}")]
    Unreadable {
        /// From where on, in bytes.
        offset: u64,
        /// Why.
        source: io::Error,
    },
    /// The bytes are not what they should be.
    #[error("offset {offset}: {what}")]
    Broken {
        /// Where what is broken begins, in bytes.
        offset: u64,
        /// What is wrong.
        what: String,
    },
}

/// A time, in nanoseconds since 1970.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct CaptureTime(pub i128);

impl CaptureTime {
    pub(super) fn new(seconds: i128, nanoseconds: i128) -> Self {
        Self(seconds * NANOSECONDS_OF_A_SECOND + nanoseconds)
    }
}

/// Seconds, with every nanosecond.
impl fmt::Display for CaptureTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.0 < 0 { "-" } else { "" };
        let nanoseconds = self.0.unsigned_abs();
        let second = NANOSECONDS_OF_A_SECOND.unsigned_abs();
        write!(
            f,
            "{sign}{}.{:09}",
            nanoseconds / second,
            nanoseconds % second
        )
    }
}

/// A frame as it was captured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CapturedFrame<'a> {
    /// When. A frame without a time has that of the one before it.
    pub time: CaptureTime,
    /// Its bytes, as far as they were captured.
    pub bytes: &'a [u8],
    /// Whether there were more.
    pub is_cut_short: bool,
    /// The name of the interface, where the capture gives it.
    pub interface: Option<&'a str>,
}

/// A capture.
pub struct Capture<R> {
    source: Source<R>,
    format: Format,
    /// Bytes of the record that was given out last.
    given: usize,
    records: u64,
}

enum Format {
    Classic(PcapHeader),
    Ng(Section),
}

impl<R: Read> Capture<R> {
    /// Reads what a capture begins with.
    ///
    /// # Errors
    ///
    /// It is no capture, or not of Ethernet.
    pub fn open(file: R) -> Result<Self, CaptureError> {
        let mut source = Source::new(file);
        let is_whole = fill(&mut source, FILE_HEADER)?;
        let format = if Section::begins(source.bytes()) {
            Format::Ng(Section::default())
        } else {
            Format::Classic(classic_header(source.bytes(), is_whole)?)
        };
        let given = match format {
            Format::Classic(_) => FILE_HEADER,
            Format::Ng(_) => 0,
        };
        Ok(Self {
            source,
            format,
            given,
            records: 0,
        })
    }

    /// How far the file was read, in bytes.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.source.offset()
    }

    /// The next frame; `None` at the end.
    ///
    /// # Errors
    ///
    /// The file is broken or ends too early; there is no going on.
    pub fn next_frame(&mut self) -> Result<Option<CapturedFrame<'_>>, CaptureError> {
        self.source.pass_by(std::mem::take(&mut self.given));
        self.records += 1;
        match &mut self.format {
            Format::Classic(header) => {
                let Some(bytes) = whole_record(&mut self.source, header, self.records)? else {
                    return Ok(None);
                };
                self.given = bytes;
                frame_of_record(&self.source, header).map(Some)
            }
            Format::Ng(section) => {
                let Some(bytes) = section.find_frame(&mut self.source)? else {
                    return Ok(None);
                };
                self.given = bytes;
                section.frame(&self.source, bytes).map(Some)
            }
        }
    }
}

/// Reads until there are `wanted` bytes, and says whether there are.
pub(super) fn fill<R: Read>(source: &mut Source<R>, wanted: usize) -> Result<bool, CaptureError> {
    let filled = source.fill(wanted);
    filled.map_err(|error| CaptureError::Unreadable {
        offset: source.offset(),
        source: error,
    })
}

pub(super) fn broken(offset: u64, what: impl Into<String>) -> CaptureError {
    CaptureError::Broken {
        offset,
        what: what.into(),
    }
}

/// What is said of a record that begins at `offset` when only `found` bytes of it are there.
pub(super) fn cut_off(offset: u64, record: &str, found: usize, wanted: usize) -> CaptureError {
    broken(
        offset,
        format!("the file ends within {record}: {found} of its {wanted} bytes are there"),
    )
}

/// What is said of frames that are not Ethernet's.
pub(super) fn not_ethernet(offset: u64, link_type: i32) -> CaptureError {
    let words = match link_type {
        0 | 108 => "loopback, without Ethernet headers",
        12 | 14 | 101 | 228 | 229 => "bare IP, without Ethernet headers",
        105 | 119 | 127 | 163 => "wireless LAN",
        113 | 276 => {
            "Linux \"cooked\", which is what `tcpdump -i any` writes: capture on one interface by \
             its name"
        }
        _ => "of another kind",
    };
    broken(
        offset,
        format!("the link type is {link_type} ({words}); only Ethernet (1) can be replayed"),
    )
}

fn classic_header(bytes: &[u8], is_whole: bool) -> Result<PcapHeader, CaptureError> {
    if bytes.is_empty() {
        return Err(broken(0, "the file is empty"));
    }
    let header = match parse_pcap_header(bytes) {
        Ok((_, header)) => header,
        Err(error) if !error.is_incomplete() || is_whole => {
            return Err(broken(0, unknown_format(bytes)));
        }
        Err(_) => return Err(cut_off(0, "its header", bytes.len(), FILE_HEADER)),
    };
    if header.version_major != VERSION {
        let what = format!(
            "version {}.{} of the format; only version 2 can be read",
            header.version_major, header.version_minor
        );
        return Err(broken(4, what));
    }
    let link_type = header.network.0 & LINK_TYPE;
    if link_type == ETHERNET {
        Ok(header)
    } else {
        Err(not_ethernet(20, link_type))
    }
}

fn unknown_format(bytes: &[u8]) -> &'static str {
    match bytes {
        [0x1f, 0x8b, ..] => "the file is compressed (gzip): unpack it first",
        [0x28, 0xb5, 0x2f, 0xfd, ..] => "the file is compressed (zstd): unpack it first",
        [0x04, 0x22, 0x4d, 0x18, ..] => "the file is compressed (lz4): unpack it first",
        _ => "this is neither a pcap nor a pcapng file",
    }
}

/// Header bytes of a record: one old variant of the format has more fields.
fn record_header(header: &PcapHeader) -> usize {
    if header.is_modified_format() {
        RECORD_HEADER + 8
    } else {
        RECORD_HEADER
    }
}

/// Bytes of the next record, which is then there as a whole; `None` at the end of the file.
fn whole_record<R: Read>(
    source: &mut Source<R>,
    header: &PcapHeader,
    number: u64,
) -> Result<Option<usize>, CaptureError> {
    let header_bytes = record_header(header);
    let offset = source.offset();
    let record = format_args!("record {number}").to_string();
    if !fill(source, header_bytes)? {
        return match source.bytes().len() {
            0 => Ok(None),
            found => Err(cut_off(
                offset,
                &format!("record {number}"),
                found,
                header_bytes,
            )),
        };
    }
    let field: [u8; 4] = match source.bytes().get(8..12).map(TryInto::try_into) {
        Some(Ok(field)) => field,
        _ => return Ok(None),
    };
    let captured = if header.is_bigendian() {
        u32::from_be_bytes(field)
    } else {
        u32::from_le_bytes(field)
    };
    if captured > LONGEST_FRAME {
        let what = format!("record {number} claims a frame of {captured} bytes");
        return Err(broken(offset, what));
    }
    let bytes = header_bytes + captured as usize;
    if fill(source, bytes)? {
        Ok(Some(bytes))
    } else {
        Err(cut_off(offset, &record, source.bytes().len(), bytes))
    }
}

fn frame_of_record<'a, R: Read>(
    source: &'a Source<R>,
    header: &PcapHeader,
) -> Result<CapturedFrame<'a>, CaptureError> {
    let parse = if header.is_modified_format() {
        pcap::parse_pcap_frame_modified
    } else if header.is_bigendian() {
        pcap::parse_pcap_frame_be
    } else {
        pcap::parse_pcap_frame
    };
    let Ok((_, record)) = parse(source.bytes()) else {
        return Err(broken(source.offset(), "a record that cannot be read"));
    };
    let fraction = i128::from(record.ts_usec);
    let nanoseconds = if header.is_nanosecond_precision() {
        fraction
    } else {
        fraction * 1000
    };
    Ok(CapturedFrame {
        time: CaptureTime::new(record.ts_sec.into(), nanoseconds),
        bytes: record.data,
        is_cut_short: record.caplen < record.origlen,
        interface: None,
    })
}
