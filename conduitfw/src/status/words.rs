//! The status, for people.

use std::fmt;

use super::{
    ConduitStatus, ControllerStatus, EventCounts, FileNow, ForwardingStatus, Frames,
    InterfaceStatus, MemoryStatus, Status,
};
use crate::policy::printable;

/// Whether the program runs there.
fn is_guarded(interface: &InterfaceStatus) -> bool {
    matches!(interface.mode, "native" | "generic")
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.controller {
            Some(controller) => write_controller(f, controller)?,
            None if self.interfaces.iter().any(is_guarded) => writeln!(
                f,
                "controller    not running; the policy in force goes on being enforced"
            )?,
            None => writeln!(f, "controller    not running")?,
        }
        if self.generation == 0 {
            writeln!(f, "generation    none: everything is denied")?;
        } else {
            write!(f, "generation    {} ({})", self.generation, self.mode)?;
            if let Some(since) = &self.since {
                write!(f, ", since {since:.0}")?;
            }
            if let Some(by) = &self.by {
                write!(f, ", by {}", printable(by))?;
            }
            writeln!(f)?;
        }
        if let (Some(site), Some(file)) = (&self.site, &self.policy_file) {
            writeln!(f, "policy        {site}, from {}", printable(file))?;
        }
        if let Some(sha256) = &self.sha256 {
            writeln!(f, "              sha256 {sha256}")?;
        }
        if !self.interfaces.iter().any(is_guarded) {
            writeln!(f, "interface     none: NOTHING IS FILTERED")?;
        }
        for interface in &self.interfaces {
            writeln!(f, "interface     {} {}", interface.name, interface.mode)?;
            if let Some(warning) = &interface.warning {
                writeln!(f, "              {warning}")?;
            }
        }
        let Frames {
            seen,
            allowed,
            denied,
            would_deny,
        } = self.frames;
        writeln!(
            f,
            "frames        {seen} seen = {allowed} allowed + {denied} denied"
        )?;
        if would_deny > 0 {
            writeln!(
                f,
                "              {would_deny} of the allowed would be denied in mode enforce"
            )?;
        }
        write_forwarding(f, &self.forwarding)?;
        let EventCounts { delivered, lost } = self.events;
        writeln!(f, "events        {delivered} delivered, {lost} lost")?;
        write_memory(f, &self.memory)?;
        let adopted = self.controller.as_ref().map_or(0, |c| c.flows_adopted);
        if adopted > 0 {
            writeln!(
                f,
                "adopted       {adopted} connections that were open before the gateway"
            )?;
        }
        for conduit in &self.conduits {
            write_conduit(f, conduit)?;
        }
        for rule in &self.rules {
            writeln!(
                f,
                "rule          {}: {} operations allowed",
                rule.name, rule.operations
            )?;
        }
        Ok(())
    }
}

fn write_controller(f: &mut fmt::Formatter<'_>, controller: &ControllerStatus) -> fmt::Result {
    writeln!(
        f,
        "controller    running (process {}), policy file {}{}",
        controller.pid,
        printable(&controller.policy_file),
        if controller.watch { ", watched" } else { "" }
    )?;
    match controller.file_now {
        FileNow::InForce => Ok(()),
        FileNow::Another => writeln!(
            f,
            "              that file holds another text than the one in force: a restart, or `conduitfw \
             reload`, would try to put that in force (`conduitfw check` says whether it can)"
        ),
        FileNow::Unreadable => writeln!(
            f,
            "              that file CANNOT BE READ: a restart would fail, and leave what is in force"
        ),
    }
}

fn write_forwarding(f: &mut fmt::Formatter<'_>, forwarding: &ForwardingStatus) -> fmt::Result {
    if !forwarding.is_used() {
        return Ok(());
    }
    let kernel: u64 = forwarding.kernel.values().sum();
    writeln!(
        f,
        "forwarding    {}: {} frames left fast, {kernel} by the kernel",
        forwarding.mode, forwarding.fast
    )?;
    for (cause, frames) in &forwarding.kernel {
        writeln!(f, "              {frames} {cause}")?;
    }
    if forwarding.lost > 0 {
        writeln!(
            f,
            "              {} lost: a port did not take them",
            forwarding.lost
        )?;
    }
    Ok(())
}

fn write_memory(f: &mut fmt::Formatter<'_>, memory: &MemoryStatus) -> fmt::Result {
    write!(
        f,
        "memory        {} MiB in tables",
        in_mebibytes(memory.all_maps)
    )?;
    if let Some(resident) = memory.controller {
        write!(f, ", {} MiB in the controller", in_mebibytes(resident))?;
    }
    writeln!(f)
}

/// With one digit behind the point, rounded up.
fn in_mebibytes(bytes: u64) -> String {
    let tenths = bytes.saturating_mul(10).div_ceil(1 << 20);
    format!("{}.{}", tenths / 10, tenths % 10)
}

fn write_conduit(f: &mut fmt::Formatter<'_>, conduit: &ConduitStatus) -> fmt::Result {
    let name = conduit.name.as_deref().unwrap_or("(no conduit)");
    writeln!(
        f,
        "conduit       {name} ({}): {} allowed, {} denied",
        conduit.mode, conduit.allowed.frames, conduit.denied.frames
    )?;
    for (reason, traffic) in &conduit.reasons {
        writeln!(f, "              {} {reason}", traffic.frames)?;
    }
    if let Some(times) = &conduit.response_times {
        writeln!(f, "              {} replies: {times}", times.replies)?;
    }
    Ok(())
}
