//! Memory that is not used, given back to the machine.

/// Gives back what the allocator keeps for later. Reading a policy of ten thousand rules takes some
/// twenty times its size for a moment, and between two policies may lie months.
pub(crate) fn give_back() {
    #[cfg(target_env = "gnu")]
    {
        // SAFETY: malloc_trim(3) takes a number and touches only what is not allocated.
        unsafe { nix::libc::malloc_trim(0) };
    }
}
