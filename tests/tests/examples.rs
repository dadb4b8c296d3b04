//! Every policy in `rules/`, in a lab that fits it: what it says is open is, and little else.

#[path = "examples/probes.rs"]
mod probes;

use std::fs;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use conduitfw_tests::frames::modbus::{self, adu};
use conduitfw_tests::lab::{Conduitfw, Host, Lab, skipped_without_root, source_directory};
use conduitfw_tests::peers::{Device, Listener, RawClient, connect_from, ping};
use toml::{Table, Value};

use probes::Probe;

const SHORT: Duration = Duration::from_millis(600);
/// How long nothing must come where nothing should.
const SILENCE: Duration = Duration::from_millis(100);
/// A unit that few rules name.
const STRANGER: u8 = 247;
/// A port that no example opens.
const CLOSED: u16 = 9;
/// The function codes tried, with the names and groups that allow them.
const FUNCTIONS: [(u8, &[&str]); 8] = [
    (1, &["read-coils", "reads", "all"]),
    (3, &["read-holding-registers", "reads", "all"]),
    (4, &["read-input-registers", "reads", "all"]),
    (5, &["write-single-coil", "writes", "all"]),
    (6, &["write-single-register", "writes", "all"]),
    (15, &["write-multiple-coils", "writes", "all"]),
    (16, &["write-multiple-registers", "writes", "all"]),
    (22, &["mask-write-register", "writes", "all"]),
];

#[test]
fn every_example_does_what_it_says() -> Result<()> {
    if skipped_without_root() {
        return Ok(());
    }
    let mut count = 0;
    let entries = fs::read_dir(source_directory().join("rules"))?;
    let mut paths = entries
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<Vec<_>>>()?;
    paths.sort();
    for path in paths {
        if path.extension().is_none_or(|extension| extension != "toml") {
            continue;
        }
        let text = unhurried(&fs::read_to_string(&path)?);
        exercise(&text).with_context(|| path.display().to_string())?;
        count += 1;
    }
    ensure!(count >= 5, "only {count} examples");
    Ok(())
}

/// The policy without its rates of new flows and operations: this test has more of them than a
/// plant would.
fn unhurried(text: &str) -> String {
    let is_rate = |line: &&str| line.starts_with("new_flows") || line.starts_with("max_rate");
    let lines: Vec<&str> = text.lines().filter(|line| !is_rate(line)).collect();
    let lines = lines.join("\n") + "\n";
    lines.replace(
        "[[conduits]]\n",
        "[[conduits]]\nnew_flows = \"unlimited\"\n",
    )
}

fn exercise(text: &str) -> Result<()> {
    let lab = Lab::for_policy(text)?;
    let _conduitfw = Conduitfw::start(&lab, text)?;
    let policy: Table = text.parse()?;
    let conduits = policy
        .get("conduits")
        .and_then(Value::as_array)
        .context("no conduits")?;
    let observes = |table: Option<&Value>| {
        table
            .and_then(|table| table.get("mode"))
            .and_then(Value::as_str)
            == Some("observe")
    };
    for conduit in conduits {
        let name = conduit.get("name").and_then(Value::as_str).unwrap_or("?");
        let tried = Conduit {
            lab: &lab,
            policy: &policy,
            table: conduit,
            observes: observes(Some(conduit)) || observes(policy.get("settings")),
        };
        tried
            .exercise()
            .with_context(|| format!("the conduit {name}"))?;
    }
    Ok(())
}

struct Conduit<'a> {
    lab: &'a Lab,
    policy: &'a Table,
    table: &'a Value,
    observes: bool,
}

/// One end of a conduit: a host of the lab, and the addresses it has there.
struct Party<'a> {
    host: &'a Host,
    addresses: Vec<IpAddr>,
}

fn list<'a>(table: &'a Value, key: &str) -> &'a [Value] {
    table
        .get(key)
        .and_then(Value::as_array)
        .map(Vec::as_slice)
        .unwrap_or_default()
}

/// A port, or the first and last of a range.
fn ports(value: &Value) -> Result<Vec<u16>> {
    match value {
        Value::Integer(port) => Ok(vec![u16::try_from(*port)?]),
        Value::String(range) => range
            .split('-')
            .map(|port| port.trim().parse().context("no port"))
            .collect(),
        other => bail!("{other} is no port"),
    }
}

impl Conduit<'_> {
    fn parties(&self, end: &str, other: Option<IpAddr>) -> Result<Vec<Party<'_>>> {
        let names = list(self.table, end).iter().filter_map(Value::as_str);
        names.map(|name| self.party(name, other)).collect()
    }

    fn party(&self, name: &str, other: Option<IpAddr>) -> Result<Party<'_>> {
        if name == "gateway" {
            // The gateway speaks with the address of the interface towards the other end.
            let mut addresses = Vec::new();
            for zone in &self.lab.plan().zones {
                for address in zone.gateway_addresses()? {
                    if other.is_none_or(|other| address.contains(&other)) {
                        addresses.push(address.addr());
                    }
                }
            }
            return Ok(Party {
                host: self.lab.gateway(),
                addresses,
            });
        }
        if let Some(asset) = self
            .policy
            .get("assets")
            .and_then(|assets| assets.get(name))
        {
            let zone = asset
                .get("zone")
                .and_then(Value::as_str)
                .context("an asset in no zone")?;
            let texts = asset
                .get("address")
                .into_iter()
                .chain(list(asset, "addresses"));
            let addresses = texts
                .filter_map(Value::as_str)
                .map(|text| Ok(text.parse()?));
            let addresses = addresses.collect::<Result<_>>()?;
            return Ok(Party {
                host: self.lab.host(zone)?,
                addresses,
            });
        }
        let plan = self.lab.plan().zones.iter().find(|zone| zone.name == name);
        let plan = plan.with_context(|| format!("nothing is called {name}"))?;
        let addresses = [false, true]
            .into_iter()
            .filter_map(|ipv6| plan.stranger(ipv6))
            .collect();
        Ok(Party {
            host: self.lab.host(name)?,
            addresses,
        })
    }

    fn exercise(&self) -> Result<()> {
        for to in self.parties("to", None)? {
            for destination in &to.addresses {
                for from in self.parties("from", Some(*destination))? {
                    for source in &from.addresses {
                        let is_same = source.is_ipv4() == destination.is_ipv4();
                        if is_same && self.is_reachable(*source, *destination)? {
                            self.between(&from, *source, &to, *destination)
                                .with_context(|| format!("{source} to {destination}"))?;
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// A host reaches the gateway at the address in its own network.
    fn is_reachable(&self, source: IpAddr, destination: IpAddr) -> Result<bool> {
        for zone in &self.lab.plan().zones {
            for address in zone.gateway_addresses()? {
                if address.addr() == destination {
                    return Ok(address.contains(&source));
                }
            }
        }
        Ok(true)
    }

    fn between(
        &self,
        from: &Party<'_>,
        source: IpAddr,
        to: &Party<'_>,
        destination: IpAddr,
    ) -> Result<()> {
        let connects =
            |port: u16| connect_from(from.host, Some(source), (destination, port), SHORT).is_ok();
        for value in list(self.table, "tcp") {
            for port in ports(value)? {
                let _server = Listener::echo(to.host, (destination, port))?;
                ensure!(connects(port), "tcp {port} is closed");
            }
        }
        for value in list(self.table, "udp") {
            for port in ports(value)? {
                let server = udp(to.host, (destination, port))?;
                let client = udp(from.host, (source, 0))?;
                client.send_to(b"question", (destination, port))?;
                let (_, back) = server.recv_from(&mut [0; 16]).context("udp is closed")?;
                server.send_to(b"answer", back)?;
                client
                    .recv_from(&mut [0; 16])
                    .context("the answer over udp")?;
            }
        }
        if self.table.get("icmp_echo").and_then(Value::as_bool) == Some(true) {
            ensure!(
                ping(from.host, source, destination, SHORT)?,
                "echo is closed"
            );
        }
        if !self.observes {
            let _server = Listener::echo(to.host, (destination, CLOSED))?;
            ensure!(!connects(CLOSED), "tcp {CLOSED} is open");
        }
        self.modbus(from, source, to, destination)
    }

    fn modbus(
        &self,
        from: &Party<'_>,
        source: IpAddr,
        to: &Party<'_>,
        destination: IpAddr,
    ) -> Result<()> {
        let rules = list(self.table, "modbus");
        let rule_ports = |rule: &Value| -> Result<Vec<u16>> {
            let values = rule.get("port").into_iter().chain(list(rule, "ports"));
            let found = values.map(ports).collect::<Result<Vec<_>>>()?.concat();
            Ok(if found.is_empty() { vec![502] } else { found })
        };
        let mut tried: Vec<(u16, u8)> = Vec::new();
        for rule in rules {
            let port = rule_ports(rule)?[0];
            let mut holding = Vec::new();
            for other in rules {
                if rule_ports(other)?.contains(&port) {
                    holding.push(other.clone());
                }
            }
            let wire = Wire {
                device: Device::start(to.host, (destination, port))?,
                from: from.host,
                source,
                server: SocketAddr::from((destination, port)),
                answers_exceptions: self.table.get("on_deny").and_then(Value::as_str)
                    == Some("exception"),
            };
            for unit in [first_unit(rule), STRANGER] {
                if tried.contains(&(port, unit)) {
                    continue;
                }
                tried.push((port, unit));
                let is_border = |probe: &Probe| unit != STRANGER || probe.address == 0;
                for probe in probes::around(&holding)?.into_iter().filter(is_border) {
                    let mut expected = self.observes;
                    for other in &holding {
                        let (_, names) = FUNCTIONS
                            .into_iter()
                            .find(|(function, _)| *function == probe.function)
                            .context("a function that is not tried")?;
                        expected |= has_unit(other, unit)
                            && allows(other, probe.function, names)
                            && probes::allows(other, &probe)?;
                    }
                    wire.ask(unit, &probe, expected)?;
                }
            }
            for (probe, expected) in probes::steps(rule)? {
                wire.ask(first_unit(rule), &probe, expected || self.observes)?;
            }
        }
        Ok(())
    }
}

/// The way from a client to a device.
struct Wire<'a> {
    device: Device,
    from: &'a Host,
    source: IpAddr,
    server: SocketAddr,
    answers_exceptions: bool,
}

impl Wire<'_> {
    /// Sends a request on a connection of its own, and looks at both ends for what became of it.
    fn ask(&self, unit: u8, probe: &Probe, expected: bool) -> Result<()> {
        let pdu = probe.pdu();
        let mut client = RawClient::connect(self.from, Some(self.source), self.server)?;
        let is_answered = expected || self.answers_exceptions;
        client.patience(if is_answered { SHORT } else { SILENCE })?;
        let answer = client.exchange(&adu(1, unit, &pdu));
        let how = answer.as_ref().err().map(ToString::to_string);
        let answer = answer.ok();
        let arrived = self.device.take();
        let what = || format!("unit {unit} {probe:?} to {}", self.server);
        if expected {
            ensure!(answer.is_some(), "{} has no answer", what());
            ensure!(arrived == [(unit, pdu)], "{}: {arrived:?} arrived", what());
        } else if self.answers_exceptions {
            let exception = Some((unit, vec![probe.function | 0x80, 1]));
            ensure!(
                answer == exception,
                "{} is answered {answer:?} ({how:?}, {arrived:?} arrived)",
                what()
            );
            let refused = refused_form(pdu.len());
            ensure!(
                arrived == [(unit, refused)],
                "{}: {arrived:?} arrived",
                what()
            );
        } else {
            ensure!(answer.is_none(), "{} is answered {answer:?}", what());
            ensure!(arrived.is_empty(), "{}: {arrived:?} arrived", what());
        }
        Ok(())
    }
}

/// What a denied request of so many bytes becomes: a reading of no registers, or a writing of none,
/// behind the last one.
fn refused_form(bytes: usize) -> Vec<u8> {
    if bytes == 5 {
        return modbus::read(3, 0xffff, 0);
    }
    let mut pdu = modbus::write_registers(0xffff, &[]);
    let values = bytes - pdu.len();
    if let Some(count) = pdu.last_mut() {
        *count = u8::try_from(values).unwrap_or(u8::MAX);
    }
    pdu.resize(bytes, 0);
    pdu
}

fn udp(host: &Host, address: (IpAddr, u16)) -> Result<UdpSocket> {
    let socket = host.enter(|| UdpSocket::bind(address))??;
    socket.set_read_timeout(Some(SHORT))?;
    Ok(socket)
}

fn first_unit(rule: &Value) -> u8 {
    match list(rule, "units").first() {
        Some(Value::Integer(unit)) => u8::try_from(*unit).unwrap_or(1),
        Some(Value::String(range)) => range
            .split('-')
            .next()
            .and_then(|unit| unit.trim().parse().ok())
            .unwrap_or(1),
        _ => 1,
    }
}

fn has_unit(rule: &Value, unit: u8) -> bool {
    let unit = i64::from(unit);
    let is_named = |value: &Value| match value {
        Value::Integer(number) => *number == unit,
        Value::String(range) => {
            let mut ends = range
                .split('-')
                .filter_map(|end| end.trim().parse::<i64>().ok());
            let first = ends.next().unwrap_or(-1);
            (first..=ends.next().unwrap_or(first)).contains(&unit)
        }
        _ => false,
    };
    let is_all = rule.get("units").and_then(Value::as_str) == Some("all");
    is_all || list(rule, "units").iter().any(is_named)
}

fn allows(rule: &Value, function: u8, names: &[&str]) -> bool {
    list(rule, "functions").iter().any(|value| match value {
        Value::Integer(number) => *number == i64::from(function),
        Value::String(name) => names.contains(&name.as_str()),
        _ => false,
    })
}
