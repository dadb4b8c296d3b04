//! The frame: the only place with packet pointers.

use core::{hint::assert_unchecked, intrinsics::is_val_statically_known};

use aya_ebpf::{bindings::xdp_md, helpers::bpf_xdp_adjust_tail};
use conduitfw_common::{
    bytes::{ByteSource, Header, Headers, Truncated},
    reset::FrameEditor,
    table::Address,
};

use crate::{
    stages,
    verifier::{hidden, masked, masked_offset},
};

/// No frame is longer, and the verifier wants to see it.
const MAXIMUM_OFFSET: u32 = 0x7fff;

/// A frame under the program.
#[derive(Clone, Copy)]
pub(crate) struct Frame {
    context: *mut xdp_md,
}

impl Frame {
    /// For a stage that does not read the frame.
    pub(crate) const ABSENT: Self = Self {
        context: core::ptr::null_mut(),
    };

    #[inline(always)]
    pub(crate) const fn new(context: *mut xdp_md) -> Self {
        Self { context }
    }

    #[inline(always)]
    pub(crate) const fn context(&self) -> *mut xdp_md {
        self.context
    }

    #[inline(always)]
    pub(crate) fn bytes(&self) -> u32 {
        // Hidden, or LLVM takes the difference of the lower halves and spills half a pointer:
        // "invalid size of register spill" (Linux 6.18).
        hidden(self.end() - self.start()) as u32
    }

    /// The same, for a counter: of a number of 32 bits LLVM clears the upper half.
    #[inline(always)]
    pub(crate) fn length(&self) -> u64 {
        hidden(self.end() - self.start()) as u64
    }

    #[inline(always)]
    pub(crate) fn ifindex(&self) -> u32 {
        // SAFETY: the kernel passes a valid context to the program and its functions.
        unsafe { (*self.context).ingress_ifindex }
    }

    #[inline(always)]
    fn start(&self) -> usize {
        // SAFETY: as above.
        unsafe { (*self.context).data as usize }
    }

    #[inline(always)]
    fn end(&self) -> usize {
        // SAFETY: as above.
        unsafe { (*self.context).data_end as usize }
    }

    /// The checked door: a pointer to a `T` that lies within the frame.
    #[inline(always)]
    fn pointer<T>(&self, at: u32) -> Result<*mut T, Truncated> {
        if at > MAXIMUM_OFFSET {
            return Err(Truncated);
        }
        let at = if is_val_statically_known(at) {
            at as usize
        } else {
            masked_offset::<MAXIMUM_OFFSET>(at)
        };
        let pointer = self.start() + at;
        let after = pointer + size_of::<T>();
        if (if size_of::<T>() == 1 {
            hidden(after)
        } else {
            after
        }) > self.end()
        {
            return Err(Truncated);
        }
        Ok(pointer as *mut T)
    }

    #[inline(always)]
    fn read<T: Copy>(&self, at: u32) -> Result<T, Truncated> {
        let pointer = self.pointer::<T>(at)?;
        // SAFETY: `pointer` checked that the value lies within the frame; any bytes are a `T`, which
        // is an integer here.
        Ok(unsafe { pointer.read_unaligned() })
    }

    #[inline(always)]
    fn write<T: Copy>(&self, at: u32, value: T) -> Result<(), Truncated> {
        let pointer = self.pointer::<T>(at)?;
        // SAFETY: as above, and the frame is this program's to change.
        unsafe { pointer.write_unaligned(value) };
        Ok(())
    }

    /// Copies the first bytes of the frame as they stand, if there are as many.
    #[inline(always)]
    pub(crate) fn copy_head<const N: usize>(&self, to: &mut [u64; N]) -> Result<(), Truncated> {
        #[repr(C, packed)]
        #[derive(Clone, Copy)]
        struct Word(u64);
        let first = self.pointer::<[Word; N]>(0)?.cast::<Word>();
        for (number, word) in to.iter_mut().enumerate() {
            // SAFETY: `pointer` checked that so many words lie within the frame, wherever they stand.
            // Volatile: of the whole LLVM makes a call to `memmove`.
            *word = unsafe { first.wrapping_add(number).read_volatile() }.0;
        }
        Ok(())
    }

    /// Eight bytes as they stand.
    #[inline(always)]
    pub(crate) fn word(&self, at: u32) -> Result<u64, Truncated> {
        self.read(at)
    }
}

impl ByteSource for Frame {
    #[inline(always)]
    fn u8(&self, at: u32) -> Result<u8, Truncated> {
        self.read::<u8>(at)
    }

    #[inline(always)]
    fn u16(&self, at: u32) -> Result<u16, Truncated> {
        self.read::<u16>(at).map(u16::from_be)
    }

    #[inline(always)]
    fn u32(&self, at: u32) -> Result<u32, Truncated> {
        self.read::<u32>(at).map(u32::from_be)
    }

    #[inline(always)]
    fn u64(&self, at: u32) -> Result<u64, Truncated> {
        self.read::<u64>(at).map(u64::from_be)
    }

    #[inline(always)]
    fn address(&self, at: u32) -> Result<Address, Truncated> {
        let first = self.pointer::<Address>(at)?.cast::<u32>();
        let word = |number: usize| {
            // SAFETY: `pointer` checked that four words lie within the frame. Word by word: of the
            // whole LLVM makes a call to `memmove`.
            unsafe { first.wrapping_add(number).read_unaligned() }
        };
        Ok([word(0), word(1), word(2), word(3)])
    }

    #[inline(always)]
    fn within(&self, number: u32, mask: u32) -> u32 {
        masked(number, mask)
    }
}

impl Headers for Frame {
    #[inline(always)]
    fn header<T: Header>(&self, at: u32) -> Result<&T, Truncated> {
        let header = self.pointer::<T>(at)?;
        // SAFETY: no frame lies at address 0; said, for otherwise a null pointer is looked for.
        unsafe { assert_unchecked(!header.is_null()) };
        // SAFETY: `pointer` checked that the header lies within the frame; any bytes are a `T`,
        // wherever they stand.
        Ok(unsafe { &*header })
    }
}

impl FrameEditor for Frame {
    #[inline(always)]
    fn replace_u8(&mut self, at: u32, value: u8) -> Result<u8, Truncated> {
        let pointer = self.pointer::<u8>(at)?;
        // SAFETY: `pointer` checked that the byte lies within the frame, which is this program's to
        // change.
        Ok(unsafe { pointer.replace(value) })
    }

    #[inline(always)]
    fn set_u16(&mut self, at: u32, value: u16) -> Result<(), Truncated> {
        self.write(at, value.to_be())
    }

    #[inline(always)]
    fn set_u32(&mut self, at: u32, value: u32) -> Result<(), Truncated> {
        self.write(at, value.to_be())
    }

    #[inline(always)]
    fn sum(&self, at: u32, bytes: u32) -> Result<u16, Truncated> {
        match stages::bytes::sum(self.context, at, bytes) {
            u32::MAX => Err(Truncated),
            sum => Ok(sum as u16),
        }
    }

    #[inline(always)]
    fn cut(&mut self, bytes: u32) -> Result<(), Truncated> {
        let now = self.bytes();
        if bytes == now {
            return Ok(());
        }
        if bytes > now {
            return Err(Truncated);
        }
        // SAFETY: the context is valid; the helper checks the rest, and pointers into the frame
        // are taken anew after it.
        match unsafe { bpf_xdp_adjust_tail(self.context, bytes.wrapping_sub(now) as i32) } {
            0 => Ok(()),
            _ => Err(Truncated),
        }
    }
}
