//! Many rows of an array: in one system call, or in memory that the kernel shares.

use std::{
    io,
    ops::{Deref, DerefMut},
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd},
    ptr,
};

use aya::{
    Pod,
    maps::{Array, Map, MapData, MapError},
    sys::SyscallError,
};
use memmap2::MmapOptions;
use nix::libc;
use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::maps::Plain;

/// Rows that are worth mapping their table.
const MANY: usize = 256;

/// An array whose values are plain records.
pub struct Table<V>
where
    Plain<V>: Pod,
{
    rows: Array<MapData, Plain<V>>,
    descriptor: OwnedFd,
}

impl<V> TryFrom<Map> for Table<V>
where
    Plain<V>: Pod,
{
    type Error = MapError;

    fn try_from(map: Map) -> Result<Self, MapError> {
        let descriptor = match &map {
            Map::Array(data) => Some(data.fd().as_fd().try_clone_to_owned()?),
            _ => None,
        };
        let rows = Array::try_from(map)?;
        // What is no array was refused by now.
        let descriptor = descriptor.ok_or(MapError::ElementNotFound)?;
        Ok(Self { rows, descriptor })
    }
}

impl<V> Deref for Table<V>
where
    Plain<V>: Pod,
{
    type Target = Array<MapData, Plain<V>>;

    fn deref(&self) -> &Self::Target {
        &self.rows
    }
}

impl<V> DerefMut for Table<V>
where
    Plain<V>: Pod,
{
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.rows
    }
}

impl<V> Table<V>
where
    Plain<V>: Pod,
{
    /// The map's descriptor.
    pub(super) const fn descriptor(&self) -> &OwnedFd {
        &self.descriptor
    }
}

impl<V: FromBytes + IntoBytes + Immutable + Copy + 'static> Table<V> {
    /// Writes rows from `first` on: of a slot that is not in force, for they do not come all at once.
    ///
    /// # Errors
    ///
    /// The kernel refuses a row; those before it are written.
    pub fn set_run(&mut self, first: u32, rows: &[V]) -> Result<(), MapError> {
        let Ok(count) = u32::try_from(rows.len()) else {
            return Err(MapError::OutOfBounds {
                index: u32::MAX,
                max_entries: self.rows.len(),
            });
        };
        if count == 0 {
            return Ok(());
        }
        if self.write_shared(first, rows) {
            return Ok(());
        }
        let indexes: Vec<u32> = (first..).take(rows.len()).collect();
        update(&self.descriptor, &indexes, rows.as_bytes(), count).map_err(|io_error| {
            MapError::SyscallError(SyscallError {
                call: "bpf_map_update_batch",
                io_error,
            })
        })
    }

    /// Writes rows where the program reads them, if there are many, all of them fit, and the map can be
    /// mapped: the kernel takes a quarter of a microsecond to copy a row. Rows stand at multiples of eight bytes
    /// from the beginning of a page on.
    fn write_shared(&self, first: u32, rows: &[V]) -> bool {
        const { assert!(align_of::<V>() <= 8) };
        let row_size = size_of::<V>().next_multiple_of(8);
        let room = self.rows.len().saturating_sub(first) as usize;
        if rows.len() < MANY || room < rows.len() {
            return false;
        }
        // The kernel maps each page at once: only those of the run.
        let memory = MmapOptions::new()
            .offset(u64::from(first) * row_size as u64)
            .len(rows.len() * row_size)
            .map_raw(&self.descriptor);
        let Ok(memory) = memory else {
            return false;
        };
        for (index, row) in rows.iter().enumerate() {
            let place = memory.as_mut_ptr().wrapping_add(index * row_size);
            // SAFETY: `index` is below the number of rows, all of which are mapped until the end of this
            // function. The program may read a row that is half written: any bytes are one, and what it
            // reads of a slot that is not in force decides nothing.
            unsafe { place.cast::<V>().write_volatile(*row) };
        }
        true
    }

    /// Reads `count` rows from `first` on.
    ///
    /// # Errors
    ///
    /// The kernel refuses, or there are not as many.
    pub fn run(&self, first: u32, count: u32) -> Result<Vec<V>, MapError> {
        let max_entries = self.rows.len();
        let mut rows = vec![V::new_zeroed(); count as usize];
        if count == 0 {
            return Ok(rows);
        }
        let found = lookup(&self.descriptor, first, rows.as_mut_bytes(), count);
        let found = found.map_err(|io_error| {
            MapError::SyscallError(SyscallError {
                call: "bpf_map_lookup_batch",
                io_error,
            })
        })?;
        if found == count {
            Ok(rows)
        } else {
            let index = first.saturating_add(count);
            Err(MapError::OutOfBounds { index, max_entries })
        }
    }
}

/// The part of `union bpf_attr` (linux/bpf.h) that belongs to batches.
#[derive(IntoBytes, Immutable)]
#[repr(C)]
struct Batch {
    read_from: u64,
    read_to: u64,
    keys: u64,
    values: u64,
    count: u32,
    map: i32,
    element_flags: u64,
    flags: u64,
}

/// `values` holds as many as there are `indexes`, each of the size that the map was made with.
fn update(map: &OwnedFd, indexes: &[u32], values: &[u8], count: u32) -> io::Result<()> {
    const BPF_MAP_UPDATE_BATCH: libc::c_int = 26;
    let mut batch = Batch {
        read_from: 0,
        read_to: 0,
        keys: indexes.as_ptr() as u64,
        values: values.as_ptr() as u64,
        count,
        map: map.as_raw_fd(),
        element_flags: 0,
        flags: 0,
    };
    // SAFETY: the kernel reads `count` keys of 4 bytes and `count` values; `Table` took the map only
    // after aya had found both sizes to be those of the slices.
    unsafe { call(BPF_MAP_UPDATE_BATCH, &mut batch) }
}

/// Fills `values`, which has room for `count` of the size that the map was made with, from the rows from
/// `first` on; how many there were.
fn lookup(map: &OwnedFd, first: u32, values: &mut [u8], count: u32) -> io::Result<u32> {
    const BPF_MAP_LOOKUP_BATCH: libc::c_int = 24;
    // The kernel begins behind the index that it is given, and with the first of all without one.
    let before = first.checked_sub(1);
    let mut last = 0_u32;
    let mut indexes = vec![0_u32; count as usize];
    let mut batch = Batch {
        read_from: before
            .as_ref()
            .map_or(0, |index| ptr::from_ref(index) as u64),
        read_to: ptr::from_mut(&mut last) as u64,
        keys: indexes.as_mut_ptr() as u64,
        values: values.as_mut_ptr() as u64,
        count,
        map: map.as_raw_fd(),
        element_flags: 0,
        flags: 0,
    };
    // SAFETY: the kernel reads the index at `read_from`, writes one to `read_to`, `count` keys of 4 bytes
    // and `count` values at most; `Table` took the map only after aya had found both sizes to be those
    // of the slices. All of it lives until the call returns.
    match unsafe { call(BPF_MAP_LOOKUP_BATCH, &mut batch) } {
        // There is no row behind the last one that was read.
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(batch.count),
        outcome => outcome.map(|()| batch.count),
    }
}

/// # Safety
///
/// Each address in `batch` is 0, or that of as much memory as `command` reads and writes there.
unsafe fn call(command: libc::c_int, batch: &mut Batch) -> io::Result<()> {
    // SAFETY: by the caller's word; the kernel writes the count back into a record that lives until the
    // call returns.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            ptr::from_mut(batch),
            size_of::<Batch>(),
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
