//! Policies of any size, for the same plant.

use std::fmt::Write as _;

use conduitfw::policy::load_text;

/// The responder of every measured flow.
pub(crate) const PLC: [u8; 4] = [10, 20, 0, 10];
/// The same over IPv6.
pub(crate) const PLC_V6: &str = "fd00:20::10";

/// What a policy holds beside the conduit that is measured.
#[derive(Clone, Copy)]
pub(crate) struct Extent {
    /// Modbus rules of the measured conduit.
    pub(crate) rules: usize,
    /// Conduits.
    pub(crate) conduits: usize,
    /// Zones, the gateway's own not counted.
    pub(crate) zones: usize,
}

impl Extent {
    /// Two zones and nothing else.
    pub(crate) const SMALL: Self = Self {
        rules: 10,
        conduits: 1,
        zones: 2,
    };
    /// A small plant, with hosts behind tags.
    pub(crate) const USUAL: Self = Self {
        rules: 10,
        conduits: 1,
        zones: 4,
    };
}

/// Whether rules can name registers and values.
pub(crate) fn knows_registers() -> bool {
    load_text("probe.toml", &Policy::of(Extent::USUAL).text(true)).is_ok()
}

/// A policy in which every register has limits of its own.
pub(crate) fn guarded() -> String {
    let mut text = format!(
        "{PLANT}[[conduits]]\nname = \"dosing\"\nfrom = [\"operations\"]\nto = [\"plc\"]\n\
         rationale = \"The slowest policy\"\non_deny = \"drop\"\nnew_flows = \"unlimited\"\n\
         [[conduits.modbus]]\nunits = [1]\nfunctions = [3]\nregisters = [\"42001-42125\"]\n"
    );
    for register in 0..125 {
        // Values that no other rule has, so that each has rows of its own to search.
        let values: Vec<String> = (0..40)
            .map(|value| (value * 100 + register).to_string())
            .collect();
        let _ = write!(
            text,
            "[[conduits.modbus]]\nunits = [1]\nfunctions = [6, 16, 23]\nregisters = [\"{}\"]\n\
             values = [{}, 700]\n",
            42_001 + register,
            values.join(", ")
        );
    }
    text
}

/// What the measured conduit does with what it denies.
#[derive(Clone, Copy)]
pub(crate) enum OnDeny {
    /// Nothing.
    Drop,
    /// Ends the connection.
    Reset,
    /// Answers.
    Exception,
}

impl OnDeny {
    fn word(self) -> &'static str {
        match self {
            Self::Drop => "drop",
            Self::Reset => "reset",
            Self::Exception => "exception",
        }
    }
}

/// A policy in the making.
#[derive(Clone, Copy)]
pub(crate) struct Policy {
    extent: Extent,
    on_deny: OnDeny,
}

impl Policy {
    /// The plant, whose measured conduit drops what it denies.
    pub(crate) fn of(extent: Extent) -> Self {
        Self {
            extent,
            on_deny: OnDeny::Drop,
        }
    }

    /// The same with another answer to what is denied.
    pub(crate) fn on_deny(self, on_deny: OnDeny) -> Self {
        Self { on_deny, ..self }
    }

    /// The text, with registers and values if rules can name them.
    pub(crate) fn text(&self, registers: bool) -> String {
        let mut text = PLANT.to_owned();
        let mut from = "\"operations\"".to_owned();
        if self.extent.zones >= 4 {
            text.push_str(CELLS);
            from.push_str(", \"cell-10\", \"cell-100-20\"");
        }
        // The four zones of the plant come first.
        for zone in 4..self.extent.zones {
            let _ = write!(
                text,
                "[zones.area-{zone}]\ninterfaces = [\"eth1\"]\nnetworks = [\"10.30.{zone}.0/24\"]\n"
            );
        }
        for conduit in 1..self.extent.conduits {
            let (high, low) = (conduit / 200, conduit % 200 + 20);
            let _ = write!(
                text,
                "[assets.device-{conduit}]\nzone = \"control\"\naddress = \"10.20.{high}.{low}\"\n\
                 [[conduits]]\nname = \"conduit-{conduit}\"\nfrom = [\"operations\"]\n\
                 to = [\"device-{conduit}\"]\nrationale = \"One of many\"\n\
                 [[conduits.modbus]]\nunits = [1]\nfunctions = [\"reads\"]\n"
            );
        }
        let _ = write!(
            text,
            "[[conduits]]\nname = \"dosing\"\nfrom = [{from}]\n\
             to = [\"plc\"]\nrationale = \"Operators watch the dosing\"\non_deny = \"{}\"\n\
             new_flows = \"unlimited\"\ntcp = [80]\nudp = [5000]\n",
            self.on_deny.word()
        );
        self.rules(&mut text, registers);
        text
    }

    fn rules(&self, text: &mut String, registers: bool) {
        if registers {
            let _ = write!(
                text,
                "[[conduits.modbus]]\nunits = [1]\nfunctions = [\"write-multiple-registers\", \
                 \"write-single-register\"]\nregisters = [\"42001-42100\"]\n\
                 values = {{ min = 0, max = 1500 }}\n"
            );
            // Registers 5, 10, 15, ... and the ten at 3000 that the bench reads: no two ranges
            // touch, so that as many intervals are searched as there are rules.
            let _ = write!(
                text,
                "[[conduits.modbus]]\nunits = [1]\nfunctions = [3]\nregisters = [\"43001-43010\"]\n"
            );
            for rule in 2..self.extent.rules {
                let (unit, place) = (1 + rule / 1500, rule % 1500);
                let first = 40_001
                    + if place < 600 {
                        place * 5
                    } else {
                        20 + place * 5
                    };
                let _ = write!(
                    text,
                    "[[conduits.modbus]]\nunits = [{unit}]\nfunctions = [3]\n\
                     registers = [\"{first}-{}\"]\n",
                    first + 1
                );
            }
        } else {
            let _ = write!(
                text,
                "[[conduits.modbus]]\nunits = [1]\nfunctions = [3, 6, 16]\n"
            );
            for rule in 1..self.extent.rules {
                let (unit, function) = (2 + rule % 246, 65 + rule / 246);
                let _ = write!(
                    text,
                    "[[conduits.modbus]]\nunits = [{unit}]\nfunctions = [{function}]\n"
                );
            }
        }
    }
}

const PLANT: &str = r#"
[site]
name = "Bench"

[zones.operations]
interfaces = ["eth0"]
networks = ["10.10.0.0/16", "fd00:10::/64"]

[zones.control]
interfaces = ["eth1"]
networks = ["10.20.0.0/16", "fd00:20::/64"]

[assets.plc]
zone = "control"
addresses = ["10.20.0.10", "fd00:20::10"]
"#;

/// Zones whose hosts stand behind tags.
const CELLS: &str = r#"
[zones.cell-10]
interfaces = ["eth0"]
networks = ["10.40.0.0/16"]
vlans = ["10"]

[zones.cell-100-20]
interfaces = ["eth0"]
networks = ["10.50.0.0/16"]
vlans = ["100.20"]
"#;
