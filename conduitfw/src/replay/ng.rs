//! pcapng (draft-ietf-opsawg-pcapng): blocks, sections and interfaces.

use std::io::Read;

use pcap_parser::{
    Block, InterfaceDescriptionBlock, OptionCode, PcapNGOption, parse_block_be, parse_block_le,
};

use super::{
    capture::{
        CaptureError, CaptureTime, CapturedFrame, ETHERNET, LONGEST_FRAME, broken, cut_off, fill,
        not_ethernet,
    },
    source::Source,
};

const SECTION_HEADER: u32 = 0x0a0d_0d0a;
const INTERFACE_DESCRIPTION: u32 = 1;
/// The block that packets stood in before the enhanced one.
const OBSOLETE_PACKET: u32 = 2;
const SIMPLE_PACKET: u32 = 3;
const ENHANCED_PACKET: u32 = 6;
/// Type and length, and the byte order of a section header.
const BLOCK_START: usize = 12;
/// Type, and length twice.
const SHORTEST_BLOCK: u32 = 12;
/// What no block is longer than; those that hold no frame may be large (names, secrets).
const LONGEST_BLOCK: u32 = 16 << 20;
const MOST_INTERFACES: usize = 65_536;
/// Up to here an obsolete packet block holds other fields.
const OBSOLETE_FIELDS: usize = 20;
/// Microseconds, as long as an interface does not say something else.
const MICROSECONDS: u8 = 6;
const IS_BINARY: u8 = 0x80;

/// What is known of the section at hand.
#[derive(Default)]
pub(super) struct Section {
    is_big_endian: bool,
    interfaces: Vec<Interface>,
    last: CaptureTime,
}

struct Interface {
    link_type: i32,
    name: Option<String>,
    resolution: u8,
    offset_seconds: i64,
    longest: u32,
}

impl Section {
    /// Whether a file that begins like this is in the format.
    pub(super) fn begins(bytes: &[u8]) -> bool {
        bytes.starts_with(&SECTION_HEADER.to_be_bytes())
    }

    /// Bytes of the next block with a frame, which is then there as a whole; `None` at the end of
    /// the file. What the blocks before it say is remembered.
    pub(super) fn find_frame<R: Read>(
        &mut self,
        source: &mut Source<R>,
    ) -> Result<Option<usize>, CaptureError> {
        loop {
            let Some((kind, bytes)) = self.whole_block(source)? else {
                return Ok(None);
            };
            match kind {
                SIMPLE_PACKET | ENHANCED_PACKET | OBSOLETE_PACKET => return Ok(Some(bytes)),
                INTERFACE_DESCRIPTION => self.add_interface(source, bytes)?,
                _ => {}
            }
            source.pass_by(bytes);
        }
    }

    /// Type and bytes of the next block.
    fn whole_block<R: Read>(
        &mut self,
        source: &mut Source<R>,
    ) -> Result<Option<(u32, usize)>, CaptureError> {
        let offset = source.offset();
        if !fill(source, BLOCK_START)? {
            return match source.bytes().len() {
                0 => Ok(None),
                found => Err(cut_off(offset, "a block", found, BLOCK_START)),
            };
        }
        let mut kind = self.u32(source.bytes(), 0).unwrap_or(0);
        if kind == SECTION_HEADER {
            self.begin_section(source.bytes(), offset)?;
            kind = SECTION_HEADER;
        }
        let length = self.u32(source.bytes(), 4).unwrap_or(0);
        if !(SHORTEST_BLOCK..=LONGEST_BLOCK).contains(&length) || !length.is_multiple_of(4) {
            let what = format!("a block of type {kind} claims to be {length} bytes long");
            return Err(broken(offset, what));
        }
        let bytes = length as usize;
        if !fill(source, bytes)? {
            let found = source.bytes().len();
            return Err(cut_off(offset, "a block", found, bytes));
        }
        let again = self.u32(source.bytes(), bytes - 4);
        if again == Some(length) {
            Ok(Some((kind, bytes)))
        } else {
            let what = format!("a block of type {kind} gives two different lengths");
            Err(broken(offset, what))
        }
    }

    /// Each section has its own byte order and its own interfaces.
    fn begin_section(&mut self, bytes: &[u8], offset: u64) -> Result<(), CaptureError> {
        self.is_big_endian = match bytes.get(8..12) {
            Some([0x1a, 0x2b, 0x3c, 0x4d]) => true,
            Some([0x4d, 0x3c, 0x2b, 0x1a]) => false,
            _ => return Err(broken(offset, "a section without a byte order")),
        };
        self.interfaces.clear();
        Ok(())
    }

    fn add_interface<R: Read>(
        &mut self,
        source: &Source<R>,
        bytes: usize,
    ) -> Result<(), CaptureError> {
        let offset = source.offset();
        let Some(Block::InterfaceDescription(block)) = self.block(source, bytes) else {
            return Err(broken(offset, "an interface that cannot be read"));
        };
        if self.interfaces.len() >= MOST_INTERFACES {
            return Err(broken(offset, "more than 65,536 interfaces in a section"));
        }
        let interface = Interface::new(&block, self.is_big_endian);
        self.interfaces.push(interface);
        Ok(())
    }

    /// The frame in the block that [`Self::find_frame`] found.
    pub(super) fn frame<'a, R: Read>(
        &'a mut self,
        source: &'a Source<R>,
        bytes: usize,
    ) -> Result<CapturedFrame<'a>, CaptureError> {
        let offset = source.offset();
        let unreadable = || broken(offset, "a frame that cannot be read");
        let block = self.block(source, bytes).ok_or_else(unreadable)?;
        let found = match block {
            Block::EnhancedPacket(block) => Found {
                interface: block.if_id,
                ticks: Some(u64::from(block.ts_high) << 32 | u64::from(block.ts_low)),
                bytes: block
                    .data
                    .get(..block.caplen as usize)
                    .ok_or_else(unreadable)?,
                original: block.origlen,
            },
            Block::SimplePacket(block) => {
                // How much was captured is not said, but follows from what could have been.
                let longest = self.interfaces.first().map_or(0, |first| first.longest);
                // 0 says that nothing was cut.
                let longest = if longest == 0 { u32::MAX } else { longest };
                let captured = block.origlen.min(longest) as usize;
                let data = block.data;
                Found {
                    interface: 0,
                    ticks: None,
                    bytes: data.get(..captured).unwrap_or(data),
                    original: block.origlen,
                }
            }
            Block::Unknown(block) => self.obsolete(block.data).ok_or_else(unreadable)?,
            _ => return Err(unreadable()),
        };
        let Some(interface) = self.interfaces.get(found.interface as usize) else {
            let what = format!(
                "a frame of interface {}, which is not described",
                found.interface
            );
            return Err(broken(offset, what));
        };
        if interface.link_type != ETHERNET {
            return Err(not_ethernet(offset, interface.link_type));
        }
        if found.bytes.len() > LONGEST_FRAME as usize {
            let what = format!("a frame of {} bytes", found.bytes.len());
            return Err(broken(offset, what));
        }
        if let Some(ticks) = found.ticks {
            self.last = interface.time(ticks);
        }
        Ok(CapturedFrame {
            time: self.last,
            bytes: found.bytes,
            is_cut_short: found.bytes.len() < found.original as usize,
            interface: interface.name.as_deref(),
        })
    }

    fn block<'a, R: Read>(&self, source: &'a Source<R>, bytes: usize) -> Option<Block<'a>> {
        let bytes = source.bytes().get(..bytes)?;
        let parsed = if self.is_big_endian {
            parse_block_be(bytes)
        } else {
            parse_block_le(bytes)
        };
        parsed.ok().map(|(_, block)| block)
    }

    fn obsolete<'a>(&self, body: &'a [u8]) -> Option<Found<'a>> {
        let words: [u8; 2] = body.get(..2)?.try_into().ok()?;
        let interface = if self.is_big_endian {
            u16::from_be_bytes(words)
        } else {
            u16::from_le_bytes(words)
        };
        let ticks = u64::from(self.u32(body, 4)?) << 32 | u64::from(self.u32(body, 8)?);
        let captured = self.u32(body, 12)? as usize;
        Some(Found {
            interface: u32::from(interface),
            ticks: Some(ticks),
            bytes: body.get(OBSOLETE_FIELDS..)?.get(..captured)?,
            original: self.u32(body, 16)?,
        })
    }

    fn u32(&self, bytes: &[u8], at: usize) -> Option<u32> {
        let bytes: [u8; 4] = bytes.get(at..at.checked_add(4)?)?.try_into().ok()?;
        Some(if self.is_big_endian {
            u32::from_be_bytes(bytes)
        } else {
            u32::from_le_bytes(bytes)
        })
    }
}

struct Found<'a> {
    interface: u32,
    ticks: Option<u64>,
    bytes: &'a [u8],
    original: u32,
}

impl Interface {
    fn new(block: &InterfaceDescriptionBlock<'_>, is_big_endian: bool) -> Self {
        let name = block.if_name().and_then(Result::ok).map(str::to_owned);
        let resolution = option(block, OptionCode::IfTsresol).and_then(|value| value.first());
        let offset = option(block, OptionCode::IfTsoffset)
            .and_then(|value| value.try_into().ok())
            .map_or(0, |bytes: [u8; 8]| {
                if is_big_endian {
                    i64::from_be_bytes(bytes)
                } else {
                    i64::from_le_bytes(bytes)
                }
            });
        Self {
            link_type: block.linktype.0,
            name,
            resolution: resolution.copied().unwrap_or(MICROSECONDS),
            offset_seconds: offset,
            longest: block.snaplen,
        }
    }

    /// `if_tsresol`: ticks in a second, as a power of 10 or of 2.
    fn time(&self, ticks: u64) -> CaptureTime {
        let exponent = u32::from(self.resolution & !IS_BINARY);
        let ticks = i128::from(ticks);
        let nanoseconds = if self.resolution & IS_BINARY != 0 {
            (ticks * 1_000_000_000) >> exponent
        } else if exponent <= 9 {
            ticks * 10_i128.pow(9 - exponent)
        } else {
            let unit = 10_i128.checked_pow(exponent - 9);
            unit.map_or(0, |unit| ticks / unit)
        };
        CaptureTime::new(self.offset_seconds.into(), nanoseconds)
    }
}

fn option<'a>(block: &'a InterfaceDescriptionBlock<'_>, code: OptionCode) -> Option<&'a [u8]> {
    let found = block.options.iter().find(|option| option.code == code);
    found.and_then(|option: &PcapNGOption<'_>| option.as_bytes().ok())
}
