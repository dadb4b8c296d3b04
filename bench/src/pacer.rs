//! Frames in the kernel, one fresh frame after the other: a script of templates that the program
//! `pace` writes over the frame of a test run before it hands it to the program under measurement.
//!
//! A plain `repeat` of `BPF_PROG_TEST_RUN` gives the same bytes each time, which to a firewall that
//! follows connections is one segment and then nothing but repetitions. The script moves sequence
//! numbers, transaction ids and ports on, and takes the time between the beginnings of two frames.
//! What the script itself costs is measured the same way, with a program that does nothing.

use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use aya::maps::{Array, Map, MapData, MapError, PerCpuArray, ProgramArray, RingBuf};
use aya::programs::{ProgramFd, TestRun as _, TestRunOptions, Xdp};
use aya::{Ebpf, EbpfLoader, TestRunAttrs};
use conduitfw_tests::frames::Frame;

use crate::script::{
    ADDRESS, ADDRESS_AT, ADU_AT, ADU_BYTES, ADUS, ADVANCE, BLOCK_SHIFT, BLOCKS, BYTES, CLOCKED,
    DEPTH_SHIFT, FIELDS, FLOW_MASK, FRAME_WORDS, IFINDEX, IS_CLOCKED, IS_REPLY, IS_TCP, LAST_NS,
    PORT, SCRIPT_WORDS, STATE_WORDS, TAIL, TEMPLATE_MASK, TEMPLATE_SHIFT, TEMPLATE_WORDS,
    TEMPLATES, TRANSPORT_AT, WIRES, WORDS,
};

/// Frames that a sender lets go before those behind it are served.
pub(crate) const TURN: u32 = 64;

/// A frame, and what of it is to be fresh each time.
#[derive(Clone)]
pub(crate) struct Template([u64; TEMPLATE_WORDS]);

impl Template {
    /// The frame as it stands, each time the same.
    pub(crate) fn fixed(frame: &[u8]) -> Result<Self> {
        let mut words = [0; TEMPLATE_WORDS];
        ensure!(frame.len() <= FRAME_WORDS * 8, "a frame is too long");
        words[BYTES] = frame.len() as u64;
        words[WORDS] = (frame.len() / 8) as u64;
        if let Some(tail) = frame.last_chunk() {
            words[TAIL] = u64::from_ne_bytes(*tail);
        }
        for (word, bytes) in words[FIELDS..].iter_mut().zip(frame.chunks(8)) {
            let mut eight = [0; 8];
            eight[..bytes.len()].copy_from_slice(bytes);
            *word = u64::from_ne_bytes(eight);
        }
        Ok(Self(words))
    }

    /// A frame of a flow that `initiator` opened: its ports, numbers and transaction ids are
    /// fresh each time.
    pub(crate) fn of_flow(frame: &Frame, initiator: SocketAddr, is_reply: bool) -> Result<Self> {
        let bytes = frame.build();
        let mut this = Self::fixed(&bytes)?;
        let layout = Layout::of(&bytes).context("a frame of a flow is TCP or UDP")?;
        let words = &mut this.0;
        words[TRANSPORT_AT] = layout.transport as u64;
        words[PORT] = u64::from(initiator.port());
        words[IS_REPLY] = u64::from(is_reply);
        words[IS_TCP] = u64::from(layout.is_tcp);
        let address_bytes = if initiator.is_ipv4() { 4 } else { 16 };
        let source = layout.addresses + if is_reply { address_bytes } else { 0 };
        words[ADDRESS_AT] = (source + address_bytes - 4) as u64;
        let last = match initiator {
            SocketAddr::V4(address) => u32::from(*address.ip()),
            SocketAddr::V6(address) => (u128::from(*address.ip()) & 0xffff_ffff) as u32,
        };
        words[ADDRESS] = u64::from(last);
        let is_syn = layout.is_tcp && bytes[layout.transport + 13] & 2 != 0;
        words[ADVANCE] = (bytes.len() - layout.payload) as u64 + u64::from(is_syn);
        Ok(this)
    }

    /// Nothing but the patches is written: for a script of one template.
    pub(crate) fn keeping_all(mut self) -> Self {
        self.0[WORDS] = 0;
        self
    }

    /// Numbers stay: for frames that are denied, and for acknowledgements.
    pub(crate) fn staying(mut self) -> Self {
        self.0[ADVANCE] = 0;
        self
    }

    /// The program `blast` sends the frame to this interface.
    pub(crate) fn to(mut self, ifindex: u32) -> Self {
        self.0[IFINDEX] = u64::from(ifindex);
        self
    }

    /// The payload is so many ADUs, each so long, with a transaction id of its own.
    pub(crate) fn adus(mut self, count: usize, bytes: usize) -> Self {
        self.0[ADU_AT] = self.0[BYTES] - (count * bytes) as u64;
        self.0[ADUS] = count as u64;
        self.0[ADU_BYTES] = bytes as u64;
        self
    }

    fn bytes(&self) -> usize {
        self.0[BYTES] as usize
    }

    /// The frame itself.
    pub(crate) fn frame(&self) -> Vec<u8> {
        let bytes = self.0[FIELDS..].iter().flat_map(|word| word.to_ne_bytes());
        bytes.take(self.bytes()).collect()
    }
}

/// Where things stand in a frame.
struct Layout {
    addresses: usize,
    transport: usize,
    payload: usize,
    is_tcp: bool,
}

impl Layout {
    fn of(frame: &[u8]) -> Option<Self> {
        let mut at = 12;
        while matches!(frame.get(at..at + 2)?, [0x81, 0] | [0x88, 0xa8]) {
            at += 4;
        }
        let network = at + 2;
        let (addresses, transport, protocol) = match frame.get(network)? >> 4 {
            4 => {
                let header = usize::from(frame.get(network)? & 15) * 4;
                (network + 12, network + header, *frame.get(network + 9)?)
            }
            _ => (network + 8, network + 40, *frame.get(network + 6)?),
        };
        let is_tcp = protocol == 6;
        let header = if is_tcp {
            usize::from(frame.get(transport + 12)? >> 4) * 4
        } else {
            8
        };
        (is_tcp || protocol == 17).then_some(Self {
            addresses,
            transport,
            payload: transport + header,
            is_tcp,
        })
    }
}

/// Templates, and in which order they come.
#[derive(Clone)]
pub(crate) struct Script {
    /// A power of two of them, each once before the first comes again.
    pub(crate) templates: Vec<Template>,
    /// How many flows take turns: a power of two.
    pub(crate) flows: u64,
    /// Frames in a row of one flow, a power of two.
    pub(crate) depth: u64,
    /// Frames in a row of one template, a power of two.
    pub(crate) turn: u64,
}

impl Script {
    /// One flow, its templates in turn.
    pub(crate) fn of(templates: Vec<Template>) -> Self {
        Self {
            templates,
            flows: 1,
            depth: 1,
            turn: 1,
        }
    }

    /// No frames.
    pub(crate) fn nothing() -> Self {
        Self::of(Vec::new())
    }

    /// So many flows, all with the first template before the first with the next.
    pub(crate) fn in_turns(mut self, flows: u64) -> Self {
        self.flows = flows;
        self.turn = flows;
        self
    }

    /// Flows that take turns, each with all of its templates in a row.
    pub(crate) fn across(mut self, flows: u64) -> Self {
        self.flows = flows;
        self.depth = self.templates.len() as u64;
        self
    }
}

/// The yardsticks, loaded, with a script of their own.
pub(crate) struct Pacer {
    ebpf: Ebpf,
    script: Array<MapData, [u64; SCRIPT_WORDS]>,
    templates: Array<MapData, [u64; TEMPLATE_WORDS]>,
    states: Array<MapData, [u32; STATE_WORDS]>,
    times: Array<MapData, [u64; 2]>,
    next: ProgramArray<MapData>,
    frame: Vec<u8>,
    count: usize,
}

fn take<M: TryFrom<Map, Error = MapError>>(ebpf: &mut Ebpf, name: &str) -> Result<M> {
    let map = ebpf
        .take_map(name)
        .with_context(|| format!("the yardsticks have no {name}"))?;
    Ok(M::try_from(map)?)
}

impl Pacer {
    /// Loads the yardsticks, with room for so many flows of the script and of the floor.
    pub(crate) fn load(object: &Path, states: u32, flows: u32) -> Result<Self> {
        let mut loader = EbpfLoader::new();
        loader.map_max_entries("YARD_STATES", states.max(1));
        loader.map_max_entries("YARD_FLOWS", flows.max(2));
        let mut ebpf = loader
            .load_file(object)
            .with_context(|| format!("{}: run `cargo xtask bench`", object.display()))?;
        xdp(&mut ebpf, "pace")?.load()?;
        Ok(Self {
            script: take(&mut ebpf, "YARD_SCRIPT")?,
            templates: take(&mut ebpf, "YARD_TEMPLATES")?,
            states: take(&mut ebpf, "YARD_STATES")?,
            times: take(&mut ebpf, "YARD_TIMES")?,
            next: take(&mut ebpf, "YARD_NEXT")?,
            frame: Vec::new(),
            count: 0,
            ebpf,
        })
    }

    /// One of the yardsticks, loaded.
    pub(crate) fn yardstick(&mut self, name: &str) -> Result<ProgramFd> {
        let program = xdp(&mut self.ebpf, name)?;
        if program.fd().is_err() {
            program.load()?;
        }
        Ok(program.fd()?.try_clone()?)
    }

    /// One of the yardsticks, loaded, to attach or to run.
    pub(crate) fn program(&mut self, name: &str) -> Result<&mut Xdp> {
        let program = xdp(&mut self.ebpf, name)?;
        if program.fd().is_err() {
            program.load()?;
        }
        Ok(program)
    }

    /// What `count` counted.
    pub(crate) fn counted(&self) -> Result<u64> {
        let map = self.ebpf.map("YARD_COUNT").context("no YARD_COUNT")?;
        let count: PerCpuArray<&MapData, u64> = map.try_into()?;
        Ok(count.get(&0, 0)?.iter().sum())
    }

    /// Takes out what `tell` told; how much that was.
    pub(crate) fn drain(&mut self) -> Result<u64> {
        let map = self.ebpf.map_mut("YARD_EVENTS").context("no YARD_EVENTS")?;
        let mut events: RingBuf<&mut MapData> = map.try_into()?;
        let mut count = 0;
        while events.next().is_some() {
            count += 1;
        }
        Ok(count)
    }

    /// From now on `wire` carries frames from either interface to the other.
    pub(crate) fn join(&mut self, one: u32, other: u32) -> Result<()> {
        let (row, other_row) = (one & (WIRES - 1), other & (WIRES - 1));
        ensure!(row != other_row, "interfaces {one} and {other} share a row");
        let map = self.ebpf.map_mut("YARD_WIRES").context("no YARD_WIRES")?;
        let mut wires: Array<&mut MapData, u32> = map.try_into()?;
        wires.set(row, other, 0)?;
        Ok(wires.set(other_row, one, 0)?)
    }

    /// From now on frames go to this program.
    pub(crate) fn aim(&mut self, program: &ProgramFd) -> Result<()> {
        Ok(self.next.set(0, program, 0)?)
    }

    /// Begins a script. Flows that an earlier script opened go on where they were.
    pub(crate) fn begin(&mut self, script: &Script) -> Result<()> {
        let count = script.templates.len();
        ensure!(
            count.is_power_of_two() && count <= TEMPLATES as usize,
            "a script of {count} templates"
        );
        ensure!(
            script.flows.is_power_of_two() && script.depth.is_power_of_two(),
            "flows and depth are powers of two"
        );
        for (index, template) in (0..).zip(&script.templates) {
            self.templates.set(index, template.0, 0)?;
        }
        let mut words = [0; SCRIPT_WORDS];
        words[DEPTH_SHIFT] = u64::from(script.depth.trailing_zeros());
        words[TEMPLATE_SHIFT] = u64::from(script.turn.trailing_zeros());
        words[FLOW_MASK] = script.flows - 1;
        words[TEMPLATE_MASK] = count as u64 - 1;
        self.script.set(0, words, 0)?;
        self.count = count;
        self.frame = script
            .templates
            .first()
            .map(Template::frame)
            .unwrap_or_default();
        Ok(())
    }

    /// Sets the next numbers of the first flows: initiator, responder, transaction ids of both.
    pub(crate) fn set_states(&mut self, flows: u32, state: [u32; STATE_WORDS]) -> Result<()> {
        for flow in 0..flows {
            self.states.set(flow, state, 0)?;
        }
        Ok(())
    }

    /// The numbers of the first flow, as they are by now.
    pub(crate) fn state(&self) -> Result<[u32; STATE_WORDS]> {
        Ok(self.states.get(&0, 0)?)
    }

    /// Nanoseconds of one of the yardsticks in the plain loop of a test run.
    pub(crate) fn repeat(&mut self, name: &str, frames: u32) -> Result<f64> {
        let frame = self.frame.clone();
        repeat(self.program(name)?, &frame, frames)
    }

    /// Gives frames; what the program answered to the last one.
    pub(crate) fn run(&mut self, frames: u32) -> Result<u32> {
        let program = xdp(&mut self.ebpf, "pace")?;
        let result = program.test_run(TestRunOptions {
            data_in: Some(&self.frame),
            repeat: frames,
            ..TestRunOptions::new()
        })?;
        Ok(result.return_value)
    }

    /// Sends frames, which really leave: the program `blast` redirects them.
    pub(crate) fn blast(&mut self, frames: u32) -> Result<()> {
        let frame = self.frame.clone();
        self.program("blast")?.test_run(TestRunOptions {
            data_in: Some(&frame),
            repeat: frames,
            attrs: TestRunAttrs::new().xdp_live_frames(TURN),
            ..TestRunOptions::new()
        })?;
        Ok(())
    }

    /// Gives frames and takes the time: nanoseconds of each template in each block, the script's own
    /// included. So many frames of each template are a block, a power of two.
    pub(crate) fn clock(&mut self, frames: u32) -> Result<Vec<Vec<f64>>> {
        let block = frames * self.count as u32;
        let mut words = self.script.get(&0, 0)?;
        words[IS_CLOCKED] = 1;
        words[LAST_NS] = 0;
        words[CLOCKED] = 0;
        words[BLOCK_SHIFT] = u64::from(block.trailing_zeros());
        self.script.set(0, words, 0)?;
        for index in 0..BLOCKS * TEMPLATES {
            self.times.set(index, [0, 0], 0)?;
        }
        // The last frame's end is not seen.
        self.run(block * BLOCKS + 1)?;
        let mut words = self.script.get(&0, 0)?;
        words[IS_CLOCKED] = 0;
        self.script.set(0, words, 0)?;
        (0..self.count as u32)
            .map(|index| self.blocks(index))
            .collect()
    }

    fn blocks(&self, template: u32) -> Result<Vec<f64>> {
        let nanoseconds = |block| {
            let [count, sum] = self.times.get(&(block * TEMPLATES + template), 0)?;
            Ok(sum as f64 / count.max(1) as f64)
        };
        (0..BLOCKS).map(nanoseconds).collect()
    }
}

/// Gives the same frame again and again; nanoseconds of one, as the kernel has it: whole ones,
/// rounded down.
pub(crate) fn repeat(program: &Xdp, frame: &[u8], frames: u32) -> Result<f64> {
    let result = program.test_run(TestRunOptions {
        data_in: Some(frame),
        repeat: frames,
        ..TestRunOptions::new()
    })?;
    Ok(result.duration.as_nanos() as f64 + 0.5)
}

fn xdp<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut Xdp> {
    let program = ebpf
        .program_mut(name)
        .with_context(|| format!("the yardsticks have no program {name}"))?;
    Ok(program.try_into()?)
}
