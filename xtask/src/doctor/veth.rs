//! Whether this kernel runs XDP programs natively on the virtual cables of the lab: tried, not asked.

use std::{fs, process::Command};

use anyhow::{Context, Result};

use super::Finding;
use crate::shell;

const TOPIC: &str = "native mode on veth";

/// Tries it in a network namespace that ends with the trial.
pub(super) fn finding() -> Finding {
    if !shell::is_root() {
        return Finding::fair(TOPIC, "not tried without root", "run as root");
    }
    match attempt() {
        Ok(()) => Finding::good(TOPIC, "tried, works"),
        Err(error) => Finding::bad(
            TOPIC,
            format!("{error:#}"),
            "boot a kernel with CONFIG_VETH and XDP",
        ),
    }
}

fn attempt() -> Result<()> {
    let object = shell::target("doctor").join("pass.o");
    fs::create_dir_all(shell::target("doctor"))?;
    fs::write(&object, passing_program()).context("cannot write the trial program")?;
    let script = "ip link add trial type veth peer name lairt && \
                  ip link set dev trial xdpdrv obj \"$0\" sec xdp";
    let mut command = Command::new("unshare");
    command.args(["--net", "sh", "-c", script]).arg(&object);
    shell::capture(&mut command).map(drop)
}

/// An object file with one program, which lets every frame pass: `r0 = 2; exit`.
fn passing_program() -> Vec<u8> {
    const CODE: [u8; 16] = [0xb7, 0, 0, 0, 2, 0, 0, 0, 0x95, 0, 0, 0, 0, 0, 0, 0];
    const NAMES: &[u8] = b"\0.strtab\0.symtab\0xdp\0license\0pass\0";
    const LICENSE: &[u8] = b"GPL\0";
    // The first symbol is empty; the second is the program: name 29, global function, section 3.
    let mut symbols = vec![0_u8; 24];
    symbols.extend(29_u32.to_le_bytes());
    symbols.extend([0x12, 0, 3, 0]);
    symbols.extend(0_u64.to_le_bytes());
    symbols.extend(16_u64.to_le_bytes());

    let mut sections = vec![Section::default()];
    let mut body = Vec::new();
    let mut place = |name, kind, flags, content: &[u8], link, more, entry| {
        body.resize(body.len().next_multiple_of(8), 0);
        sections.push(Section {
            name,
            kind,
            flags,
            at: 64 + body.len() as u64,
            size: content.len() as u64,
            link,
            more,
            entry,
        });
        body.extend_from_slice(content);
    };
    place(1, 3, 0, NAMES, 0, 0, 0);
    place(9, 2, 0, &symbols, 1, 1, 24);
    place(17, 1, 6, &CODE, 0, 0, 0);
    place(21, 1, 3, LICENSE, 0, 0, 0);
    body.resize(body.len().next_multiple_of(8), 0);

    let mut file = header(64 + body.len() as u64, 5);
    file.extend(body);
    for section in sections {
        section.write(&mut file);
    }
    file
}

/// The header of a relocatable object for BPF (machine 247), 64 bits, little end first.
fn header(sections_at: u64, sections: u16) -> Vec<u8> {
    let mut header = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    header.extend([1, 0, 247, 0, 1, 0, 0, 0]);
    header.extend([0; 16]);
    header.extend(sections_at.to_le_bytes());
    header.extend([0; 4]);
    for number in [64_u16, 0, 0, 64, sections, 1] {
        header.extend(number.to_le_bytes());
    }
    header
}

#[derive(Default)]
struct Section {
    name: u32,
    kind: u32,
    flags: u64,
    at: u64,
    size: u64,
    link: u32,
    more: u32,
    entry: u64,
}

impl Section {
    fn write(&self, file: &mut Vec<u8>) {
        file.extend(self.name.to_le_bytes());
        file.extend(self.kind.to_le_bytes());
        file.extend(self.flags.to_le_bytes());
        file.extend(0_u64.to_le_bytes());
        file.extend(self.at.to_le_bytes());
        file.extend(self.size.to_le_bytes());
        file.extend(self.link.to_le_bytes());
        file.extend(self.more.to_le_bytes());
        file.extend(8_u64.to_le_bytes());
        file.extend(self.entry.to_le_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_trial_program_is_an_object_of_five_sections() {
        let file = passing_program();
        let sections_at = u64::from_le_bytes(file[40..48].try_into().unwrap());
        assert_eq!(file.len() as u64, sections_at + 5 * 64);
    }
}
