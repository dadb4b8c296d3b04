//! The plant that most tests play in: an HMI, another one, and a PLC behind the gateway.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{Result, bail};
use serde_json::Value;

use crate::lab::{Conduitfw, Host, Lab, skipped_without_root};

/// The asset `hmi-1` over IPv4.
pub const HMI: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 10, 0, 5));
/// The asset `hmi-1` over IPv6.
pub const HMI_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd00, 0x10, 0, 0, 0, 0, 0, 5));
/// A host of the operations zone that is no asset.
pub const STRANGER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 10, 0, 66));
/// The asset `plc-dosing` over IPv4.
pub const PLC: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 20, 0, 10));
/// The asset `plc-dosing` over IPv6.
pub const PLC_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd00, 0x20, 0, 0, 0, 0, 0, 0x10));
/// The gateway, seen from the operations zone.
pub const GATEWAY: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 10, 0, 1));
/// The gateway, seen from the control zone.
pub const GATEWAY_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd00, 0x20, 0, 0, 0, 0, 0, 1));

/// Zones and assets of the plant.
pub const PLANT: &str = r#"
[site]
name = "Waterworks North"

[zones.operations]
interfaces = ["eth0"]
networks = ["10.10.0.0/24", "fd00:10::/64"]

[zones.control]
interfaces = ["eth1"]
networks = ["10.20.0.0/24", "fd00:20::/64"]

[assets.hmi-1]
zone = "operations"
addresses = ["10.10.0.5", "fd00:10::5"]

[assets.plc-dosing]
zone = "control"
addresses = ["10.20.0.10", "fd00:20::10"]
"#;

/// The start of a conduit from hmi-1 to plc-dosing; keys and rules may follow.
pub const DOSING: &str = r#"
[[conduits]]
name = "hmi-dosing"
from = ["hmi-1"]
to = ["plc-dosing"]
rationale = "Operators watch dosing"
"#;

/// A policy for the plant: what hmi-1 may ask plc-dosing's unit 1 for.
#[must_use]
pub fn dosing(functions: &str) -> String {
    format!("{PLANT}{DOSING}\n[[conduits.modbus]]\nunits = [1]\nfunctions = [{functions}]\n")
}

/// The plant with conduitfw on its gateway.
#[derive(Debug)]
pub struct Scene {
    /// The firewall. It goes before the lab does.
    pub conduitfw: Conduitfw,
    /// The lab.
    pub lab: Lab,
}

impl Scene {
    /// Builds the plant of this policy; nothing, after saying so, when this is not root.
    ///
    /// # Errors
    /// When the lab cannot be built, or conduitfw does not start.
    pub fn start(policy: &str) -> Result<Option<Self>> {
        if skipped_without_root() {
            return Ok(None);
        }
        let lab = Lab::for_policy(policy)?;
        let conduitfw = Conduitfw::start(&lab, policy)?;
        Ok(Some(Self { conduitfw, lab }))
    }

    /// The host of the operations zone.
    ///
    /// # Errors
    /// When the policy has no such zone.
    pub fn operations(&self) -> Result<&Host> {
        self.lab.host("operations")
    }

    /// The host of the control zone.
    ///
    /// # Errors
    /// When the policy has no such zone.
    pub fn control(&self) -> Result<&Host> {
        self.lab.host("control")
    }

    /// Writes a policy over the one in force.
    ///
    /// # Errors
    /// When it is refused.
    pub fn reload(&self, policy: &str) -> Result<()> {
        let reload = self.conduitfw.reload(policy)?;
        if reload.status != Some(0) {
            bail!("the reload was refused: {}", reload.said);
        }
        Ok(())
    }

    /// What `conduitfw status --json` says.
    ///
    /// # Errors
    /// When it says nothing.
    pub fn status(&self) -> Result<Value> {
        self.conduitfw.json("status", &[])
    }
}

/// Declares the [`Scene`] of a test, or ends the test in peace when there is no root.
#[macro_export]
macro_rules! scene {
    ($policy:expr) => {
        match $crate::scene::Scene::start($policy)? {
            Some(scene) => scene,
            None => return Ok(()),
        }
    };
}
