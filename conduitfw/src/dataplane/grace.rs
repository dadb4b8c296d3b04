//! Waiting until no frame in flight can still see the slot that is about to be written.

use std::{
    thread::{self, JoinHandle},
    time::Duration,
};

use nix::libc;

/// A wait that goes on while other things are done.
pub(super) struct Grace(JoinHandle<()>);

impl Grace {
    /// Waits out every run of the program that began before this call, on the side; nothing when
    /// there is no thread to be had for it.
    pub(super) fn begin() -> Option<Self> {
        let thread = thread::Builder::new().name("grace".to_owned());
        let waiting = thread.stack_size(STACK).spawn(wait_for_frames_in_flight);
        waiting.ok().map(Self)
    }

    /// Returns when they are done.
    pub(super) fn finish(self) {
        if self.0.join().is_err() {
            wait_for_frames_in_flight();
        }
    }
}

/// Room for a system call.
const STACK: usize = 64 << 10;

/// Waits out every run of the program that began before this call.
///
/// XDP runs inside an RCU read-side section. `membarrier(MEMBARRIER_CMD_GLOBAL)` waits for a grace
/// period of RCU (membarrier(2)), so when it returns, each frame that read the old number from
/// `ACTIVE` is done. Kernels booted with `nohz_full` refuse the command; there a full second goes
/// by instead, which is a thousand times what the bounded work on one frame can take.
pub(super) fn wait_for_frames_in_flight() {
    const MEMBARRIER_CMD_GLOBAL: libc::c_int = 1;
    const NO_FLAGS: libc::c_uint = 0;
    const NO_CPU: libc::c_int = 0;
    // SAFETY: membarrier takes three integers and touches no memory of ours.
    let result = unsafe {
        libc::syscall(
            libc::SYS_membarrier,
            MEMBARRIER_CMD_GLOBAL,
            NO_FLAGS,
            NO_CPU,
        )
    };
    if result != 0 {
        tracing::debug!("membarrier is not available; waiting a second instead");
        thread::sleep(Duration::from_secs(1));
    }
}
