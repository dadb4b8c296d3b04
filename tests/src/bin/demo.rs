//! The demonstration: a small plant, and what conduitfw lets through.

use std::io::{IsTerminal, stdout};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{env, fs, process, thread};

use anyhow::{Context, Result, bail};
use clap::Parser;
use conduitfw_tests::lab::{Conduitfw, Events, Lab, Program, source_directory};
use conduitfw_tests::peers::{ModbusClient, connect_from};
use toml::{Table, Value};

/// A register that the HMI would like to write.
const SETPOINT: u16 = 10;
/// What it would like to write there.
const WANTED: u16 = 900;

/// Build a small plant in network namespaces, protect it, and tell what happens.
#[derive(Parser)]
struct Arguments {
    /// Leave the lab standing, and say how to play with it and how to remove it.
    #[arg(long)]
    keep: bool,
    /// The policy, instead of rules/quickstart.toml.
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
}

fn main() -> process::ExitCode {
    match tell(&Arguments::parse()) {
        Ok(()) => process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            process::ExitCode::from(2)
        }
    }
}

fn tell(arguments: &Arguments) -> Result<()> {
    let quickstart = source_directory().join("rules/quickstart.toml");
    let path = arguments.policy.as_deref().unwrap_or(&quickstart);
    let text =
        fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let cast = Cast::choose(&text)?;
    println!("conduitfw demo. Everything happens in network namespaces of its own.");
    let mut plant = Plant::build(&text, &cast, path)?;
    let told = plant.story(&text, &cast);
    if arguments.keep {
        plant.keep(&cast);
    } else {
        println!();
        println!("The demo removes everything it made. `--keep` would leave it standing.");
    }
    told
}

/// Who plays which part: the first Modbus conduit of the policy.
struct Cast {
    conduit: usize,
    name: String,
    client: Party,
    server: Party,
    port: u16,
    unit: u8,
}

struct Party {
    name: String,
    zone: String,
    address: IpAddr,
    is_zone: bool,
}

impl Cast {
    fn choose(text: &str) -> Result<Self> {
        let policy: Table = text.parse().context("the policy is no TOML")?;
        let conduits = policy.get("conduits").and_then(Value::as_array);
        let conduits = conduits.map(Vec::as_slice).unwrap_or_default();
        let inspected = |conduit: &&Value| conduit.get("modbus").is_some();
        let index = conduits.iter().position(|conduit| inspected(&conduit));
        let index = index.context("the demo needs a policy with a [[conduits.modbus]]")?;
        let conduit = &conduits[index];
        let rule = conduit
            .get("modbus")
            .and_then(|rules| rules.get(0))
            .context("no rule")?;
        let port = rule
            .get("port")
            .or(rule.get("ports").and_then(|ports| ports.get(0)));
        let unit = match rule.get("units").and_then(|units| units.get(0)) {
            Some(Value::Integer(unit)) => u8::try_from(*unit)?,
            Some(Value::String(range)) => range.split('-').next().unwrap_or("1").parse()?,
            _ => 1,
        };
        Ok(Self {
            conduit: index,
            name: conduit
                .get("name")
                .and_then(Value::as_str)
                .unwrap_or("?")
                .to_owned(),
            client: Party::find(&policy, conduit, "from", text)?,
            server: Party::find(&policy, conduit, "to", text)?,
            port: u16::try_from(port.and_then(Value::as_integer).unwrap_or(502))?,
            unit,
        })
    }

    fn address(&self) -> SocketAddr {
        SocketAddr::from((self.server.address, self.port))
    }
}

impl Party {
    fn find(policy: &Table, conduit: &Value, end: &str, text: &str) -> Result<Self> {
        let name = conduit
            .get(end)
            .and_then(|end| end.get(0))
            .and_then(Value::as_str);
        let name = name
            .with_context(|| format!("the Modbus conduit has no `{end}`"))?
            .to_owned();
        if let Some(asset) = policy.get("assets").and_then(|assets| assets.get(&name)) {
            let address = asset
                .get("address")
                .or(asset.get("addresses").and_then(|a| a.get(0)));
            let address = address
                .and_then(Value::as_str)
                .context("an asset without address")?;
            let zone = asset
                .get("zone")
                .and_then(Value::as_str)
                .context("an asset in no zone")?;
            return Ok(Self {
                name,
                zone: zone.to_owned(),
                address: address.parse()?,
                is_zone: false,
            });
        }
        let plan = conduitfw_tests::lab::Plan::from_policy(text)?;
        let zone = plan.zones.iter().find(|zone| zone.name == name);
        let address = zone.and_then(|zone| zone.stranger(false).or(zone.stranger(true)));
        let address = address.with_context(|| format!("the policy has no {name}"))?;
        Ok(Self {
            zone: name.clone(),
            name,
            address,
            is_zone: true,
        })
    }
}

/// The lab with everything that runs in it. Fields go in this order: the firewall first.
struct Plant {
    conduitfw: Conduitfw,
    events: Events,
    plc: Program,
    lab: Lab,
}

impl Plant {
    fn build(text: &str, cast: &Cast, path: &Path) -> Result<Self> {
        let lab = Lab::for_policy(text)?;
        let zone = |name: &str| lab.plan().zones.iter().find(|zone| zone.name == name);
        let interface = |name: &str| zone(name).map_or("?", |zone| &zone.interfaces[0]);
        let (client, server) = (&cast.client, &cast.server);
        draw(cast, interface(&client.zone), interface(&server.zone));
        let peer = env::current_exe()?.with_file_name("modbus-peer");
        if !peer.is_file() {
            bail!(
                "{} is missing: run `cargo build -p conduitfw-tests` first",
                peer.display()
            );
        }
        let mut command = lab.host(&server.zone)?.command(peer);
        let plc = Program::start(command.arg("serve").arg(cast.address().to_string()))?;
        let conduitfw = Conduitfw::start(&lab, text)?;
        let events = conduitfw.events(&[])?;
        let path = path.strip_prefix(source_directory()).unwrap_or(path);
        println!("The gateway runs conduitfw with {}.", path.display());
        println!("{} serves Modbus/TCP on port {}.", server.name, cast.port);
        Ok(Self {
            conduitfw,
            events,
            plc,
            lab,
        })
    }

    fn client(&self, cast: &Cast) -> Result<ModbusClient> {
        let host = self.lab.host(&cast.client.zone)?;
        let mut tries = 0;
        loop {
            let client =
                ModbusClient::connect(host, Some(cast.client.address), cast.address(), cast.unit);
            match client {
                // The PLC may still be on its way up.
                Err(_) if tries < 20 => thread::sleep(Duration::from_millis(100)),
                result => return result,
            }
            tries += 1;
        }
    }

    fn story(&self, text: &str, cast: &Cast) -> Result<()> {
        let (hmi, plc) = (&cast.client.name, &cast.server.name);

        chapter(
            1,
            &format!(
                "{hmi} reads from {plc}, as the conduit {} allows",
                cast.name
            ),
        );
        let mut patient = self.client(cast)?;
        for _ in 0..3 {
            say(&read(&mut patient));
            thread::sleep(Duration::from_millis(300));
        }
        say("This connection stays open: it has a part in chapter 4.");

        chapter(
            2,
            &format!("{hmi} writes, over a second connection, what the policy does not allow"),
        );
        let mut eager = self.client(cast)?;
        say(&read(&mut eager));
        let written = eager.write(SETPOINT, WANTED);
        say(&format!(
            "writes {WANTED} to register {SETPOINT}: {}",
            outcome(&written)
        ));
        if written.is_err() {
            self.event("write-single-register")?;
            let value = patient.read(SETPOINT, 1)?[0];
            say(&format!(
                "On the first connection register {SETPOINT} still reads {value}."
            ));
        }

        chapter(3, "A stranger in the same zone tries the same port");
        self.stranger(cast)?;

        chapter(4, "The policy changes under the running connection");
        let changed = allow_write(text, cast)?;
        say("added to the policy:");
        for line in [
            "[[conduits.modbus]]",
            "functions = [\"write-single-register\"]",
        ] {
            println!("        {line}");
        }
        let reload = self.conduitfw.reload(&changed)?;
        if reload.status != Some(0) {
            bail!("the reload was refused: {}", reload.said.trim());
        }
        say(&format!(
            "conduitfw reload: in force after {} ms",
            reload.took.as_millis()
        ));
        say("on the connection of chapter 1:");
        let written = patient.write(SETPOINT, WANTED);
        say(&format!(
            "writes {WANTED} to register {SETPOINT}: {}",
            outcome(&written)
        ));
        let value = patient
            .read(SETPOINT, 1)
            .context("the connection did not survive")?;
        say(&format!("reads register {SETPOINT}: {}", value[0]));

        chapter(5, "What the gateway counted");
        let status = self.conduitfw.output("status", &[])?;
        for line in String::from_utf8_lossy(&status.stdout).lines() {
            println!("    {line}");
        }
        written.context("the write was still refused after the reload")
    }

    fn stranger(&self, cast: &Cast) -> Result<()> {
        if cast.client.is_zone {
            say("The conduit is open to the whole zone: here nobody is a stranger.");
            return Ok(());
        }
        let zone = self
            .lab
            .plan()
            .zones
            .iter()
            .find(|zone| zone.name == cast.client.zone);
        let address = zone.and_then(|zone| zone.stranger(cast.client.address.is_ipv6()));
        let host = self.lab.host(&cast.client.zone)?;
        let patience = Duration::from_millis(1500);
        let connected = connect_from(host, address, cast.address(), patience);
        let address = address.map_or_else(|| "?".to_owned(), |address| address.to_string());
        if connected.is_ok() {
            say(&format!(
                "{address} connects: some conduit of this policy lets it"
            ));
            return Ok(());
        }
        say(&format!(
            "{address} connects: no answer, not even a refusal"
        ));
        self.event(&address)
    }

    fn event(&self, wanted: &str) -> Result<()> {
        let line = self.events.find(|line| line.contains(wanted))?;
        say(&format!("event: {}", bold(&line)));
        Ok(())
    }

    fn keep(&mut self, cast: &Cast) {
        let peer = env::current_exe()
            .unwrap_or_default()
            .with_file_name("modbus-peer");
        let zone = self.lab.host(&cast.client.zone);
        let namespace = zone
            .map(|host| host.namespace().to_owned())
            .unwrap_or_default();
        let files = self.conduitfw.files();
        println!();
        println!("The lab stays. To play, as root:");
        println!(
            "    read    nsenter --net=/run/netns/{namespace} {} read {}",
            peer.display(),
            cast.address()
        );
        println!(
            "    write   nsenter --net=/run/netns/{namespace} {} write {} {SETPOINT} 901",
            peer.display(),
            cast.address()
        );
        println!("    policy  {}", files.policy().display());
        for verb in ["reload", "status", "events"] {
            println!("    {verb:<7} {}", words(&files.command(verb)));
        }
        println!("To remove it:");
        let mut removal = vec![self.plc.keep()];
        removal.extend(self.conduitfw.keep());
        removal.extend(self.lab.keep());
        for line in removal {
            println!("    {line}");
        }
    }
}

/// Who is where.
fn draw(cast: &Cast, left_interface: &str, right_interface: &str) {
    let (client, server) = (&cast.client, &cast.server);
    let left = [
        format!("zone {}", client.zone),
        format!("{} {}", client.name, client.address),
    ];
    let right = [
        format!("zone {}", server.zone),
        format!("{} {}", server.name, server.address),
    ];
    let wire = format!("---- {left_interface} [ gateway ] {right_interface} ----");
    let (width, gap) = (left[0].len().max(left[1].len()), wire.len());
    println!();
    println!("  {:<width$}  {:<gap$}  {}", left[0], "", right[0]);
    println!("  {:<width$}  {wire}  {}", left[1], right[1]);
    println!();
}

/// The policy with one more rule in the conduit of the demo.
fn allow_write(text: &str, cast: &Cast) -> Result<String> {
    let mut policy: Table = text.parse()?;
    let conduit = policy
        .get_mut("conduits")
        .and_then(|conduits| conduits.get_mut(cast.conduit));
    let rules = conduit.and_then(|conduit| conduit.get_mut("modbus"));
    let rules = rules
        .and_then(Value::as_array_mut)
        .context("the conduit has no rules")?;
    let mut rule = Table::new();
    for key in ["port", "ports", "units"] {
        if let Some(value) = rules[0].get(key) {
            rule.insert(key.to_owned(), value.clone());
        }
    }
    let functions = vec![Value::from("write-single-register")];
    rule.insert("functions".to_owned(), Value::Array(functions));
    rules.push(Value::Table(rule));
    Ok(toml::to_string(&policy)?)
}

fn read(client: &mut ModbusClient) -> String {
    match client.read(0, 4) {
        Ok(values) => format!("reads registers 0 to 3: {values:?}"),
        Err(error) => format!("reads registers 0 to 3: {error:#}"),
    }
}

fn outcome(written: &Result<()>) -> String {
    match written {
        Ok(()) => "done".to_owned(),
        Err(error) => {
            // "Connection reset by peer (os error 104)": the number helps nobody here.
            let error = format!("{error:#}");
            error
                .split(" (os error")
                .next()
                .unwrap_or(&error)
                .to_lowercase()
        }
    }
}

fn chapter(number: u8, title: &str) {
    println!();
    println!("{}", bold(&format!("{number}. {title}")));
}

fn say(text: &str) {
    println!("    {text}");
}

fn bold(text: &str) -> String {
    if stdout().is_terminal() {
        format!("\x1b[1m{text}\x1b[0m")
    } else {
        text.to_owned()
    }
}

fn words(command: &process::Command) -> String {
    let words = [command.get_program()]
        .into_iter()
        .chain(command.get_args());
    words
        .map(|word| word.to_string_lossy().into_owned())
        .collect::<Vec<_>>()
        .join(" ")
}
