//! A record of the rings, with names in the place of numbers. The schema: docs/events.md.

use std::{
    fmt::Write as _,
    net::{IpAddr, Ipv6Addr},
};

use conduitfw_common::{
    Reason, Verdict,
    event::{EventOperation, EventRecord, direction, field},
    modbus::function::FunctionCode,
    table::{Address, protocol},
};
use jiff::Timestamp;
use serde::Serialize;
use zerocopy::IntoBytes as _;

use crate::policy::{Number, NumberType};

/// What the policy that decided calls things.
pub trait Names: Send + Sync {
    /// Name of the asset with an address.
    fn asset(&self, address: IpAddr) -> Option<&str>;
    /// Name of the zone of an address.
    fn zone(&self, address: IpAddr) -> Option<&str>;
    /// Name of a conduit.
    fn conduit(&self, id: u16) -> Option<&str>;
    /// How the rules of a conduit read what an operation writes to a register.
    fn number_type(&self, conduit: u16, write: &EventOperation) -> Option<NumberType>;
}

/// What happened to the frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum EventKind {
    /// It was denied.
    Deny,
    /// It passed because its conduit, or the policy, only observes.
    WouldDeny,
    /// It passed, and is the first that is known of a connection that was open before the gateway.
    Adopt,
}

/// One denied, or would-be denied, frame.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Event {
    /// When, in UTC (a few milliseconds coarse).
    pub time: Timestamp,
    /// Denied or only observed.
    pub event: EventKind,
    /// Why: a label.
    pub reason: String,
    /// Why: one sentence.
    pub meaning: String,
    /// What was done to the frame: a label.
    pub verdict: String,
    /// The conduit that decided, if one did.
    pub conduit: Option<String>,
    /// Zone of the source.
    pub source_zone: Option<String>,
    /// Asset of the source.
    pub source_asset: Option<String>,
    /// Source address, when the frame had one.
    pub source: Option<IpAddr>,
    /// Source port of TCP and UDP.
    pub source_port: Option<u16>,
    /// Zone of the destination.
    pub destination_zone: Option<String>,
    /// Asset of the destination.
    pub destination_asset: Option<String>,
    /// Destination address.
    pub destination: Option<IpAddr>,
    /// Destination port of TCP and UDP.
    pub destination_port: Option<u16>,
    /// tcp, udp, icmp, icmpv6, or protocol-N.
    pub transport: Option<String>,
    /// Type of an ICMP message.
    pub icmp_type: Option<u8>,
    /// Code of an ICMP message.
    pub icmp_code: Option<u8>,
    /// request, reply, or nothing when the frame belongs to no flow.
    pub direction: Option<&'static str>,
    /// What the inspected payload asked for.
    pub modbus: Option<ModbusFields>,
    /// Name of the interface that the frame came in on.
    pub interface: Option<String>,
    /// Its number.
    pub ifindex: u32,
    /// VLAN ids, outer first.
    pub vlans: Vec<u16>,
    /// Ethernet type, as 0x0800.
    pub ether_type: String,
    /// Bytes of the frame.
    pub frame_length: u16,
    /// The first bytes of the frame, in hexadecimal.
    pub frame: String,
    /// The policy generation that decided.
    pub generation: u32,
    /// The processor.
    pub cpu: u32,
    /// Counts up by one with every event of this processor.
    pub sequence: u64,
}

/// What a Modbus ADU asked for, as far as it was read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ModbusFields {
    /// Transaction id.
    pub transaction_id: Option<u16>,
    /// Protocol id.
    pub protocol_id: Option<u16>,
    /// Length field.
    pub length: Option<u16>,
    /// Unit id.
    pub unit: Option<u8>,
    /// Function code.
    pub function: Option<u8>,
    /// Its name, when the specification gives it one.
    pub function_name: Option<&'static str>,
    /// Sub-function of function 8, or MEI type of function 43.
    pub sub_function: Option<u16>,
    /// First register or coil, counted from 0.
    pub address: Option<u16>,
    /// How many registers or coils.
    pub quantity: Option<u16>,
    /// The written value that was refused.
    pub value: Option<u32>,
    /// The same as the rule reads it.
    pub number: Option<serde_json::Number>,
}

/// Events that did not reach the controller.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LostEvents {
    /// When the gap was noticed.
    pub time: Timestamp,
    /// Always `lost`.
    pub event: &'static str,
    /// The processor.
    pub cpu: u32,
    /// How many.
    pub count: u64,
}

/// A policy that came into force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PolicyInForce {
    /// When.
    pub time: Timestamp,
    /// Always `policy`.
    pub event: &'static str,
    /// Its number.
    pub generation: u32,
    /// The file that it was read from.
    pub policy_file: String,
    /// The SHA-256 digest of its text, in hexadecimal.
    pub sha256: Option<String>,
    /// Who had it put in force, in words.
    pub by: Option<String>,
    /// enforce or observe.
    pub mode: String,
}

impl Event {
    /// Gives a record its names.
    #[must_use]
    pub fn from_record(
        record: &EventRecord,
        time: Timestamp,
        interface: Option<&str>,
        names: &dyn Names,
    ) -> Self {
        let reason = Reason::from_number(record.reason);
        let source = ip_address(record.source);
        let destination = ip_address(record.destination);
        let zone = |address: Option<IpAddr>| names.zone(address?).map(str::to_owned);
        let asset = |address: Option<IpAddr>| names.asset(address?).map(str::to_owned);
        let has_ports = matches!(record.transport, 6 | 17);
        let is_icmp = matches!(record.transport, 1 | 58);
        let [icmp_type, icmp_code] = record.source_port.to_be_bytes();
        Self {
            time,
            event: match reason {
                Some(Reason::FlowAdopted) => EventKind::Adopt,
                _ if record.would_deny != 0 => EventKind::WouldDeny,
                _ => EventKind::Deny,
            },
            reason: reason.map_or_else(
                || format!("reason-{}", record.reason),
                |r| r.label().to_owned(),
            ),
            meaning: reason.map_or_else(
                || "a reason that this version does not know".to_owned(),
                |reason| reason.meaning().to_owned(),
            ),
            verdict: Verdict::from_number(record.verdict).map_or_else(
                || format!("verdict-{}", record.verdict),
                |v| v.label().to_owned(),
            ),
            conduit: conduit_name(record.conduit, names),
            source_zone: zone(source),
            source_asset: asset(source),
            source,
            source_port: has_ports.then_some(record.source_port),
            destination_zone: zone(destination),
            destination_asset: asset(destination),
            destination,
            destination_port: has_ports.then_some(record.destination_port),
            transport: transport_name(record.transport, record.ether_type),
            icmp_type: is_icmp.then_some(icmp_type),
            icmp_code: is_icmp.then_some(icmp_code),
            direction: match record.direction {
                direction::REQUEST => Some("request"),
                direction::REPLY => Some("reply"),
                _ => None,
            },
            modbus: (record.protocol == protocol::MODBUS)
                .then(|| ModbusFields::from_record(record, names)),
            interface: interface.map(str::to_owned),
            ifindex: record.ifindex,
            vlans: vlan_ids(record.vlans),
            ether_type: format!("0x{:04x}", record.ether_type),
            frame_length: record.frame_length,
            frame: frame_hex(record),
            generation: record.generation,
            cpu: record.cpu,
            sequence: record.sequence,
        }
    }
}

impl ModbusFields {
    fn from_record(record: &EventRecord, names: &dyn Names) -> Self {
        let operation = &record.operation;
        let has = |bit: u16| operation.fields & bit != 0;
        let has_header = has(field::HEADER);
        Self {
            transaction_id: has_header.then_some(operation.transaction_id),
            protocol_id: has_header.then_some(operation.protocol_id),
            length: has_header.then_some(operation.length),
            unit: has_header.then_some(operation.unit),
            function: has(field::FUNCTION).then_some(operation.function),
            function_name: has(field::FUNCTION)
                .then(|| FunctionCode(operation.function).name())
                .flatten(),
            sub_function: has(field::SUB_FUNCTION).then_some(operation.sub_function),
            address: has(field::ADDRESS).then_some(operation.address),
            quantity: has(field::QUANTITY).then_some(operation.quantity),
            value: has(field::VALUE).then_some(operation.value),
            number: has(field::VALUE)
                .then(|| names.number_type(record.conduit, operation))
                .flatten()
                .and_then(|kind| json_number(kind.number(operation.value))),
        }
    }
}

/// Nothing for an infinity and what is not a number.
fn json_number(number: Number) -> Option<serde_json::Number> {
    match number {
        Number::Integer(number) => Some(number.into()),
        // By way of its shortest text, so that 1.9 stays 1.9.
        Number::Real(number) => {
            let shown: f64 = number.to_string().parse().ok()?;
            serde_json::Number::from_f64(shown)
        }
    }
}

fn conduit_name(id: u16, names: &dyn Names) -> Option<String> {
    if id == 0 {
        return None;
    }
    let name = names.conduit(id).map(str::to_owned);
    Some(name.unwrap_or_else(|| format!("conduit-{id}")))
}

/// The kernel counts ICMPv6 as ICMP; the Ethernet type tells them apart.
fn transport_name(number: u8, ether_type: u16) -> Option<String> {
    const IPV6: u16 = 0x86dd;
    Some(match number {
        0 => return None,
        1 if ether_type == IPV6 => "icmpv6".to_owned(),
        1 => "icmp".to_owned(),
        6 => "tcp".to_owned(),
        17 => "udp".to_owned(),
        58 => "icmpv6".to_owned(),
        other => format!("protocol-{other}"),
    })
}

/// The address, or nothing when all its bits are zero.
fn ip_address(words: Address) -> Option<IpAddr> {
    if words == Address::default() {
        return None;
    }
    let mut bytes = [0; 16];
    for (place, word) in bytes.chunks_exact_mut(4).zip(words) {
        place.copy_from_slice(&word.to_ne_bytes());
    }
    Some(Ipv6Addr::from(bytes).to_canonical())
}

fn vlan_ids(vlans: u32) -> Vec<u16> {
    let [outer_high, outer_low, inner_high, inner_low] = vlans.to_be_bytes();
    [[outer_high, outer_low], [inner_high, inner_low]]
        .into_iter()
        .map(u16::from_be_bytes)
        .filter(|id| *id != 0)
        .collect()
}

fn frame_hex(record: &EventRecord) -> String {
    let captured = usize::try_from(record.captured).unwrap_or(usize::MAX);
    let frame = record.frame.as_bytes();
    let bytes = frame.get(..captured.min(frame.len())).unwrap_or_default();
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

#[cfg(test)]
pub(super) mod tests {
    use conduitfw_common::event::EVENT_FRAME_BYTES;
    use zerocopy::FromBytes as _;

    use super::*;

    pub(crate) struct Plant;

    impl Names for Plant {
        fn asset(&self, address: IpAddr) -> Option<&str> {
            match address.to_string().as_str() {
                "10.10.0.5" => Some("hmi-1"),
                "10.20.0.10" => Some("plc-dosing"),
                _ => None,
            }
        }

        fn zone(&self, address: IpAddr) -> Option<&str> {
            let IpAddr::V4(address) = address else {
                return None;
            };
            match address.octets() {
                [10, 10, ..] => Some("operations"),
                [10, 20, ..] => Some("control"),
                _ => None,
            }
        }

        fn conduit(&self, id: u16) -> Option<&str> {
            (id == 3).then_some("hmi-dosing")
        }

        fn number_type(&self, conduit: u16, write: &EventOperation) -> Option<NumberType> {
            match (conduit, write.address) {
                (3, 10) => Some(NumberType::U16),
                (3, 11) => Some(NumberType::I16),
                (3, 12) => Some(NumberType::F32),
                _ => None,
            }
        }
    }

    fn v4(a: u8, b: u8, c: u8, d: u8) -> Address {
        [
            0,
            0,
            conduitfw_common::table::IPV4_MAPPED,
            u32::from_ne_bytes([a, b, c, d]),
        ]
    }

    pub(crate) fn event(record: &EventRecord) -> Event {
        Event::from_record(record, Timestamp::UNIX_EPOCH, Some("eth0"), &Plant)
    }

    pub(crate) fn denied_write() -> EventRecord {
        let mut frame = [0; EVENT_FRAME_BYTES / 8];
        frame[0] = 0xab_u64.to_le();
        EventRecord {
            time_ns: 5,
            sequence: 17,
            cpu: 1,
            generation: 4,
            ifindex: 2,
            vlans: 0x0064_000a,
            source: v4(10, 10, 0, 5),
            destination: v4(10, 20, 0, 10),
            source_port: 40_000,
            destination_port: 502,
            conduit: 3,
            frame_length: 66,
            ether_type: 0x0800,
            transport: 6,
            reason: Reason::FunctionNotAllowed as u8,
            verdict: Verdict::Reset as u8,
            would_deny: 0,
            direction: direction::REQUEST,
            protocol: protocol::MODBUS,
            operation: EventOperation {
                fields: field::HEADER | field::FUNCTION | field::ADDRESS,
                transaction_id: 9,
                length: 6,
                unit: 1,
                function: 6,
                address: 10,
                ..EventOperation::default()
            },
            captured: 2,
            frame,
        }
    }

    #[test]
    fn numbers_become_names() {
        let event = event(&denied_write());
        let json = serde_json::to_value(&event).unwrap();
        assert_eq!(json["time"], "1970-01-01T00:00:00Z");
        assert_eq!(json["event"], "deny");
        assert_eq!(json["reason"], "function-not-allowed");
        assert_eq!(json["verdict"], "reset");
        assert_eq!(json["conduit"], "hmi-dosing");
        assert_eq!(json["source"], "10.10.0.5");
        assert_eq!(json["source_asset"], "hmi-1");
        assert_eq!(json["destination_zone"], "control");
        assert_eq!(json["vlans"], serde_json::json!([100, 10]));
        assert_eq!(json["modbus"]["function_name"], "write-single-register");
        assert_eq!(json["modbus"]["quantity"], serde_json::Value::Null);
        assert_eq!(json["frame"], "ab00");
        assert_eq!(json["interface"], "eth0");
    }

    #[test]
    fn numbers_without_names_stay_readable() {
        let mut record = denied_write();
        record.reason = 63;
        record.verdict = 9;
        record.conduit = 99;
        record.transport = 132;
        record.captured = 1000;
        record.source = Address::default();
        let event = event(&record);
        assert_eq!(event.reason, "reason-63");
        assert_eq!(event.verdict, "verdict-9");
        assert_eq!(event.conduit.as_deref(), Some("conduit-99"));
        assert_eq!(event.transport.as_deref(), Some("protocol-132"));
        assert_eq!(event.source, None);
        assert_eq!(event.frame.len(), 2 * EVENT_FRAME_BYTES);
    }

    const SCHEMA: &str = include_str!("../../../docs/events.md");

    #[test]
    fn the_documentation_has_every_reason() {
        for reason in Reason::ALL {
            let row = format!(
                "| {} | `{}` | {} |\n",
                *reason as u8,
                reason.label(),
                reason.meaning()
            );
            assert!(SCHEMA.contains(&row), "docs/events.md lacks: {row}");
        }
        let rows = SCHEMA.lines().filter(|line| {
            line.strip_prefix("| ")
                .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
        });
        assert_eq!(rows.count(), Reason::ALL.len(), "a reason that is none");
    }

    #[test]
    fn the_documentation_has_every_field() {
        let event = event(&denied_write());
        let json = serde_json::to_value(&event).unwrap();
        let modbus = json["modbus"].as_object().unwrap();
        for field in json.as_object().unwrap().keys().chain(modbus.keys()) {
            assert!(
                SCHEMA.contains(&format!("| `{field}` |")),
                "docs/events.md lacks {field}"
            );
        }
    }

    proptest::proptest! {
        #[test]
        fn any_record_becomes_an_event(
            bytes in proptest::collection::vec(proptest::num::u8::ANY, size_of::<EventRecord>())
        ) {
            let record = EventRecord::read_from_bytes(&bytes).unwrap();
            let event = event(&record);
            let words = crate::events::in_words(&event, &jiff::tz::TimeZone::UTC);
            assert!(!words.contains('\n'));
            assert!(!serde_json::to_string(&event).unwrap().contains('\n'));
        }
    }
}
