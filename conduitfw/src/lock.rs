//! One controller to an instance.

use std::{
    fs::{self, File, TryLockError},
    path::Path,
};

use crate::{controller::StartError, instance::Instance};

/// The only controller of an instance, as long as this lives.
#[derive(Debug)]
pub struct InstanceLock(#[expect(dead_code, reason = "held for its lock")] File);

impl InstanceLock {
    /// Takes the lock.
    ///
    /// # Errors
    ///
    /// Another controller holds it, or the directory cannot be used.
    pub fn take(instance: &Instance) -> Result<Self, StartError> {
        let failed = |action, path: &Path, source| StartError::File {
            action,
            path: path.to_owned(),
            source,
        };
        fs::create_dir_all(&instance.run_dir)
            .map_err(|error| failed("making the directory", &instance.run_dir, error))?;
        let path = instance.lock();
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(|error| failed("opening the lock", &path, error))?;
        match file.try_lock() {
            Ok(()) => Ok(Self(file)),
            Err(TryLockError::WouldBlock) => Err(StartError::AlreadyRunning(
                instance.name.as_str().to_owned(),
            )),
            Err(TryLockError::Error(error)) => Err(failed("locking", &path, error)),
        }
    }
}
