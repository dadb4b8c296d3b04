//! The program that runs when a port did not take a frame, pinned like the rest.

use std::{fs, io};

use aya::{
    Ebpf,
    programs::{RawTracePoint, links::FdLink},
};

use super::{DataPlaneError, Pins, load::chain};

/// Name of the program.
const PROGRAM: &str = "refused";
/// Where the kernel says that a frame could not be handed over.
const TRACEPOINT: &str = "xdp_redirect_err";

/// Sees to it that frames which a port does not take are counted, and that it gets no more of them.
/// Forwarding works without it, so that a kernel which refuses it is only told of.
pub(super) fn watch(ebpf: &mut Ebpf, pins: &Pins) {
    if let Err(error) = attach(ebpf, pins) {
        tracing::warn!(
            "frames that a port does not take will not be counted, and fast forwarding will not \
             give way to the kernel's there: {}",
            chain(error.as_ref())
        );
    }
}

fn attach(ebpf: &mut Ebpf, pins: &Pins) -> Result<(), Box<dyn std::error::Error>> {
    let program: &mut RawTracePoint = ebpf
        .program_mut(PROGRAM)
        .ok_or(DataPlaneError::Incomplete(PROGRAM))?
        .try_into()?;
    program.load()?;
    let id = program.attach(TRACEPOINT)?;
    let link = FdLink::from(program.take_link(id)?);
    let path = pins.directory().join(PROGRAM);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    link.pin(&path)?;
    Ok(())
}
