//! The layout of a template: what the pacing program of the bench writes over a frame before it
//! hands the frame on. Shared by the program and by user space, so it is plain words.

/// Words of a template: [`FIELDS`], then the bytes of the frame.
pub(crate) const TEMPLATE_WORDS: usize = FIELDS + FRAME_WORDS;
/// Words before the bytes of the frame.
pub(crate) const FIELDS: usize = 16;
/// Words of the longest frame that a test run takes in one piece: 3,456 bytes.
pub(crate) const FRAME_WORDS: usize = 432;
/// Templates of one script, a power of two.
pub(crate) const TEMPLATES: u32 = 8;
/// Flows that a script can pace, a power of two.
pub(crate) const FLOWS: u32 = 65_536;

/// Field: bytes of the frame.
pub(crate) const BYTES: usize = 0;
/// Field: whole words of the frame to write anew each time, and the tail; 0 for nothing.
pub(crate) const WORDS: usize = 1;
/// Field: where the transport header begins; 0 when nothing is to be patched.
pub(crate) const TRANSPORT_AT: usize = 2;
/// Field: where the last word of the initiator's address stands; 0 when it stays.
pub(crate) const ADDRESS_AT: usize = 3;
/// Field: that word in host order, of flow 0.
pub(crate) const ADDRESS: usize = 4;
/// Field: the initiator's port of flow 0.
pub(crate) const PORT: usize = 5;
/// Field: 1 for a frame of the responder.
pub(crate) const IS_REPLY: usize = 6;
/// Field: bytes by which the sender's sequence number moves on.
pub(crate) const ADVANCE: usize = 7;
/// Field: where the first ADU begins; 0 when transaction ids stay.
pub(crate) const ADU_AT: usize = 8;
/// Field: how many there are.
pub(crate) const ADUS: usize = 9;
/// Field: bytes from one to the next.
pub(crate) const ADU_BYTES: usize = 10;
/// Field: 1 when the numbers of TCP are to be patched.
pub(crate) const IS_TCP: usize = 11;

/// Field: the last eight bytes of the frame.
pub(crate) const TAIL: usize = 12;

/// Field: the interface that the program `blast` sends the frame to.
pub(crate) const IFINDEX: usize = 13;

/// Ports of one address; the flow's number goes on with the next address.
pub(crate) const PORTS_SHIFT: u32 = 14;

/// Words of the script.
pub(crate) const SCRIPT_WORDS: usize = 10;
/// Script: how many frames were paced so far.
pub(crate) const COUNT: usize = 0;
/// Script: frames in a row of one flow, as a power of two.
pub(crate) const DEPTH_SHIFT: usize = 1;
/// Script: flows less one.
pub(crate) const FLOW_MASK: usize = 2;
/// Script: frames in a row of one template, as a power of two.
pub(crate) const TEMPLATE_SHIFT: usize = 3;
/// Script: templates less one.
pub(crate) const TEMPLATE_MASK: usize = 4;
/// Script: when the last frame began, in ns; 0 before the first frame of a run.
pub(crate) const LAST_NS: usize = 5;
/// Script: its template.
pub(crate) const LAST_TEMPLATE: usize = 6;
/// Script: 1 to take the time of each frame.
pub(crate) const IS_CLOCKED: usize = 7;
/// Script: frames whose time was taken in this run.
pub(crate) const CLOCKED: usize = 8;
/// Script: frames of a block, as a power of two.
pub(crate) const BLOCK_SHIFT: usize = 9;

/// Rows of the ends of wires, a power of two.
pub(crate) const WIRES: u32 = 1024;

/// Blocks of frames in one run, each with times of its own: a run takes long to begin. A power of
/// two; what comes behind the last belongs to the last.
pub(crate) const BLOCKS: u32 = 8;

/// Words of a flow's state: next numbers of initiator and responder, next transaction ids.
pub(crate) const STATE_WORDS: usize = 4;
