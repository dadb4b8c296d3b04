//! Servers of other people that write down what they are asked: libmodbus (C) and pymodbus.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use crate::lab::{Host, Program, source_directory, target_directory};
use crate::oracle::reader::Request;

/// How long a server may take to start.
const PATIENCE: Duration = Duration::from_secs(20);

/// Whose server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Maker {
    /// libmodbus, compiled here. It throws away what has come a millisecond after it refused a request.
    Libmodbus,
    /// The same, half a second after it, as it is by itself.
    PatientLibmodbus,
    /// pymodbus.
    Pymodbus,
}

/// A server and its log. Both go when this value does.
#[derive(Debug)]
pub struct LoggedServer {
    log: PathBuf,
    read: usize,
    _program: Program,
}

impl LoggedServer {
    /// Starts one on a host of the lab, and waits until it listens.
    ///
    /// # Errors
    /// When it cannot be built or started.
    pub fn start(host: &Host, address: (IpAddr, u16), maker: Maker) -> Result<Self> {
        let log = std::env::temp_dir().join(format!("{}-{maker:?}.log", host.namespace()));
        let _ = fs::remove_file(&log);
        let mut command = match maker {
            Maker::Libmodbus | Maker::PatientLibmodbus => host.command(libmodbus_server()?),
            Maker::Pymodbus => {
                let mut command = host.command(python()?);
                command.arg(source_directory().join("tests/python/pymodbus_server.py"));
                command
            }
        };
        command
            .arg(address.0.to_string())
            .arg(address.1.to_string());
        command.arg(&log);
        match maker {
            Maker::Libmodbus => drop(command.arg("1")),
            Maker::PatientLibmodbus => drop(command.arg("500")),
            Maker::Pymodbus => {}
        }
        let program = Program::start(&mut command)?;
        let began = Instant::now();
        while host.run("ss -Htln")?.lines().count() == 0 {
            if began.elapsed() > PATIENCE {
                bail!("{maker:?} does not listen at {}", SocketAddr::from(address));
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(Self {
            log,
            read: 0,
            _program: program,
        })
    }

    /// The requests that it has taken since the last time.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn requests(&mut self) -> Result<Vec<Request>> {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let new = text.get(self.read..).unwrap_or_default();
        // A line that is being written waits for the next time.
        let new = new.get(..new.rfind('\n').map_or(0, |end| end + 1));
        let new = new.unwrap_or_default();
        self.read += new.len();
        new.lines().map(parse).collect()
    }
}

impl Drop for LoggedServer {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.log);
    }
}

fn parse(line: &str) -> Result<Request> {
    let (unit, digits) = line.split_once(' ').context("half a line")?;
    let mut pdu = Vec::new();
    for at in (0..digits.len()).step_by(2) {
        let byte = digits.get(at..at + 2).context("half a byte")?;
        pdu.push(u8::from_str_radix(byte, 16)?);
    }
    Ok(Request {
        transaction_id: 0,
        unit: unit.parse()?,
        pdu,
    })
}

/// Compiles the server, unless it is newer than its source.
fn libmodbus_server() -> Result<PathBuf> {
    let source = source_directory().join("tests/c/libmodbus_server.c");
    let directory = target_directory()?.join("peers");
    fs::create_dir_all(&directory)?;
    let program = directory.join("libmodbus-server");
    let age = |path: &Path| fs::metadata(path).and_then(|data| data.modified());
    if age(&program).is_ok_and(|built| age(&source).is_ok_and(|source| source < built)) {
        return Ok(program);
    }
    let output = Command::new("cc")
        .args(["-O1", "-o"])
        .arg(&program)
        .arg(&source)
        .arg("-lmodbus")
        .output()
        .context("there is no C compiler: run `cargo xtask setup`")?;
    ensure!(
        output.status.success(),
        "{} cannot be compiled (libmodbus-dev is needed: run `cargo xtask setup`): {}",
        source.display(),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(program)
}

/// The Python that has pymodbus.
fn python() -> Result<PathBuf> {
    let found = match std::env::var_os("CONDUITFW_PYTHON") {
        Some(python) => PathBuf::from(python),
        None => target_directory()?.join("python/bin/python3"),
    };
    ensure!(
        found.exists(),
        "{} is missing: run `cargo xtask setup`",
        found.display()
    );
    Ok(found)
}
