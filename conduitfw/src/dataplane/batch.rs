//! Many rows of an array in one system call.

use std::{
    io,
    ops::{Deref, DerefMut},
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd},
};

use aya::{
    Pod,
    maps::{Array, Map, MapData, MapError},
    sys::SyscallError,
};
use nix::libc;
use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::maps::Plain;

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
    /// Writes rows from `first` on.
    ///
    /// # Errors
    ///
    /// The kernel refuses a row; those before it are written.
    pub fn set_run(&mut self, first: u32, rows: &[V]) -> Result<(), MapError> {
        let indexes: Vec<u32> = (first..).take(rows.len()).collect();
        let Ok(count) = u32::try_from(rows.len()) else {
            return Err(MapError::OutOfBounds {
                index: u32::MAX,
                max_entries: self.rows.len(),
            });
        };
        if count == 0 {
            return Ok(());
        }
        update(&self.descriptor, &indexes, rows.as_bytes(), count).map_err(|io_error| {
            MapError::SyscallError(SyscallError {
                call: "bpf_map_update_batch",
                io_error,
            })
        })
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
    let batch = Batch {
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
    // after aya had found both sizes to be those of the slices. It writes the count back, into a
    // record of ours that lives until the call returns.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            BPF_MAP_UPDATE_BATCH,
            &raw const batch,
            size_of::<Batch>(),
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
