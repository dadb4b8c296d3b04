//! The policies that the oracle attacks, each with a reading of its own of what it denies: written
//! from the meaning of Modbus, and not with the data plane's code.

use super::reader::{Reader, Request, short};

/// What may be asked of a function.
#[derive(Clone, Copy, Debug)]
pub enum Operands {
    /// Anything.
    Any,
    /// These registers or coils, and no written value above the last number.
    Within(u16, u16, u16),
}

/// An allowed function of unit 1.
#[derive(Clone, Copy, Debug)]
pub struct Permit {
    /// The function code.
    pub function: u8,
    /// Its operands.
    pub operands: Operands,
}

const fn any(function: u8) -> Permit {
    Permit {
        function,
        operands: Operands::Any,
    }
}

/// What a conduit does with a denied segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnDeny {
    /// Nothing.
    Drop,
    /// It ends the connection.
    Reset,
    /// It answers with an exception.
    Exception,
}

/// Every kind of application.
const EVERYBODY: &[Reader] = &Reader::ALL;
/// A policy, and what it allows.
#[derive(Clone, Copy, Debug)]
pub struct Site {
    /// What people call it.
    pub name: &'static str,
    /// What becomes of denied segments.
    pub on_deny: OnDeny,
    /// What unit 1 may be asked for.
    pub permits: &'static [Permit],
    /// Whether connections were open before the gateway, which picks them up.
    pub adopts: bool,
    /// The applications that it protects.
    pub readers: &'static [Reader],
    /// The rules, in the policy's words.
    rules: &'static str,
}

/// Only functions.
const FUNCTIONS: (&[Permit], &str) = (
    &[any(3), any(4), any(16)],
    "
[[conduits.modbus]]
units = [1]
functions = [3, 4, 16]
",
);

const fn within(function: u8, first: u16, last: u16, highest: u16) -> Permit {
    Permit {
        function,
        operands: Operands::Within(first, last, highest),
    }
}

/// Registers and values too.
const REGISTERS: (&[Permit], &str) = (
    &[
        within(3, 0, 99, 0xffff),
        within(1, 0, 15, 0xffff),
        within(5, 8, 15, 0xffff),
        within(15, 8, 15, 0xffff),
        within(6, 40, 49, 1500),
        within(16, 40, 49, 1500),
        within(22, 40, 49, 1500),
        within(23, 40, 49, 1500),
    ],
    "
[[conduits.modbus]]
units = [1]
functions = [3]
holding_registers = [{ first = 0, last = 49 }]
[[conduits.modbus]]
units = [1]
functions = [3]
holding_registers = [{ first = 50, last = 99 }]
[[conduits.modbus]]
units = [1]
functions = [1]
coils = [{ first = 0, last = 15 }]
[[conduits.modbus]]
units = [1]
functions = [5, 15]
coils = [{ first = 8, last = 15 }]
[[conduits.modbus]]
units = [1]
functions = [6, 16, 22, 23]
holding_registers = [{ first = 40, last = 49 }]
values = { min = 0, max = 1500 }
",
);

/// Every site.
pub const SITES: &[Site] = &[
    Site {
        name: "functions, drop",
        on_deny: OnDeny::Drop,
        permits: FUNCTIONS.0,
        readers: EVERYBODY,
        adopts: false,
        rules: FUNCTIONS.1,
    },
    Site {
        name: "functions, reset",
        on_deny: OnDeny::Reset,
        permits: FUNCTIONS.0,
        readers: EVERYBODY,
        adopts: false,
        rules: FUNCTIONS.1,
    },
    Site {
        name: "functions, exception",
        on_deny: OnDeny::Exception,
        permits: FUNCTIONS.0,
        readers: EVERYBODY,
        adopts: false,
        rules: FUNCTIONS.1,
    },
    Site {
        name: "registers, drop",
        on_deny: OnDeny::Drop,
        permits: REGISTERS.0,
        readers: EVERYBODY,
        adopts: false,
        rules: REGISTERS.1,
    },
    Site {
        name: "registers, reset",
        on_deny: OnDeny::Reset,
        permits: REGISTERS.0,
        readers: EVERYBODY,
        adopts: false,
        rules: REGISTERS.1,
    },
    Site {
        name: "registers, exception",
        on_deny: OnDeny::Exception,
        permits: REGISTERS.0,
        readers: EVERYBODY,
        adopts: false,
        rules: REGISTERS.1,
    },
    Site {
        name: "registers, drop, picked up",
        on_deny: OnDeny::Drop,
        permits: REGISTERS.0,
        readers: EVERYBODY,
        adopts: true,
        rules: REGISTERS.1,
    },
    Site {
        name: "registers, exception, picked up",
        on_deny: OnDeny::Exception,
        permits: REGISTERS.0,
        readers: EVERYBODY,
        adopts: true,
        rules: REGISTERS.1,
    },
];

/// The VLAN of the responder's frames, which come in on the same interface as the initiator's.
pub const FIELD_VLAN: u16 = 20;

impl Site {
    /// The policy. Both zones are on the loopback interface, told apart by a tag.
    #[must_use]
    pub fn policy(&self) -> String {
        self.policy_for("lo", "lo", Some(FIELD_VLAN))
    }

    /// The policy with zones on these interfaces, the responder's under a tag or without one.
    #[must_use]
    pub fn policy_for(&self, initiators: &str, responders: &str, vlan: Option<u16>) -> String {
        let vlans = vlan.map_or_else(String::new, |vlan| format!("vlans = [{vlan}]\n"));
        let on_deny = match self.on_deny {
            OnDeny::Drop => "drop",
            OnDeny::Reset => "reset",
            OnDeny::Exception => "exception",
        };
        format!(
            r#"
[site]
name = "oracle"
[settings.timeouts]
tcp_established = "7d"
tcp_opening = "7d"
tcp_closing = "7d"
[gateway]
addresses = ["10.10.0.1"]
[zones.control]
interfaces = ["{initiators}"]
networks = ["10.10.0.0/24"]
[zones.field]
interfaces = ["{responders}"]
networks = ["10.20.0.0/24"]
{vlans}[assets.hmi]
zone = "control"
address = "10.10.0.5"
[assets.plc]
zone = "field"
address = "10.20.0.10"
[[conduits]]
name = "hmi-plc"
from = ["hmi"]
to = ["plc"]
rationale = "attacked"
new_flows = "unlimited"
on_deny = "{on_deny}"
{}"#,
            self.rules
        )
    }

    /// Whether this policy denies what an application took for a request.
    #[must_use]
    pub fn denies(&self, request: &Request) -> bool {
        let Some((function, body)) = request.pdu.split_first() else {
            // An ADU without a function code asks for nothing.
            return false;
        };
        if self.on_deny == OnDeny::Exception && is_neutral(*function, body) {
            return false;
        }
        if request.unit != 1 {
            return true;
        }
        let mut permits = self.permits.iter();
        let Some(permit) = permits.find(|permit| permit.function == *function) else {
            return true;
        };
        match permit.operands {
            Operands::Any => false,
            Operands::Within(first, last, highest) => {
                let Some(asked) = Asked::read(*function, body) else {
                    // Too short to be carried out.
                    return false;
                };
                let is_outside = asked.ranges.iter().any(|(address, quantity)| {
                    let end = u32::from(*address) + u32::from(*quantity);
                    *quantity != 0 && (*address < first || end > u32::from(last) + 1)
                });
                is_outside || asked.values.iter().any(|value| *value > highest)
            }
        }
    }
}

/// Whether this is what a denied request becomes: one that no server carries out, and nothing is
/// left of what was asked but the length. No registers are read or written behind the last one, or
/// the function is one that no server has.
fn is_neutral(function: u8, body: &[u8]) -> bool {
    match (function, body) {
        (0x7f, []) | (3, [0xff, 0xff, 0, 0]) => true,
        (16, [0xff, 0xff, 0, 0, _, values @ ..]) => values.iter().all(|byte| *byte == 0),
        _ => false,
    }
}

/// Ranges and written values of a request.
#[derive(Debug, Default)]
struct Asked {
    ranges: Vec<(u16, u16)>,
    values: Vec<u16>,
}

impl Asked {
    fn read(function: u8, body: &[u8]) -> Option<Self> {
        let (address, second) = (short(body, 0)?, short(body, 2));
        let written = |from: usize, quantity: u16| {
            let registers = body.get(from..).unwrap_or_default().chunks_exact(2);
            registers
                .take(usize::from(quantity))
                .filter_map(|register| short(register, 0))
                .collect()
        };
        Some(match function {
            1..=4 | 15 => Self {
                ranges: vec![(address, second?)],
                values: Vec::new(),
            },
            5 => Self {
                ranges: vec![(address, 1)],
                values: vec![second? >> 15],
            },
            6 => Self {
                ranges: vec![(address, 1)],
                values: vec![second?],
            },
            16 => Self {
                ranges: vec![(address, second?)],
                values: written(5, second?),
            },
            22 => Self {
                ranges: vec![(address, 1)],
                // What is written is known only if nothing of the old value is kept.
                values: vec![if second? == 0 {
                    short(body, 4)?
                } else {
                    u16::MAX
                }],
            },
            23 => Self {
                ranges: vec![(address, second?), (short(body, 4)?, short(body, 6)?)],
                values: written(9, short(body, 6)?),
            },
            _ => Self::default(),
        })
    }
}
