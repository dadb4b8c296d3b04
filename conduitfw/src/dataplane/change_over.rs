//! One data plane in the place of another, whose tables do not fit: no frame goes unfiltered.
//!
//! The pins of the earlier one are set aside, and its links go on carrying its program. Once the tables of
//! the new one are there and its policy is in force in them, each link gets the new program between two
//! frames, and its pin goes over. What is left of the earlier one is removed last. Whatever ends this
//! half way, each link keeps a pin: the next start finds both and goes on, or back.

use std::{fs, io};

use aya::programs::Xdp;
use aya_obj::programs::xdp::XdpAttachType;

use super::{DataPlaneError, Pins, attach, load::chain};

/// A change that is under way.
#[derive(Debug)]
pub(super) struct ChangeOver {
    earlier: Pins,
}

impl ChangeOver {
    /// Sets the pins of the data plane in force aside.
    pub(super) fn begin(pins: &Pins) -> Result<Self, DataPlaneError> {
        let earlier = pins.of_earlier();
        if earlier.directory().exists() {
            // A third set of tables, before the second was on every link: only the links matter.
            for interface in linked(pins)? {
                give(pins, &earlier, &interface)?;
            }
            pins.remove_own()?;
        } else {
            rename("setting the pins aside", pins, &earlier)?;
        }
        Ok(Self { earlier })
    }

    /// The change that an earlier start began and did not end, if its tables are complete; one whose tables
    /// are not is taken back.
    pub(super) fn unfinished(
        pins: &Pins,
        is_complete: impl FnOnce() -> bool,
    ) -> Result<Option<Self>, DataPlaneError> {
        let this = Self {
            earlier: pins.of_earlier(),
        };
        if !this.earlier.directory().exists() {
            return Ok(None);
        }
        if is_complete() {
            tracing::warn!("a change of tables was interrupted: going on with it");
            return Ok(Some(this));
        }
        tracing::warn!("a change of tables was interrupted before the new ones were in force");
        this.take_back(pins)?;
        Ok(None)
    }

    /// Whether the earlier data plane has the link of an interface.
    pub(super) fn has(&self, interface: &str) -> bool {
        self.earlier.link(interface).exists()
    }

    /// Puts the program on these interfaces through their earlier links, whose pins go over. A link that
    /// leads nowhere any more is removed.
    pub(super) fn hand_over<'a>(
        &self,
        xdp: &mut Xdp,
        pins: &Pins,
        interfaces: impl Iterator<Item = &'a String>,
    ) -> Result<(), DataPlaneError> {
        let mut links = Vec::new();
        for interface in interfaces.filter(|interface| self.has(interface)) {
            links.push((interface, attach::open_link(&self.earlier, interface)?));
        }
        // One right after the other: a transaction that crosses in between meets two programs that do not
        // know of each other, and a segment of it has to be sent again.
        let mut replaced = Vec::new();
        for (interface, link) in links {
            let path = self.earlier.link(interface);
            replaced.push((interface, attach::replace_in(xdp, link, &path)?));
        }
        for (interface, is_there) in replaced {
            if is_there {
                give(&self.earlier, pins, interface)?;
            } else {
                self.earlier.remove_link(interface)?;
            }
        }
        Ok(())
    }

    /// Lets go of the earlier data plane. Its links to interfaces that are `wanted` and missing go over, so
    /// that they are known when they come back; the others are taken off.
    pub(super) fn finish(
        self,
        pins: &Pins,
        is_wanted: impl Fn(&str) -> bool,
    ) -> Result<(), DataPlaneError> {
        for interface in linked(&self.earlier)? {
            if is_wanted(&interface) {
                give(&self.earlier, pins, &interface)?;
            } else {
                tracing::warn!(
                    interface,
                    "no longer in the policy: the program is taken off, nothing is filtered there"
                );
            }
        }
        self.earlier.remove_own()?;
        Ok(())
    }

    /// Gives every link its earlier program back, and its pin.
    pub(super) fn hand_back(&self, pins: &Pins) -> Result<(), DataPlaneError> {
        let path = self.earlier.program();
        let mut xdp = Xdp::from_pin(&path, XdpAttachType::Interface).map_err(|error| {
            DataPlaneError::Pin {
                action: "opening the program",
                path: path.display().to_string(),
                reason: chain(&error),
            }
        })?;
        let mut outcome = Ok(());
        for interface in linked(pins)? {
            outcome = outcome.and(give(pins, &self.earlier, &interface));
        }
        for interface in linked(&self.earlier)? {
            let path = self.earlier.link(&interface);
            let given = attach::open_link(&self.earlier, &interface)
                .and_then(|link| attach::replace_in(&mut xdp, link, &path));
            outcome = outcome.and(given.map(drop));
        }
        outcome
    }

    /// Removes what was pinned of the new data plane, and puts the earlier pins back in their place.
    pub(super) fn take_back(self, pins: &Pins) -> Result<(), DataPlaneError> {
        for interface in linked(pins)? {
            give(pins, &self.earlier, &interface)?;
        }
        pins.remove_own()?;
        rename("putting the pins back", &self.earlier, pins)
    }
}

fn linked(pins: &Pins) -> Result<Vec<String>, DataPlaneError> {
    pins.linked_interfaces()
        .map_err(|source| DataPlaneError::System {
            action: "reading the pins",
            source,
        })
}

/// Moves the pin of a link.
fn give(from: &Pins, to: &Pins, interface: &str) -> Result<(), DataPlaneError> {
    let path = from.link(interface);
    fs::rename(&path, to.link(interface)).map_err(|error| DataPlaneError::Pin {
        action: "moving the pin of the link",
        path: path.display().to_string(),
        reason: error.to_string(),
    })
}

fn rename(action: &'static str, from: &Pins, to: &Pins) -> Result<(), DataPlaneError> {
    let renamed: io::Result<()> = fs::rename(from.directory(), to.directory());
    renamed.map_err(|source| DataPlaneError::System { action, source })
}
