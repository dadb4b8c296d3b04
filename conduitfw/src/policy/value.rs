//! Single values of a policy as they are written: durations, rates, ranges, networks, tags.

use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;

use super::model::{NewFlows, PortRange, Rate, Vlans};

/// What is wrong with a value.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) code: &'static str,
    pub(super) message: String,
    pub(super) help: String,
}

impl Fault {
    pub(super) fn new(
        code: &'static str,
        message: impl Into<String>,
        help: impl Into<String>,
    ) -> Self {
        Self {
            code,
            message: message.into(),
            help: help.into(),
        }
    }
}

const SECOND: u64 = 1000;
const UNITS: &[(&str, u64)] = &[
    ("ms", 1),
    ("s", SECOND),
    ("m", 60 * SECOND),
    ("h", 3600 * SECOND),
    ("d", 24 * 3600 * SECOND),
];

/// The shortest and the longest time that a flow is remembered.
const DURATIONS: (Duration, Duration) = (Duration::from_millis(100), Duration::from_hours(7 * 24));

/// A number and a unit: `"30s"`.
pub(super) fn duration(text: &str) -> Result<Duration, Fault> {
    const HELP: &str = "a whole number and one of ms, s, m, h, d, as in \"30s\"";
    let malformed = || Fault::new("bad-duration", format!("`{text}` is not a duration"), HELP);
    let unit_at = text
        .find(|c: char| !c.is_ascii_digit())
        .ok_or_else(malformed)?;
    let (number, unit) = text.split_at(unit_at);
    let number: u64 = number.parse().map_err(|_| malformed())?;
    let (_, milliseconds) = UNITS
        .iter()
        .find(|(name, _)| *name == unit)
        .ok_or_else(malformed)?;
    let duration = Duration::from_millis(number.saturating_mul(*milliseconds));
    if duration < DURATIONS.0 || duration > DURATIONS.1 {
        return Err(Fault::new(
            "duration-out-of-range",
            format!("a timeout of `{text}` is out of range"),
            "expected \"100ms\" to \"7d\"",
        ));
    }
    Ok(duration)
}

/// `[settings] adopt`: `"5m"`, or `"0s"` for never.
pub(super) fn adopt(text: &str) -> Result<Duration, Fault> {
    if text == "0s" {
        return Ok(Duration::ZERO);
    }
    duration(text)
}

/// The fastest rate, a second.
const FASTEST: u64 = 1_000_000;

/// `"100/s"`, `"100/s burst 200"` or `"unlimited"`.
pub(super) fn new_flows(text: &str) -> Result<NewFlows, Fault> {
    if text == "unlimited" {
        return Ok(NewFlows::Unlimited);
    }
    let rate = rate(
        text,
        "rate of new flows",
        "a number per s, m or h, as in \"100/s\" or \"100/s burst 200\"; or \"unlimited\"",
        "expected \"1/m\" to \"1000000/s\"; to allow no flows, leave the conduit out",
    )?;
    let per_second = u64::from(rate.count) / rate.per.as_secs();
    Ok(NewFlows::Rate {
        flows: rate.count,
        per: rate.per,
        burst: burst(rate.burst.unwrap_or_else(|| (per_second * 2).max(10)))?,
    })
}

/// `"2/s"` or `"10/m burst 3"`.
pub(super) fn max_rate(text: &str) -> Result<Rate, Fault> {
    let rate = rate(
        text,
        "rate of operations",
        "a number per s, m or h, as in \"2/s\" or \"10/m burst 3\"",
        "expected \"1/m\" to \"1000000/s\"; to allow no operations, leave the rule out",
    )?;
    Ok(Rate {
        operations: rate.count,
        per: rate.per,
        burst: burst(rate.burst.unwrap_or(1))?,
    })
}

struct RateText {
    count: u32,
    per: Duration,
    burst: Option<u64>,
}

fn rate(text: &str, what: &str, example: &str, expected: &str) -> Result<RateText, Fault> {
    let malformed = || Fault::new("bad-rate", format!("`{text}` is not a {what}"), example);
    let (rate, burst) = match text.split_once(" burst ") {
        Some((rate, burst)) => (rate, Some(burst.parse::<u32>().map_err(|_| malformed())?)),
        None => (text, None),
    };
    let (number, unit) = rate.split_once('/').ok_or_else(malformed)?;
    if number.is_empty() || !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(malformed());
    }
    let count: u64 = number.parse().unwrap_or(u64::MAX);
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        _ => return Err(malformed()),
    };
    // The time between two is a 32-bit count of 1/65,536 ticks: 65 s where HZ is 1000.
    if count.saturating_mul(60) < seconds || count > FASTEST.saturating_mul(seconds) {
        return Err(Fault::new(
            "rate-out-of-range",
            format!("a rate of `{rate}` is out of range"),
            expected,
        ));
    }
    Ok(RateText {
        count: u32::try_from(count).map_err(|_| malformed())?,
        per: Duration::from_secs(seconds),
        burst: burst.map(u64::from),
    })
}

fn burst(burst: u64) -> Result<u32, Fault> {
    u32::try_from(burst)
        .ok()
        .filter(|burst| (1..=FASTEST * 2).contains(&u64::from(*burst)))
        .ok_or_else(|| {
            Fault::new(
                "rate-out-of-range",
                format!("a burst of {burst} is out of range"),
                "expected 1 to 2000000",
            )
        })
}

/// `"first-last"` or a single number in a string, within `0..=largest`.
pub(super) fn range(what: &str, text: &str, largest: u16) -> Result<(u16, u16), Fault> {
    let malformed = || {
        Fault::new(
            "bad-range",
            format!("`{text}` is neither a {what} nor a range of them"),
            "a range is written \"first-last\", as in \"3-5\"",
        )
    };
    let number = |text: &str| {
        let text = text.trim();
        if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(malformed());
        }
        integer(what, text.parse().unwrap_or(i128::MAX), 0, largest)
    };
    let (first, last) = match text.split_once('-') {
        Some((first, last)) => (number(first)?, number(last)?),
        None => (number(text)?, number(text)?),
    };
    if first > last {
        return Err(Fault::new(
            "range-upside-down",
            format!("the range `{text}` is upside down"),
            format!("did you mean \"{last}-{first}\"?"),
        ));
    }
    Ok((first, last))
}

/// A word with its article: "an address", "a u16", "an f32".
pub(super) fn a(what: &str) -> String {
    let vowel = what.starts_with(['a', 'e', 'i', 'o']) || what == "f32";
    format!("{} {what}", if vowel { "an" } else { "a" })
}

/// A number within `smallest..=largest`.
pub(super) fn integer(what: &str, number: i128, smallest: u16, largest: u16) -> Result<u16, Fault> {
    u16::try_from(number)
        .ok()
        .filter(|number| (smallest..=largest).contains(number))
        .ok_or_else(|| {
            let found = if number == i128::MAX {
                "a huge number".into()
            } else {
                number.to_string()
            };
            Fault::new(
                "out-of-range",
                format!("{found} is not {}", a(what)),
                format!("expected {smallest} to {largest}"),
            )
        })
}

/// Refuses port 0.
pub(super) fn port_range((first, last): (u16, u16)) -> Result<PortRange, Fault> {
    if first == 0 {
        return Err(Fault::new(
            "out-of-range",
            "0 is not a port",
            "expected 1 to 65535",
        ));
    }
    Ok(PortRange { first, last })
}

/// `"10"`, `"100.10"` (outer, inner) or `"any"`.
pub(super) fn vlans(text: &str) -> Result<Vlans, Fault> {
    let id = |text: &str| {
        let number = if text.bytes().all(|byte| byte.is_ascii_digit()) {
            text.parse().ok()
        } else {
            None
        };
        vlan_id(number.unwrap_or(-1), text)
    };
    match text {
        "any" => Ok(Vlans::Any),
        "untagged" => Ok(Vlans::Untagged),
        _ => match text.split_once('.') {
            Some((outer, inner)) => Ok(Vlans::Double(id(outer)?, id(inner)?)),
            None => Ok(Vlans::Single(id(text)?)),
        },
    }
}

/// A VLAN id: 0 and 4095 are reserved (IEEE 802.1Q).
pub(super) fn vlan_id(number: i128, text: &str) -> Result<u16, Fault> {
    u16::try_from(number)
        .ok()
        .filter(|id| (1..=4094).contains(id))
        .ok_or_else(|| {
            Fault::new(
                "bad-vlan",
                format!("`{text}` is not a VLAN id"),
                "expected 1 to 4094, two of them as in \"100.10\" (outer, inner), \"untagged\" or \
             \"any\"",
            )
        })
}

/// A network in CIDR notation whose host bits are zero.
pub(super) fn network(text: &str) -> Result<IpNet, Fault> {
    let malformed =
        |help: String| Fault::new("bad-network", format!("`{text}` is not a network"), help);
    let Ok(network) = text.parse::<IpNet>() else {
        return Err(malformed(match text.parse::<IpAddr>() {
            Ok(IpAddr::V4(_)) => format!("did you mean \"{text}/32\"?"),
            Ok(IpAddr::V6(_)) => format!("did you mean \"{text}/128\"?"),
            Err(_) => "expected an address and a prefix length, as in \"10.20.0.0/24\"".into(),
        }));
    };
    if network.trunc() != network {
        return Err(Fault::new(
            "host-bits-set",
            format!("`{text}` names a host, not a network"),
            format!("did you mean \"{}\"?", network.trunc()),
        ));
    }
    let special = SPECIAL
        .iter()
        .filter_map(|(special, what)| Some((special.parse().ok()?, what)));
    for (special, what) in special {
        let special: IpNet = special;
        if network.contains(&special) || special.contains(&network) {
            return Err(Fault::new(
                "special-network",
                format!("the network `{text}` contains {what}"),
                format!("no host of a zone has an address in {special}"),
            ));
        }
    }
    Ok(network)
}

/// Networks that no host on an interface has an address in.
const SPECIAL: &[(&str, &str)] = &[
    ("0.0.0.0/8", "addresses of \"this network\""),
    ("127.0.0.0/8", "loopback addresses"),
    ("224.0.0.0/4", "multicast addresses"),
    ("240.0.0.0/4", "reserved addresses"),
    ("::/127", "the unspecified or the loopback address"),
    ("::ffff:0:0/96", "IPv4 addresses written as IPv6"),
    ("ff00::/8", "multicast addresses"),
];

/// The address of one host.
pub(super) fn address(text: &str) -> Result<IpAddr, Fault> {
    let Ok(address) = text.parse::<IpAddr>() else {
        let help = match text.parse::<IpNet>() {
            Ok(network) => format!("did you mean \"{}\"?", network.addr()),
            Err(_) => "expected an address, as in \"10.20.0.10\" or \"fd00:20::10\"".to_owned(),
        };
        return Err(Fault::new(
            "bad-address",
            format!("`{text}` is not an address"),
            help,
        ));
    };
    match network(&IpNet::from(address).to_string()) {
        Ok(_) => Ok(address),
        Err(fault) => Err(Fault::new(
            "special-address",
            format!("`{text}` is not the address of a host"),
            fault.help,
        )),
    }
}

/// A name of a zone, an asset, a conduit or a rule.
pub(super) fn name(what: &str, text: &str) -> Result<(), Fault> {
    const LONGEST: usize = 63;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let starts_well = text
        .bytes()
        .next()
        .is_some_and(|byte| byte.is_ascii_alphanumeric());
    if starts_well && text.len() <= LONGEST && text.bytes().all(plain) {
        return Ok(());
    }
    let found = if text.len() > LONGEST {
        format!("the name of a {what} is {} bytes long", text.len())
    } else {
        format!("`{text}` cannot be the name of a {what}")
    };
    Err(Fault::new(
        "bad-name",
        found,
        "expected 1 to 63 letters, digits, `-`, `_` or `.` (ASCII), a letter or digit first",
    ))
}

/// The name of a network interface, by the kernel's rules.
pub(super) fn interface(text: &str) -> Result<(), Fault> {
    let fits = (1..=15).contains(&text.len()) && text != "." && text != "..";
    let plain = |c: char| !c.is_control() && !c.is_whitespace() && !matches!(c, '/' | ':');
    if fits && text.chars().all(plain) {
        return Ok(());
    }
    Err(Fault::new(
        "bad-interface",
        format!("`{text}` cannot be the name of an interface"),
        "expected 1 to 15 bytes without spaces, `/` and `:`, as `ip link` shows it",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_a_number_and_a_unit() {
        assert_eq!(duration("30s"), Ok(Duration::from_secs(30)));
        assert_eq!(duration("1500ms"), Ok(Duration::from_millis(1500)));
        assert_eq!(duration("7d"), Ok(Duration::from_hours(7 * 24)));
        for text in [
            "",
            "30",
            "s",
            "30 s",
            "-1s",
            "1.5h",
            "30sec",
            "99999999999999999999s",
        ] {
            assert_eq!(duration(text).unwrap_err().code, "bad-duration", "{text}");
        }
        for text in ["0s", "99ms", "8d", "9999999999999999999d"] {
            assert_eq!(
                duration(text).unwrap_err().code,
                "duration-out-of-range",
                "{text}"
            );
        }
    }

    #[test]
    fn rates_run_from_one_a_minute_to_a_million_a_second() {
        let rate = |flows, seconds, burst| {
            Ok(NewFlows::Rate {
                flows,
                per: Duration::from_secs(seconds),
                burst,
            })
        };
        assert_eq!(new_flows("100/s"), rate(100, 1, 200));
        assert_eq!(new_flows("1/m"), rate(1, 60, 10));
        assert_eq!(new_flows("60/h"), rate(60, 3600, 10));
        assert_eq!(new_flows("5/s burst 7"), rate(5, 1, 7));
        assert_eq!(new_flows("1000000/s"), rate(1_000_000, 1, 2_000_000));
        assert_eq!(new_flows("unlimited"), Ok(NewFlows::Unlimited));
        for text in [
            "1/h",
            "59/h",
            "0/s",
            "1000001/s",
            "5/s burst 0",
            "99999999999999999999/s",
        ] {
            assert_eq!(
                new_flows(text).unwrap_err().code,
                "rate-out-of-range",
                "{text}"
            );
        }
        for text in [
            "",
            "5",
            "5/",
            "/s",
            "5/d",
            "+5/s",
            "5/s burst",
            "5/s burst x",
            "5 / s",
        ] {
            assert_eq!(new_flows(text).unwrap_err().code, "bad-rate", "{text}");
        }
    }

    #[test]
    fn ranges_stand_the_right_way_up() {
        assert_eq!(range("port", "5000-5010", u16::MAX), Ok((5000, 5010)));
        assert_eq!(range("unit id", "7", 255), Ok((7, 7)));
        let upside_down = range("unit id", "5-3", 255).unwrap_err();
        assert_eq!(upside_down.help, "did you mean \"3-5\"?");
        for text in ["", "-", "1-", "-1", "a-b", "1-2-3", "+1"] {
            assert_eq!(
                range("unit id", text, 255).unwrap_err().code,
                "bad-range",
                "{text}"
            );
        }
        assert_eq!(
            range("unit id", "250-256", 255).unwrap_err().code,
            "out-of-range"
        );
    }

    #[test]
    fn networks_hold_hosts() {
        assert!(network("10.20.0.0/24").is_ok());
        assert!(network("fd00:20::/64").is_ok());
        assert!(network("fe80::/64").is_ok());
        let help = |text| network(text).unwrap_err().help;
        assert_eq!(help("10.20.0.5/24"), "did you mean \"10.20.0.0/24\"?");
        assert_eq!(help("10.20.0.5"), "did you mean \"10.20.0.5/32\"?");
        for text in [
            "0.0.0.0/0",
            "::/0",
            "127.0.0.0/16",
            "239.1.0.0/16",
            "ff02::/16",
            "::1/128",
        ] {
            assert_eq!(network(text).unwrap_err().code, "special-network", "{text}");
        }
    }

    #[test]
    fn vlans_are_numbers_pairs_or_any() {
        assert_eq!(vlans("10"), Ok(Vlans::Single(10)));
        assert_eq!(vlans("100.10"), Ok(Vlans::Double(100, 10)));
        assert_eq!(vlans("any"), Ok(Vlans::Any));
        for text in [
            "",
            "0",
            "4095",
            "10.",
            "1.2.3",
            "+1",
            "-1",
            "all",
            "99999999999999999999",
        ] {
            assert_eq!(vlans(text).unwrap_err().code, "bad-vlan", "{text}");
        }
    }
}
