//! The frames of an answer as a capture, to be looked at or to be replayed.

use std::io::{self, Write};

use super::session::JudgedFrame;

/// Seconds since 1970 of the first frame: the beginning of 2000.
const BEGINNING: u64 = 946_684_800;
const LINK_ETHERNET: u32 = 1;

/// Writes frames as a pcap file, with times in microseconds.
///
/// # Errors
///
/// What the writer says.
pub fn write(mut to: impl Write, frames: &[JudgedFrame]) -> io::Result<()> {
    // Magic number, version 2.4, no time zone, no accuracy, the longest frame, the link.
    to.write_all(&0xa1b2_c3d4_u32.to_le_bytes())?;
    to.write_all(&2_u16.to_le_bytes())?;
    to.write_all(&4_u16.to_le_bytes())?;
    for number in [0, 0, 0xffff, LINK_ETHERNET] {
        to.write_all(&number.to_le_bytes())?;
    }
    for frame in frames {
        let seconds = u32::try_from(BEGINNING + frame.after.as_secs()).unwrap_or(u32::MAX);
        let length = u32::try_from(frame.bytes.len()).unwrap_or(u32::MAX);
        for number in [seconds, frame.after.subsec_micros(), length, length] {
            to.write_all(&number.to_le_bytes())?;
        }
        to.write_all(&frame.bytes)?;
    }
    to.flush()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_frame_has_its_time_and_length() {
        let frame = JudgedFrame {
            after: Duration::from_millis(1500),
            bytes: vec![7; 60],
        };
        let mut file = Vec::new();
        write(&mut file, &[frame]).unwrap();
        assert_eq!(file.len(), 24 + 16 + 60);
        assert_eq!(file[24..28], 946_684_801_u32.to_le_bytes());
        assert_eq!(file[28..32], 500_000_u32.to_le_bytes());
        assert_eq!(file[32..36], 60_u32.to_le_bytes());
    }
}
