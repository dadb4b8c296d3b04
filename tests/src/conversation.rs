//! Conversations that both data planes judge alike: what one end sends, and what must come out.
//!
//! The program is loaded once in a process. Every test starts it with a policy of its own and
//! nothing remembered.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use anyhow::{Result, bail};
use conduitfw::simulator::{Judged, Outcome};
use conduitfw_common::Reason;

use crate::frames::modbus::adu;
use crate::frames::{ACK, Frame, PSH, SYN, tcp};
use crate::lab::skipped_without_root;
use crate::scene::{DOSING, HMI, PLANT, PLC};
use crate::twin::{Sizes, TICKS_PER_SECOND, Twin, hex};

const SIZES: Sizes = Sizes {
    buckets: 1024,
    streams: 2048,
};
/// Where the initiator's sequence numbers begin, so that they soon wrap.
pub const FIRST_SEQUENCE: u32 = 0xffff_fff0;
/// Where the responder's begin: they wrap as well.
pub const FIRST_ANSWER: u32 = 0xffff_ffe0;

/// What is to become of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Want {
    /// It passes as it is.
    Pass,
    /// It passes as it is, and is reported as what would be denied.
    Observed(Reason),
    /// It passes as it is, and is reported.
    Notice(Reason),
    /// It is gone.
    Drop(Reason),
    /// It goes on as a reset.
    Reset(Reason),
    /// It comes back as a reset.
    SendBack(Reason),
    /// It goes on changed, for something in it is denied.
    Exception(Reason),
    /// It is allowed, and goes on changed.
    Edited,
    /// It goes on without its end.
    HeldBack,
}

impl Want {
    /// What became of a frame. One that may be changed, and is not, passes as it is.
    #[must_use]
    pub fn of(judged: &Judged, frame: &[u8]) -> Option<Self> {
        let judgement = judged.judgement;
        Some(match (&judged.outcome, judgement.reason()) {
            (Outcome::Pass, None) => Self::Pass,
            (Outcome::Pass, Some(reason)) if judgement.is_observed() => Self::Observed(reason),
            (Outcome::Pass, Some(reason)) => Self::Notice(reason),
            (Outcome::Drop, Some(reason)) => Self::Drop(reason),
            (Outcome::Reset(_), Some(reason)) => Self::Reset(reason),
            (Outcome::ResetBack(_), Some(reason)) => Self::SendBack(reason),
            (Outcome::Exception(_), Some(reason)) => Self::Exception(reason),
            (Outcome::Edited(bytes), None) if bytes == frame => Self::Pass,
            (Outcome::Edited(_), None) => Self::Edited,
            (Outcome::Edited(_), Some(Reason::SplitRequest)) => Self::HeldBack,
            _ => return None,
        })
    }

    /// Whether the bytes, or others in their place, go on in the stream.
    #[must_use]
    pub fn goes_on(self) -> bool {
        !matches!(self, Self::Drop(_) | Self::Reset(_) | Self::SendBack(_))
    }
}

/// Both data planes, and what was not as wanted.
pub struct Stage {
    twin: MutexGuard<'static, Option<Twin>>,
    /// The time, in ticks.
    pub now: u64,
    next_port: u16,
    complaints: Vec<String>,
}

/// The stage with this policy, or nothing without root. All zones are on the loopback interface.
///
/// # Errors
/// When the program cannot be loaded, or the policy is refused.
pub fn stage(policy: &str) -> Result<Option<Stage>> {
    static TWIN: OnceLock<Mutex<Option<Twin>>> = OnceLock::new();
    if skipped_without_root() {
        return Ok(None);
    }
    let policy = &on_loopback(policy);
    let lock = TWIN.get_or_init(|| Mutex::new(None));
    let mut twin = lock.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(twin) = &mut *twin {
        twin.reload(policy)?;
        twin.adopt_until(0)?;
    } else {
        *twin = Some(Twin::new(policy, SIZES)?);
    }
    Ok(Some(Stage {
        twin,
        now: 1_000_000,
        next_port: 1024,
        complaints: Vec::new(),
    }))
}

/// The policy, for interfaces that are all the loopback one.
#[must_use]
pub fn on_loopback(policy: &str) -> String {
    let mut policy = policy.to_owned();
    for name in ["eth0", "eth1", "eth2"] {
        policy = policy.replace(name, "lo");
    }
    policy
}

/// Declares the [`Stage`] of a test, or ends the test in peace when there is no root.
#[macro_export]
macro_rules! stage {
    ($policy:expr) => {
        match $crate::conversation::stage($policy)? {
            Some(stage) => stage,
            None => return Ok(()),
        }
    };
}

/// The plant, with these further keys and rules in the conduit from the HMI to the PLC.
#[must_use]
pub fn plant(keys: &str, rules: &[&str]) -> String {
    let rules: Vec<String> = rules
        .iter()
        .map(|rule| format!("\n[[conduits.modbus]]\nunits = [1]\n{rule}\n"))
        .collect();
    format!(
        "{PLANT}{DOSING}new_flows = \"unlimited\"\n{keys}\n{}",
        rules.concat()
    )
}

/// The form that a denied request must go on in: the same header, and what a server refuses.
#[must_use]
pub fn neutral(request: &[u8]) -> Vec<u8> {
    let mut form = request[..7].to_vec();
    match request.len() {
        8 => form.push(0x7f),
        12 => form.extend([3, 0xff, 0xff, 0, 0]),
        length => {
            form.extend([16, 0xff, 0xff, 0, 0]);
            form.push(u8::try_from(length - 13).unwrap_or(0));
            form.resize(length, 0);
        }
    }
    form
}

/// A server's refusal of a request, as an exception of this code.
#[must_use]
pub fn refusal(request: &[u8], code: u8) -> Vec<u8> {
    let [t1, t0, _, _, _, _, unit, function, ..] = request else {
        return Vec::new();
    };
    adu(
        u16::from_be_bytes([*t1, *t0]),
        *unit,
        [function | 0x80, code],
    )
}

impl Stage {
    /// Both data planes.
    ///
    /// # Errors
    /// Never, once there is a stage.
    pub fn twin(&mut self) -> Result<&mut Twin> {
        match &mut *self.twin {
            Some(twin) => Ok(twin),
            None => bail!("there is no stage"),
        }
    }

    /// Another policy, as a reload puts it in force: flows stay.
    ///
    /// # Errors
    /// When it is refused, or the kernel refuses to write a map.
    pub fn reload(&mut self, policy: &str) -> Result<()> {
        self.twin()?.reload(&on_loopback(policy))
    }

    /// Lets time go by.
    pub fn wait(&mut self, milliseconds: u64) {
        self.now += milliseconds * u64::from(TICKS_PER_SECOND) / 1000;
    }

    /// A frame is sent; the bytes that come out.
    ///
    /// # Errors
    /// When the data planes differ.
    pub fn expect(&mut self, name: &str, frame: &[u8], want: Want) -> Result<Vec<u8>> {
        let judged = self.judge(frame)?;
        let became = Want::of(&judged, frame);
        if became != Some(want) {
            let what = format!("{became:?}, not {want:?}: {}", hex(frame));
            self.complain(name, &what);
        }
        Ok(comes_out(judged, frame))
    }

    /// A frame is sent, whatever becomes of it; the bytes that come out, if any.
    ///
    /// # Errors
    /// When the data planes differ.
    pub fn sends(&mut self, frame: &[u8]) -> Result<Vec<u8>> {
        let judged = self.judge(frame)?;
        if judged.outcome == Outcome::Drop {
            return Ok(Vec::new());
        }
        Ok(comes_out(judged, frame))
    }

    /// A frame is sent; what becomes of it.
    ///
    /// # Errors
    /// When the data planes differ.
    pub fn becomes_of(&mut self, frame: &[u8]) -> Result<Option<Want>> {
        Ok(Want::of(&self.judge(frame)?, frame))
    }

    fn judge(&mut self, frame: &[u8]) -> Result<Judged> {
        let now = self.now;
        match self.twin()?.send(frame, now)? {
            Some(judged) => Ok(judged),
            None => bail!("a frame of {} bytes", frame.len()),
        }
    }

    /// Something is not as wanted.
    pub fn complain(&mut self, name: &str, what: &str) {
        self.complaints.push(format!("{name}: {what}"));
    }

    /// A frame is sent, and what comes out must be these bytes.
    ///
    /// # Errors
    /// When the data planes differ.
    pub fn becomes(
        &mut self,
        name: &str,
        frame: &Frame,
        want: Want,
        comes_out: &Frame,
    ) -> Result<()> {
        let out = self.expect(name, &frame.build(), want)?;
        let wanted = comes_out.build();
        if out != wanted {
            let what = format!("came out as {}, not {}", hex(&out), hex(&wanted));
            self.complain(name, &what);
        }
        Ok(())
    }

    /// Opens a connection from the HMI to the PLC, from a port of its own.
    ///
    /// # Errors
    /// When the data planes differ.
    pub fn talk(&mut self) -> Result<Talk> {
        let talk = self.unopened(HMI, PLC);
        talk.open(self)
    }

    /// A connection that is not open yet.
    pub fn unopened(&mut self, hmi: IpAddr, plc: IpAddr) -> Talk {
        self.next_port += 1;
        Talk {
            hmi: (hmi, self.next_port).into(),
            plc: (plc, 502).into(),
            next: (FIRST_SEQUENCE, FIRST_ANSWER),
        }
    }

    /// Each request in a connection of its own, to unit 1.
    ///
    /// # Errors
    /// When the data planes differ.
    pub fn each(&mut self, requests: &[(&str, Vec<u8>, Want)]) -> Result<()> {
        for (name, pdu, want) in requests {
            self.talk()?.asks(self, name, &adu(1, 1, pdu), *want)?;
        }
        Ok(())
    }

    /// The end of a test: everything was as wanted.
    ///
    /// # Errors
    /// What was not.
    pub fn finish(mut self) -> Result<()> {
        self.twin()?.compare_rest()?;
        if !self.complaints.is_empty() {
            bail!("\n{}", self.complaints.join("\n"));
        }
        Ok(())
    }
}

fn comes_out(judged: Judged, frame: &[u8]) -> Vec<u8> {
    match judged.outcome {
        Outcome::Pass | Outcome::Drop => frame.to_vec(),
        Outcome::Reset(bytes)
        | Outcome::ResetBack(bytes)
        | Outcome::Exception(bytes)
        | Outcome::Edited(bytes) => bytes,
    }
}

/// A TCP connection, followed from both ends.
#[derive(Clone, Copy, Debug)]
pub struct Talk {
    /// The initiator.
    pub hmi: SocketAddr,
    /// The responder.
    pub plc: SocketAddr,
    /// The initiator's next sequence number, and the responder's.
    pub next: (u32, u32),
}

impl Talk {
    /// The handshake.
    ///
    /// # Errors
    /// When the data planes differ.
    pub fn open(mut self, stage: &mut Stage) -> Result<Self> {
        let syn = tcp(self.hmi, self.plc).flags(SYN).seq(self.next.0);
        let syn = syn.tcp_options(&[2, 4, 5, 180]);
        stage.expect("SYN", &syn.build(), Want::Pass)?;
        self.next.0 = self.next.0.wrapping_add(1);
        let answer = self.plc_sends(&[]).flags(SYN | ACK);
        stage.expect("SYN+ACK", &answer.build(), Want::Pass)?;
        self.next.1 = self.next.1.wrapping_add(1);
        stage.expect("ACK", &self.hmi_sends(&[]).build(), Want::Pass)?;
        Ok(self)
    }

    /// A segment of the initiator, which acknowledges all that it was sent.
    #[must_use]
    pub fn hmi_sends(&self, payload: &[u8]) -> Frame {
        let flags = if payload.is_empty() { ACK } else { PSH | ACK };
        let frame = tcp(self.hmi, self.plc).flags(flags);
        frame.seq(self.next.0).ack(self.next.1).payload(payload)
    }

    /// A segment of the responder, which acknowledges all that it was sent.
    #[must_use]
    pub fn plc_sends(&self, payload: &[u8]) -> Frame {
        let flags = if payload.is_empty() { ACK } else { PSH | ACK };
        let frame = tcp(self.plc, self.hmi).flags(flags);
        frame.seq(self.next.1).ack(self.next.0).payload(payload)
    }

    /// The initiator goes on by so many bytes.
    pub fn asked(&mut self, bytes: usize) {
        let bytes = u32::try_from(bytes).unwrap_or(0);
        self.next.0 = self.next.0.wrapping_add(bytes);
    }

    /// The responder goes on by so many bytes.
    pub fn answered(&mut self, bytes: usize) {
        let bytes = u32::try_from(bytes).unwrap_or(0);
        self.next.1 = self.next.1.wrapping_add(bytes);
    }

    /// The initiator sends; what goes on counts.
    ///
    /// # Errors
    /// When the data planes differ.
    pub fn asks(&mut self, stage: &mut Stage, name: &str, bytes: &[u8], want: Want) -> Result<()> {
        stage.expect(name, &self.hmi_sends(bytes).build(), want)?;
        if want.goes_on() {
            self.asked(bytes.len());
        }
        Ok(())
    }

    /// The responder sends; what goes on counts.
    ///
    /// # Errors
    /// When the data planes differ.
    pub fn answers(
        &mut self,
        stage: &mut Stage,
        name: &str,
        bytes: &[u8],
        want: Want,
    ) -> Result<()> {
        stage.expect(name, &self.plc_sends(bytes).build(), want)?;
        if want.goes_on() {
            self.answered(bytes.len());
        }
        Ok(())
    }

    /// The initiator's segment must go on as other bytes of the same stream.
    ///
    /// # Errors
    /// When the data planes differ.
    pub fn asks_as(
        &mut self,
        stage: &mut Stage,
        name: &str,
        bytes: &[u8],
        (want, goes_on): (Want, &[u8]),
    ) -> Result<()> {
        stage.becomes(name, &self.hmi_sends(bytes), want, &self.hmi_sends(goes_on))?;
        self.asked(bytes.len());
        Ok(())
    }

    /// The responder's segment must go on as other bytes of the same stream.
    ///
    /// # Errors
    /// When the data planes differ.
    pub fn answers_as(
        &mut self,
        stage: &mut Stage,
        name: &str,
        bytes: &[u8],
        (want, goes_on): (Want, &[u8]),
    ) -> Result<()> {
        stage.becomes(name, &self.plc_sends(bytes), want, &self.plc_sends(goes_on))?;
        self.answered(bytes.len());
        Ok(())
    }
}
