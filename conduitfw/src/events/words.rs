//! Events in the words of the people who run the plant.

use std::fmt::Write as _;

use conduitfw_common::{Verdict, modbus::function::FunctionCode};
use jiff::{Timestamp, tz::TimeZone};

use crate::policy::printable;

use super::{Event, EventKind, LostEvents, ModbusFields, PolicyInForce};

/// One line: when, what, which conduit, who to whom, what was asked for, why.
#[must_use]
pub fn in_words(event: &Event, zone: &TimeZone) -> String {
    let mut line = clock_time(event.time, zone);
    line.push_str(match event.event {
        EventKind::Deny => " DENY",
        EventKind::WouldDeny => " WOULD-DENY",
        EventKind::Adopt => " ADOPT",
    });
    if let Some(conduit) = &event.conduit {
        line.push(' ');
        line.push_str(conduit);
    }
    // Writing to a String cannot fail, so the results below say nothing.
    let _ = match party(
        event.source_asset.as_ref(),
        event.source,
        event.source_zone.as_ref(),
    ) {
        Some(source) => write!(line, " {source}"),
        None => write!(
            line,
            " {}",
            event.interface.as_deref().unwrap_or("unknown interface")
        ),
    };
    let destination = party(
        event.destination_asset.as_ref(),
        event.destination,
        event.destination_zone.as_ref(),
    );
    if let Some(destination) = destination {
        let _ = write!(line, " -> {destination}");
    }
    let is_reply = event.direction == Some("reply");
    let _ = match (&event.modbus, &event.transport) {
        (Some(modbus), _) => write!(line, " {}", modbus_words(modbus, is_reply)),
        (None, Some(transport)) => write!(line, " {}", transport_words(event, transport)),
        (None, None) => write!(line, " {}", ether_type_words(&event.ether_type)),
    };
    let _ = match event.event {
        EventKind::Adopt => write!(line, ": {}", event.meaning),
        EventKind::Deny | EventKind::WouldDeny => {
            write!(line, ": {}", event.reason.replace('-', " "))
        }
    };
    if matches!(
        event.reason.as_str(),
        "unknown-interface" | "spoofed-source"
    ) {
        // Where it came in says who sent it; the address does not.
        let interface = event.interface.as_deref().unwrap_or("an interface");
        let _ = write!(line, ", on {interface}");
        for vlan in &event.vlans {
            let _ = write!(line, ", VLAN {vlan}");
        }
    }
    if event.verdict == Verdict::Exception.label() {
        line.push_str(", answered with exception 1");
    }
    line
}

/// The same for events that did not arrive.
#[must_use]
pub fn lost_in_words(lost: &LostEvents, zone: &TimeZone) -> String {
    format!(
        "{} LOST {} events of processor {}: they came faster than they were read (the counters \
         have them all)",
        clock_time(lost.time, zone),
        lost.count,
        lost.cpu
    )
}

/// The same for a policy that came into force.
#[must_use]
pub fn policy_in_words(policy: &PolicyInForce, zone: &TimeZone) -> String {
    let by = policy
        .by
        .as_ref()
        .map(|by| format!(", by {}", printable(by)));
    format!(
        "{} POLICY generation {} of {} is in force ({}){}",
        clock_time(policy.time, zone),
        policy.generation,
        printable(&policy.policy_file),
        policy.mode,
        by.unwrap_or_default()
    )
}

fn clock_time(time: Timestamp, zone: &TimeZone) -> String {
    zone.to_datetime(time).strftime("%H:%M:%S").to_string()
}

fn party(
    asset: Option<&String>,
    address: Option<std::net::IpAddr>,
    zone: Option<&String>,
) -> Option<String> {
    match (asset, address, zone) {
        (Some(asset), ..) => Some(asset.clone()),
        (None, Some(address), Some(zone)) => Some(format!("{address} ({zone})")),
        (None, Some(address), None) => Some(address.to_string()),
        (None, None, _) => None,
    }
}

fn modbus_words(modbus: &ModbusFields, is_reply: bool) -> String {
    let mut words = if is_reply { "modbus reply" } else { "modbus" }.to_owned();
    let mut add = |text: String| {
        words.push(' ');
        words.push_str(&text);
    };
    if let Some(unit) = modbus.unit {
        add(format!("unit {unit}"));
    }
    // V1.1b3 §7: the function code of an exception has its highest bit set.
    let excepted = modbus.function.filter(|code| is_reply && *code & 0x80 != 0);
    let function = excepted.map_or(modbus.function, |code| Some(code & 0x7f));
    let name = match excepted {
        Some(_) => {
            add("exception to".to_owned());
            function.and_then(|code| FunctionCode(code).name())
        }
        None => modbus.function_name,
    };
    match (function, name) {
        (Some(number), Some(name)) => add(format!("{name} ({number})")),
        (Some(number), None) => add(format!("function {number}")),
        (None, _) => {}
    }
    if let Some(number) = modbus.sub_function {
        let what = match modbus.function {
            Some(43) => "MEI type",
            Some(20 | 21) => "record",
            _ => "sub-function",
        };
        add(format!("{what} {number}"));
    }
    if let Some(address) = modbus.address {
        // Of files, the number of one stands there.
        let what = match modbus.function {
            Some(20 | 21) => "file",
            _ => "address",
        };
        add(format!("{what} {address}"));
    }
    // The address of a refused value is that of its own register.
    match (modbus.value, &modbus.number, modbus.quantity) {
        (Some(_), Some(number), _) => add(format!("value {number}")),
        (Some(value), None, _) => add(format!("value {value}")),
        (None, _, Some(quantity)) => add(format!("quantity {quantity}")),
        (None, _, None) => {}
    }
    words
}

fn transport_words(event: &Event, transport: &str) -> String {
    match (
        event.destination_port,
        event.source_port,
        event.direction,
        event.icmp_type,
    ) {
        (_, Some(port), Some("reply"), _) => format!("{transport} from port {port}"),
        (Some(port), ..) => format!("{transport} port {port}"),
        (None, _, _, Some(kind)) => format!("{transport} type {kind}"),
        _ => transport.to_owned(),
    }
}

fn ether_type_words(ether_type: &str) -> String {
    match ether_type {
        "0x0800" => "ipv4".to_owned(),
        "0x86dd" => "ipv6".to_owned(),
        "0x0806" => "arp".to_owned(),
        other => format!("ethertype {other}"),
    }
}

#[cfg(test)]
mod tests {
    use conduitfw_common::{
        Reason,
        event::{EventRecord, direction, field},
        table::Address,
    };

    use super::{
        super::record::tests::{Plant, denied_write},
        *,
    };

    fn words(record: &EventRecord) -> String {
        let time: Timestamp = "2026-11-21T12:03:11.5Z".parse().unwrap();
        let event = Event::from_record(record, time, Some("eth0"), &Plant);
        in_words(&event, &TimeZone::UTC)
    }

    #[test]
    fn a_denied_write_reads_like_a_sentence() {
        assert_eq!(
            words(&denied_write()),
            "12:03:11 DENY hmi-dosing hmi-1 -> plc-dosing modbus unit 1 write-single-register (6) \
             address 10: function not allowed"
        );
    }

    #[test]
    fn a_refused_value_is_told_with_what_became_of_it() {
        let mut record = denied_write();
        record.reason = Reason::ValueNotAllowed as u8;
        record.verdict = Verdict::Exception as u8;
        record.operation.fields |= field::VALUE;
        record.operation.value = 9999;
        assert_eq!(
            words(&record),
            "12:03:11 DENY hmi-dosing hmi-1 -> plc-dosing modbus unit 1 write-single-register (6) \
             address 10 value 9999: value not allowed, answered with exception 1"
        );
        record.operation.address = 11;
        record.operation.value = 0xff9b;
        assert!(words(&record).contains(" address 11 value -101: "));
        record.operation.address = 12;
        record.operation.value = 1.9_f32.to_bits();
        assert!(words(&record).contains(" address 12 value 1.9: "));
        record.operation.address = 10;
        record.operation.value = 9999;
        record.reason = Reason::StepTooLarge as u8;
        record.verdict = Verdict::Reset as u8;
        assert!(words(&record).ends_with("address 10 value 9999: step too large"));
        record.reason = Reason::RateExceeded as u8;
        assert!(words(&record).ends_with(": rate exceeded"));
    }

    #[test]
    fn a_denied_reply_is_told_from_its_sender() {
        let mut record = denied_write();
        std::mem::swap(&mut record.source, &mut record.destination);
        record.direction = direction::REPLY;
        record.reason = Reason::UnsolicitedReply as u8;
        record.operation.fields = field::HEADER | field::FUNCTION;
        assert_eq!(
            words(&record),
            "12:03:11 DENY hmi-dosing plc-dosing -> hmi-1 modbus reply unit 1 \
             write-single-register (6): unsolicited reply"
        );
        record.operation.function |= 0x80;
        record.reason = Reason::ReplyMismatch as u8;
        assert!(words(&record).ends_with(
            "modbus reply unit 1 exception to write-single-register (6): reply mismatch"
        ));
    }

    #[test]
    fn an_adopted_flow_is_no_denial() {
        let mut record = denied_write();
        record.reason = Reason::FlowAdopted as u8;
        record.verdict = Verdict::Pass as u8;
        record.protocol = 0;
        assert_eq!(
            words(&record),
            "12:03:11 ADOPT hmi-dosing hmi-1 -> plc-dosing tcp port 502: a connection that was \
             open before the gateway is picked up"
        );
    }

    #[test]
    fn a_stranger_is_named_by_address_and_zone() {
        let mut record = denied_write();
        record.source[3] = u32::from_ne_bytes([10, 10, 0, 99]);
        record.protocol = 0;
        record.conduit = 0;
        record.direction = 0;
        record.reason = Reason::NoConduit as u8;
        assert_eq!(
            words(&record),
            "12:03:11 DENY 10.10.0.99 (operations) -> plc-dosing tcp port 502: no conduit"
        );
        record.would_deny = 1;
        assert!(words(&record).starts_with("12:03:11 WOULD-DENY 10.10.0.99"));
    }

    #[test]
    fn a_frame_without_addresses_is_named_by_its_interface() {
        let mut record = denied_write();
        record.source = Address::default();
        record.destination = Address::default();
        record.protocol = 0;
        record.conduit = 0;
        record.transport = 0;
        record.ether_type = 0x88cc;
        record.reason = Reason::EtherTypeNotAllowed as u8;
        assert_eq!(
            words(&record),
            "12:03:11 DENY eth0 ethertype 0x88cc: ethertype not allowed"
        );
    }
}
