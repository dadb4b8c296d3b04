//! What the compiled tables say is what the policy says, read as plainly as can be.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on has failed"
)]

use std::fmt::Write as _;
use std::net::IpAddr;
use std::ops::ControlFlow;

use conduitfw::policy::{
    self, ByteSet, CompiledTables, Conduit, Ids, NameKind, Operands, PartyId, Policy, PortRange,
    Surroundings, ZoneId,
};
use conduitfw_common::table::{Network, operation, protocol};
use proptest::prelude::*;

const TCP: u16 = 6;
const UDP: u16 = 17;
const ECHO: u16 = 1;

fn surroundings() -> Surroundings {
    Surroundings {
        ticks_per_second: 250,
        gateway_addresses: Vec::new(),
        generation: 7,
    }
}

fn read(text: &str) -> Policy {
    policy::load_text("p.toml", text)
        .unwrap_or_else(|r| panic!("{}\n{text}", r.render()))
        .policy
}

/// Three zones, two of them nested, assets in each, and a gateway.
const PLANT: &str = r#"
[site]
name = "Plant"

[gateway]
addresses = ["10.0.0.1", "10.1.0.1"]

[zones.a]
interfaces = ["eth0"]
networks = ["10.0.0.0/24", "fd00:a::/64"]

[zones.b]
interfaces = ["eth1"]
networks = ["10.1.0.0/16"]
nested = true

[zones.c]
interfaces = ["eth1"]
vlans = [7]
networks = ["10.1.128.0/17"]

[assets.a1]
zone = "a"
addresses = ["10.0.0.10", "fd00:a::10"]

[assets.a2]
zone = "a"
address = "10.0.0.11"

[assets.b1]
zone = "b"
address = "10.1.0.10"

[assets.c1]
zone = "c"
address = "10.1.128.10"
"#;

const HOSTS: &[&str] = &[
    "10.0.0.1",
    "10.0.0.10",
    "10.0.0.11",
    "10.0.0.99",
    "fd00:a::10",
    "fd00:a::99",
    "10.1.0.1",
    "10.1.0.10",
    "10.1.0.99",
    "10.1.128.10",
    "10.1.200.1",
    "192.0.2.1",
    "fd00:b::1",
];

/// What a policy says about one operation or packet: the conduit and the rule, if any.
#[derive(Debug, PartialEq, Eq)]
struct Answer {
    conduit: String,
    /// The label of the rule that allows it; none where the payload is not inspected.
    rule: Option<String>,
}

#[derive(Clone, Copy, Debug)]
struct Question {
    from: IpAddr,
    to: IpAddr,
    transport: u16,
    port: u16,
    unit: u8,
    function: u8,
    operand: u16,
}

/// The policy read plainly: most specific parties first, then the rules in order.
fn allows(policy: &Policy, question: Question) -> Option<Answer> {
    let parties = |address: IpAddr| -> Option<[Option<PartyId>; 2]> {
        let own = policy
            .gateway_addresses
            .iter()
            .flatten()
            .any(|own| *own == address);
        let zone = if own {
            ZoneId::GATEWAY
        } else {
            smallest_network(policy, address)?
        };
        let asset = policy
            .assets
            .iter()
            .find(|asset| asset.addresses.contains(&address));
        Some([
            asset.map(|asset| PartyId::Asset(asset.id)),
            Some(PartyId::Zone(zone)),
        ])
    };
    let (from, to) = (parties(question.from)?, parties(question.to)?);
    for from in from.iter().flatten() {
        for to in to.iter().flatten() {
            let joins = |conduit: &&Conduit| conduit.from.contains(from) && conduit.to.contains(to);
            for conduit in policy.conduits.iter().filter(joins) {
                if let ControlFlow::Break(answer) = conduit_allows(conduit, question) {
                    return answer;
                }
            }
        }
    }
    None
}

fn smallest_network(policy: &Policy, address: IpAddr) -> Option<ZoneId> {
    let networks = policy
        .zones
        .iter()
        .flat_map(|zone| zone.networks.iter().map(|network| (network, zone.id)));
    networks
        .filter(|(network, _)| network.contains(&address))
        .max_by_key(|(network, _)| network.prefix_len())
        .map(|(_, zone)| zone)
}

/// Goes on when the conduit does not have the service.
fn conduit_allows(conduit: &Conduit, question: Question) -> ControlFlow<Option<Answer>> {
    let Question {
        transport,
        port,
        unit,
        function,
        operand,
        ..
    } = question;
    let has = |ports: &[PortRange]| ports.iter().any(|p| p.first <= port && port <= p.last);
    let plain = match transport {
        TCP => has(&conduit.tcp),
        UDP => has(&conduit.udp),
        _ => conduit.icmp_echo,
    };
    if plain {
        return ControlFlow::Break(Some(Answer {
            conduit: conduit.name.clone(),
            rule: None,
        }));
    }
    let rules: Vec<_> = conduit
        .modbus
        .iter()
        .filter(|rule| has(&rule.ports))
        .collect();
    if transport != TCP || rules.is_empty() {
        return ControlFlow::Continue(());
    }
    let allowing: Vec<_> = rules
        .into_iter()
        .filter(|rule| rule.units.contains(unit) && rule.functions.contains(function))
        .filter(|rule| match function {
            8 => rule.sub_functions.contains(operand),
            43 => rule.mei_types.contains(operand),
            _ => true,
        })
        .collect();
    let conduit_name = || conduit.name.clone();
    ControlFlow::Break(allowing.first().map(|rule| Answer {
        conduit: conduit_name(),
        rule: Some(conduit.rule_label(rule)),
    }))
}

/// The same question asked of the tables.
fn tables_allow(tables: &CompiledTables, ids: &Ids, question: Question) -> Option<Answer> {
    let (from, to) = (tables.network(question.from)?, tables.network(question.to)?);
    let service = tables.service(from, to, question.transport, question.port)?;
    let conduit = ids
        .name(NameKind::Conduit, service.conduit)
        .unwrap()
        .to_owned();
    if service.protocol == protocol::NONE {
        return Some(Answer {
            conduit,
            rule: None,
        });
    }
    let rule = tables.rule(
        service.rule_set,
        question.unit,
        question.function,
        question.operand,
    )?;
    let rule = ids.name(NameKind::Rule, rule).unwrap().to_owned();
    Some(Answer {
        conduit,
        rule: Some(rule),
    })
}

/// Everything that the kernel's searches rely on.
fn well_formed(tables: &CompiledTables) {
    for (_, pair) in &tables.pairs {
        let first = pair.first as usize;
        let run = &tables.services[first..first + pair.count as usize];
        assert!(!run.is_empty());
        assert!(
            run.iter()
                .all(|service| service.first_port <= service.last_port)
        );
        assert!(
            run.windows(2)
                .all(|two| two[0].last_port < two[1].first_port),
            "{run:?}"
        );
    }
    for service in &tables.services {
        assert_eq!(service.protocol == protocol::MODBUS, service.rule_set != 0);
        assert!(usize::from(service.rule_set) < tables.rule_sets.len());
        assert!(
            tables
                .conduits
                .iter()
                .any(|(id, _)| *id == service.conduit && *id != 0)
        );
    }
    assert_eq!(tables.rule_sets[0].rows, [0; 256]);
    for set in &tables.rule_sets {
        assert!(
            set.rows
                .iter()
                .all(|row| usize::from(*row) < tables.operations.len())
        );
    }
    assert!(
        tables.operations[0]
            .iter()
            .all(|cell| cell.kind == operation::DENIED)
    );
    for cell in tables.operations.iter().flatten() {
        let first = cell.first as usize;
        let run = &tables.intervals[first..first + cell.count as usize];
        assert_eq!(cell.rule != 0, cell.kind == operation::ALLOWED);
        assert!(cell.kind == operation::RANGES || run.is_empty());
        assert!(
            run.iter()
                .all(|interval| interval.first <= interval.last && interval.rule != 0)
        );
        assert!(
            run.windows(2).all(|two| two[0].last < two[1].first),
            "{run:?}"
        );
    }
    let mut rows: Vec<_> = tables
        .operations
        .iter()
        .map(|row| format!("{row:?}"))
        .collect();
    rows.sort();
    rows.dedup();
    assert_eq!(
        rows.len(),
        tables.operations.len(),
        "identical rows are shared"
    );
}

fn names() -> impl Strategy<Value = Vec<&'static str>> {
    prop::sample::subsequence(vec!["a", "b", "c", "a1", "a2", "b1", "c1"], 1..=4)
}

fn ports() -> impl Strategy<Value = Vec<(u16, u16)>> {
    // Few and near, so that conduits and rules meet.
    prop::collection::vec((0_u16..12, 0_u16..3), 1..3)
        .prop_map(|runs| {
            runs.into_iter()
                .map(|(first, more)| (500 + first, 500 + first + more))
        })
        .prop_map(Iterator::collect)
}

fn list(ranges: &[(u16, u16)]) -> String {
    let quoted: Vec<_> = ranges
        .iter()
        .map(|(first, last)| format!("\"{first}-{last}\""))
        .collect();
    format!("[{}]", quoted.join(", "))
}

fn rule() -> impl Strategy<Value = String> {
    let units = prop_oneof![
        Just("\"all\"".to_owned()),
        prop::collection::vec((0_u16..6, 0_u16..3).prop_map(|(f, n)| (f, f + n)), 1..3)
            .prop_map(|ranges| list(&ranges)),
    ];
    let functions = prop::sample::subsequence(
        vec![
            "\"reads\"",
            "\"writes\"",
            "6",
            "\"60-70\"",
            "255",
            "8",
            "43",
            "\"all\"",
        ],
        1..4,
    );
    let operands = |largest: u16| {
        prop_oneof![
            Just("\"all\"".to_owned()),
            prop::collection::vec((0_u16..30, 0_u16..6).prop_map(|(f, n)| (f, f + n)), 1..4)
                .prop_map(|ranges| list(&ranges)),
            Just(format!("[\"0-9\", \"10-{largest}\"]")),
        ]
    };
    (ports(), units, functions, operands(65_535), operands(255)).prop_map(
        |(ports, units, functions, sub_functions, mei_types)| {
            let functions = functions.join(", ");
            let mut text = format!(
                "[[conduits.modbus]]\nports = {}\nunits = {units}\nfunctions = [{functions}]\n",
                list(&ports)
            );
            let has = |word: &str| functions.split(", ").any(|f| f == word || f == "\"all\"");
            if has("8") {
                let _ = writeln!(text, "sub_functions = {sub_functions}");
            }
            if has("43") {
                let _ = writeln!(text, "mei_types = {mei_types}");
            }
            text
        },
    )
}

fn conduit() -> impl Strategy<Value = String> {
    let plain = (
        prop::option::of(ports()),
        prop::option::of(ports()),
        any::<bool>(),
    );
    let rules = prop::collection::vec(rule(), 0..4);
    (names(), names(), plain, rules).prop_map(|(from, to, (tcp, udp, echo), rules)| {
        let names = |names: Vec<&str>| format!("[\"{}\"]", names.join("\", \""));
        let mut text = format!(
            "from = {}\nto = {}\nrationale = \"Test\"\nicmp_echo = {echo}\n",
            names(from),
            names(to)
        );
        for (key, ports) in [("tcp", tcp), ("udp", udp)] {
            if let Some(ports) = ports {
                let _ = writeln!(text, "{key} = {}", list(&ports));
            }
        }
        text + &rules.concat()
    })
}

fn policy_text() -> impl Strategy<Value = String> {
    prop::collection::vec(conduit(), 1..6).prop_map(|conduits| {
        let mut text = PLANT.to_owned();
        for (number, conduit) in conduits.iter().enumerate() {
            let _ = write!(text, "\n[[conduits]]\nname = \"c{number}\"\n{conduit}");
        }
        text
    })
}

/// A policy without the conduits that contradict another one, so that most are of use.
fn largest_right_policy(text: &str) -> Option<Policy> {
    let mut parts: Vec<&str> = text.split("\n[[conduits]]\n").collect();
    while parts.len() > 1 {
        if let Ok(loaded) = policy::load_text("p.toml", &parts.join("\n[[conduits]]\n")) {
            return Some(loaded.policy);
        }
        parts.pop();
    }
    None
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_tables_say_what_the_policy_says(
        text in policy_text(),
        asked in prop::collection::vec((0_u16..16, 0_u8..9, any::<u8>(), 0_u16..45), 12),
    ) {
        let Some(policy) = largest_right_policy(&text) else { return Ok(()) };
        let mut ids = Ids::default();
        let tables = policy::compile(&policy, &mut ids, &surroundings()).unwrap();
        well_formed(&tables);
        let hosts = || HOSTS.iter().map(|host| host.parse::<IpAddr>().unwrap());
        let usual = [3_u8, 6, 8, 43, 60, 255];
        for (from, to) in hosts().flat_map(|from| hosts().map(move |to| (from, to))) {
            for (index, &(port, unit, function, operand)) in asked.iter().enumerate() {
                let function = *usual.get(index).unwrap_or(&function);
                for (transport, port) in [(TCP, 498 + port), (UDP, 498 + port), (ECHO, 0)] {
                    let question =
                        Question { from, to, transport, port, unit, function, operand };
                    prop_assert_eq!(
                        tables_allow(&tables, &ids, question),
                        allows(&policy, question),
                        "{:?}", question
                    );
                }
            }
        }
    }

    #[test]
    fn no_text_makes_it_panic(
        text in policy_text(),
        cuts in prop::collection::vec((any::<prop::sample::Index>(), ".{0,3}"), 1..6),
    ) {
        let mut text = text;
        for (at, new) in cuts {
            let at = at.index(text.len());
            if text.is_char_boundary(at) {
                text.insert_str(at, &new);
            }
        }
        if let Err(refusal) = policy::load_text("p.toml", &text) {
            let shown = refusal.render();
            prop_assert!(shown.starts_with("error: "));
            prop_assert!(shown.chars().all(|c| c == '\n' || !c.is_control()));
        }
    }
}

#[test]
fn every_function_code_can_be_allowed_and_denied_alone() {
    let head = PLANT.to_owned()
        + "[[conduits]]\nname = \"c\"\nfrom = [\"a1\"]\nto = [\"b1\"]\nrationale = \"Test\"\n";
    for function in 0..=u8::MAX {
        let operands = match function {
            8 => "sub_functions = \"all\"\n",
            43 => "mei_types = \"all\"\n",
            _ => "",
        };
        let rule =
            format!("[[conduits.modbus]]\nunits = [9]\nfunctions = [{function}]\n{operands}");
        let policy = read(&(head.clone() + &rule));
        let tables = policy::compile(&policy, &mut Ids::default(), &surroundings()).unwrap();
        for asked in 0..=u8::MAX {
            assert_eq!(tables.rule(1, 9, asked, 0).is_some(), asked == function);
            assert_eq!(tables.rule(1, 8, asked, 0), None);
        }
    }
}

#[test]
fn zones_share_an_interface_and_any_tags_join_single_ones() {
    let text = PLANT.replace(
        "[zones.a]\ninterfaces = [\"eth0\"]",
        "[zones.a]\ninterfaces = [\"eth1\"]\nvlans = [\"any\"]",
    );
    let tables = policy::compile(&read(&text), &mut Ids::default(), &surroundings()).unwrap();
    let zones = |vlans| tables.interface("eth1", vlans).unwrap().zones;
    assert_eq!(zones(0), 0b0110, "untagged: b, and a which takes any");
    assert_eq!(zones(7 << 16), 0b1010, "tag 7: c and a");
    assert_eq!(zones(8 << 16), 0b0010, "other tags: a");
    assert_eq!(tables.interface("eth0", 0), None);
}

#[test]
fn addresses_belong_to_the_smallest_network_and_the_gateway_to_itself() {
    let tables = policy::compile(&read(PLANT), &mut Ids::default(), &surroundings()).unwrap();
    let network = |address: &str| tables.network(address.parse().unwrap());
    assert_eq!(network("10.1.127.255"), Some(Network { zone: 2, asset: 0 }));
    assert_eq!(network("10.1.128.0"), Some(Network { zone: 3, asset: 0 }));
    assert_eq!(network("10.1.128.10"), Some(Network { zone: 3, asset: 4 }));
    assert_eq!(network("fd00:a::10"), Some(Network { zone: 1, asset: 1 }));
    assert_eq!(network("10.1.0.1"), Some(Network { zone: 0, asset: 0 }));
    assert_eq!(network("10.2.0.1"), None);
}

#[test]
fn the_machines_own_addresses_count_where_the_policy_gives_none() {
    let text = PLANT.replace("[gateway]\naddresses = [\"10.0.0.1\", \"10.1.0.1\"]\n", "");
    let policy = read(&text);
    let with = |addresses: &[&str]| {
        let gateway_addresses = addresses.iter().map(|a| a.parse().unwrap()).collect();
        let surroundings = Surroundings {
            gateway_addresses,
            ..surroundings()
        };
        policy::compile(&policy, &mut Ids::default(), &surroundings)
    };
    let tables = with(&["127.0.0.1", "::1", "10.0.0.7", "fe80::1"]).unwrap();
    let zone = |address: &str| tables.network(address.parse().unwrap()).map(|n| n.zone);
    assert_eq!(zone("10.0.0.7"), Some(0));
    assert_eq!(zone("fe80::1"), Some(0));
    assert_eq!(zone("127.0.0.1"), None);
    let refusal = with(&["10.0.0.10"]).unwrap_err();
    assert_eq!(refusal.diagnostics()[0].code, "duplicate-address");
}

#[test]
fn numbers_stay_with_names_over_a_reload() {
    let conduit = |name: &str, port: u16| {
        format!(
            "[[conduits]]\nname = \"{name}\"\nfrom = [\"a1\"]\nto = [\"b1\"]\nrationale = \
             \"Test\"\n[[conduits.modbus]]\nport = {port}\nunits = [1]\nfunctions = [3]\n"
        )
    };
    let mut ids = Ids::default();
    let compile = |text: String, ids: &mut Ids| policy::compile(&read(&text), ids, &surroundings());
    compile(
        PLANT.to_owned() + &conduit("x", 502) + &conduit("y", 503),
        &mut ids,
    )
    .unwrap();
    let y = ids.find(NameKind::Conduit, "y").unwrap();
    let rule = ids.find(NameKind::Rule, "y/modbus-1").unwrap();
    let tables = compile(
        PLANT.to_owned() + &conduit("z", 1) + &conduit("y", 503),
        &mut ids,
    );
    let tables = tables.unwrap();
    assert!(tables.conduits.iter().any(|(id, _)| *id == y));
    assert_eq!(ids.find(NameKind::Rule, "y/modbus-1"), Some(rule));
    assert_eq!(ids.find(NameKind::Conduit, "z"), Some(3));
    assert_eq!(tables.generation.number, 7);
    assert_eq!(tables.generation.tcp_opening_ticks, 30 * 250);
}

#[test]
fn what_does_not_fit_is_refused_with_what_was_found() {
    let refused = |text: &str| -> Vec<String> {
        let refusal = policy::load_text("p.toml", text).unwrap_err();
        let fits = refusal
            .diagnostics()
            .iter()
            .filter(|problem| problem.code == "does-not-fit");
        fits.map(|problem| format!("{}, {}", problem.message, problem.help))
            .collect()
    };
    let mut conduits = PLANT.to_owned();
    for number in 1..=1024 {
        let _ = write!(
            conduits,
            "[[conduits]]\nname = \"c{number}\"\nfrom = [\"a\"]\nto = [\"b\"]\nrationale = \
             \"x\"\ntcp = [{number}]\n"
        );
    }
    assert_eq!(
        refused(&conduits)[0],
        "the policy does not fit: 1024 conduits, at most 1023"
    );

    let mut pairs = PLANT.to_owned();
    let mut names = Vec::new();
    for number in 0..200 {
        let _ = write!(
            pairs,
            "[assets.x{number}]\nzone = \"b\"\naddress = \"10.1.9.{number}\"\n"
        );
        names.push(format!("\"x{number}\""));
    }
    let names = names.join(", ");
    let _ = write!(
        pairs,
        "[[conduits]]\nname = \"c\"\nfrom = [{names}]\nto = [{names}]\nrationale = \"x\"\ntcp = \
         [1]\n"
    );
    assert_eq!(
        refused(&pairs),
        ["the policy does not fit: 40000 pairs of parties and transports, at most 16384"]
    );
}

#[test]
fn sets_of_bytes_and_operands_are_what_they_were_given() {
    let mut set = ByteSet::default();
    set.insert(3, 5);
    assert_eq!(set.iter().collect::<Vec<_>>(), [3, 4, 5]);
    assert!(Operands::Ranges(vec![(1, 2)]).contains(2) && !Operands::Ranges(vec![]).contains(0));
}
